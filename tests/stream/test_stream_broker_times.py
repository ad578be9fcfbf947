"""What is pure on the broker's side: moments, the clock, headers, places, addresses, specifications."""

from __future__ import annotations

from datetime import datetime, timezone
from email.header import Header

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aipod.errors import ConfigError
from aipod.stream.broker.address import Connect
from aipod.stream.broker.bucket import token
from aipod.stream.broker.consumer import ConsumerSpec
from aipod.stream.broker.headers import parsed, plain
from aipod.stream.broker.pulls import place_of
from aipod.stream.broker.times import ServerClock, nanoseconds


@given(st.integers(min_value=0, max_value=4_000_000_000_000_000_000))
def test_a_moment_is_read_to_the_nanosecond(moment: int) -> None:
    seconds, rest = divmod(moment, 1_000_000_000)
    text = datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
    # The broker leaves trailing zeros out.
    fraction = f".{rest:09d}".rstrip("0").rstrip(".")
    assert nanoseconds(f"{text}{fraction}Z") == moment


def test_a_moment_with_an_offset_is_read() -> None:
    assert nanoseconds("1970-01-01T02:00:00.5+02:00") == 500_000_000


def test_the_clock_never_goes_backwards_and_is_never_behind_a_message() -> None:
    local = 100.0
    clock = ServerClock(lambda: local)
    assert clock.now() == 0.0
    clock.set(1000.0)
    local += 5
    assert clock.now() == 1005.0
    clock.saw(900.0)  # an old message says nothing
    assert clock.now() == 1005.0
    clock.saw(1010.0)
    assert clock.now() == 1010.0
    clock.set(1000.0)  # the broker's clock was put back: ours waits for it
    assert clock.now() == 1010.0
    local += 20
    assert clock.now() == 1020.0


def test_the_broker_s_word_corrects_a_clock_that_ran_ahead() -> None:
    local = 0.0
    clock = ServerClock(lambda: local)
    clock.set(1000.0)
    local += 100
    clock.set(1050.0)
    local += 60
    assert clock.now() == 1110.0


def test_headers_of_old_clients_become_text() -> None:
    assert plain({"a": Header("grün", "utf-8"), "": "x", " ": "y", "b": "c"}) == {"a": "grün", "b": "c"}
    assert plain(None) == {}


def test_stored_headers_are_read_as_a_delivery_has_them() -> None:
    block = (
        "NATS/1.0\r\na: 1\r\nb:  grün \r\nc:\r\n d e: x\r\nü: x\r\n: x\r\nnonsense\r\na: 2\r\nt: x:y\r\n\r\n".encode()
    )
    assert parsed(block) == {"a": "2", "b": "grün", "c": "", "t": "x:y"}
    assert parsed(b"") == {}


@pytest.mark.parametrize(
    "reply",
    [
        "$JS.ACK.orders.d.3.7.9.1700000000000000001.5",
        "$JS.ACK.hub.ACC.orders.d.3.7.9.1700000000000000001.5",
        "$JS.ACK.hub.ACC.orders.d.3.7.9.1700000000000000001.5.rnd",
    ],
)
def test_every_form_of_a_reply_subject_is_read(reply: str) -> None:
    assert place_of(reply) == (7, 9, 1700000000000000001, 5)


def test_an_address_shows_no_secret() -> None:
    spec = Connect(servers=("nats://me:hunter2@broker:4222",), token="", user="me", password="hunter2")
    assert "hunter2" not in repr(spec)
    assert "broker:4222" in repr(spec)
    assert "hunter2" not in spec.where


def test_all_that_is_wrong_with_an_address_is_said_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        Connect(servers=("http://x:hunter2@y", "nats://:1", "a:99999"), user="u", token="t", tls_cert="c", domain="a.b")
    problems = caught.value.problems
    assert len(problems) == 7
    assert "hunter2" not in str(caught.value)
    with pytest.raises(ConfigError, match="name at least one"):
        Connect(servers=())


def test_a_file_that_cannot_be_read_is_named_by_its_option() -> None:
    with pytest.raises(ConfigError, match=r"creds: the file cannot be read: No such file") as caught:
        Connect(creds="/nowhere/x.creds").options()
    assert "/nowhere" not in str(caught.value)


def test_all_that_is_wrong_with_a_consumer_is_said_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        ConsumerSpec(
            durable="a.b", stream="", subjects=("a..b", "a.>.b", "x*"), ack_wait=0, max_ack_pending=0, start="seq:x"
        )
    assert len(caught.value.problems) == 8
    with pytest.raises(ConfigError, match="name the stream, or the subjects"):
        ConsumerSpec(durable="d")


@pytest.mark.parametrize("start", ["", "ALL", "seq:", "seq:0", "seq:-1", "time:", "time:yesterday", "time:2026-01-01"])
def test_a_start_that_makes_no_sense_is_refused(start: str) -> None:
    with pytest.raises(ConfigError, match="start"):
        ConsumerSpec(durable="d", stream="s", start=start)


@given(st.text(min_size=1), st.text(min_size=1))
def test_any_name_is_one_token_and_no_two_are_the_same(one: str, other: str) -> None:
    assert not set(token(one)) & set(".*> /")
    assert (token(one) == token(other)) == (one == other)
