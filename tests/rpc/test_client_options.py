"""What a client takes for its arguments, before anything is sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from aipod.errors import InvalidArgument
from aipod.rpc.arguments import take_bytes, take_ping
from aipod.rpc.client import AIClient, AsyncAIClient


@pytest.mark.parametrize(
    ("take", "good", "bad", "sentence"),
    [
        (
            take_ping,
            [0.2, 5, 86_400],
            ["a", "5", None, True, 0, 0.19, -1, 86_401, float("nan"), float("inf"), 10**400, "a" * 1000],
            r"^ping_seconds is .*; give seconds from 0\.2 to 86400$",
        ),
        (
            take_bytes,
            [1024, 2**31, 2**40],
            ["x", "1024", None, False, 0, -1, 1023, 2**40 + 1, 2048.0, "x" * 1000],
            r"^max_message_bytes is .*; give a whole number of bytes from 1024 to 1099511627776$",
        ),
    ],
)
def test_a_value_that_grpc_would_choke_on_is_refused_with_its_name(
    take: Callable[[object], object], good: list[object], bad: list[object], sentence: str
) -> None:
    assert [take(value) for value in good] == good
    for value in bad:
        with pytest.raises(InvalidArgument, match=sentence) as refusal:
            take(value)
        assert len(str(refusal.value)) < 200


@pytest.mark.parametrize("client", [AIClient, AsyncAIClient])
@pytest.mark.parametrize("value", ["no", "", 1, 0, None])
def test_a_flag_that_is_neither_true_nor_false_is_refused(client: type[AIClient | AsyncAIClient], value: Any) -> None:
    for name in ("trunk", "shared_memory"):
        with pytest.raises(InvalidArgument, match=f"^{name} is .*; give True or False$"):
            client("localhost:1", **{name: value})
    with pytest.raises(InvalidArgument, match=r"^timed is .*; give True or False$"):
        client("localhost:1").options(timed=value)
