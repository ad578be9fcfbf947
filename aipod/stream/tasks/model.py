"""What a task predicts with, and where messages go that it cannot use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aipod.config import check_address
from aipod.config.kinds import Kind, whole
from aipod.errors import ConfigError
from aipod.stream.tasks.items import Part, duration, item, maybe, number, word, yes_or_no
from aipod.stream.tasks.template import Template

__all__ = ["DeadSpec", "ModelSpec"]


def _address() -> Kind[str]:
    def read(value: object) -> str:
        if not isinstance(value, str):
            raise TypeError(value)
        try:
            return check_address(value)
        except ConfigError:
            # Here it is a field among others, which has its own sentence.
            raise TypeError(value) from None

    return Kind("the address of a model server, such as localhost:50051", read)


def _dead_subject() -> Kind[str]:
    def read(value: object) -> str:
        if not isinstance(value, str):
            raise TypeError(value)
        return Template(value.strip(), ("task",)).text

    return Kind("a subject, such as dead.{task}", read)


@dataclass(frozen=True)
class ModelSpec(Part):
    """What predicts.

    Attributes:
        address: Of the model server, as host:port.
        version: A version, or an alias.
        timeout: Seconds for one predict.
        concurrency: How many windows of the task may be on their way at a time.
    """

    address: str = item(_address())
    version: str = item(word(r"\S(.*\S)?", "the name of a version, or an alias"), "default")
    timeout: float = item(duration(0.001), 60.0)
    concurrency: int = item(whole(1, 1024), 4)


@dataclass(frozen=True)
class DeadSpec(Part):
    """Where messages go that nobody can use, and when that is too many.

    Attributes:
        subject: May hold ``{task}``.
        create: Make a stream for the subject if there is none.
        stream: That stream's name; None leaves it to us.
        max_ratio: Of the last ``over`` messages, once there are ``min_count``: with more dead ones the task stops.
    """

    subject: str = item(_dead_subject(), "dead.{task}")
    create: bool = item(yes_or_no(), True)
    stream: str | None = item(
        maybe(word(r"[^\s.*>/\\]{1,255}", "a stream's name, without spaces and . * > / \\")), None
    )
    max_ratio: float = item(number(0.0, 1.0), 0.5)
    min_count: int = item(whole(1, 1_000_000), 100)
    over: int = item(whole(1, 1_000_000), 1000)

    @classmethod
    def cross(cls, good: Mapping[str, Any]) -> list[str]:
        if good.get("min_count", 0) > good.get("over", 1_000_000):
            return [f"min_count is {good['min_count']}; it must be at most over, and that is {good['over']}"]
        return []
