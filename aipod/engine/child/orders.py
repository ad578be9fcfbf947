"""What a child is told of the instance that it is to have, in plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

__all__ = ["MakeOrder"]


@dataclass(frozen=True)
class MakeOrder:
    """An instance.

    Attributes:
        origin: Where its class is found; see :class:`~aipod.engine.child.origin.Origin`.
        root: The data path.
        kind, directory: Where its data lie; see :class:`~aipod.model.place.Place`.
        log: The file of its training log, for ``staging``; ``""`` for what lies in the directory.
        device: What ``device`` of the instance is to be; ``""`` leaves it alone.
        job_id: For a training: the job's id; ``""`` for none.
        resume: Whether the directory holds what an interrupted run of that job left.
        nice: How much less urgent the process is than its parent.
        log_level: The least important messages that are handed on to the parent's log.
        echo: Whether they are written to the process's own output as well.
    """

    origin: Mapping[str, Any]
    version: str
    root: str
    kind: Literal["revision", "staging", "scratch"]
    directory: str
    log: str = ""
    device: str = ""
    job_id: str = ""
    resume: bool = False
    nice: int = 0
    log_level: int = 0
    echo: bool = False

    def fields(self) -> dict[str, Any]:
        return asdict(self)
