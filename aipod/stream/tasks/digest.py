"""What a task is, in so few characters that others can be shown it: enough to tell two of one name apart."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING
from zlib import crc32

if TYPE_CHECKING:
    from aipod.stream.tasks.task import StreamTask

__all__ = ["differences", "digest"]


def digest(task: StreamTask) -> dict[str, str]:
    """Shorten each part of a task. Nothing secret goes into that, and where the broker is does not either."""
    source, model = task.source, task.model
    sinks = (re.sub(r"[?][^#]*", "", str(inner)) for sink in task.sinks for inner in sink.all())
    parts = {
        "source": (source.stream or "", *sorted(source.subjects)),
        "reading": (task.decode, task.key, task.time, task.time_unit),
        "window": (str(task.window),),
        "model": (model.address, model.version, task.prepare, *sorted(map(":".join, task.columns.items()))),
        "sinks": tuple(sinks),
    }
    return {name: f"{crc32(repr(part).encode()):08x}" for name, part in parts.items()}


def differences(mine: Mapping[str, str], theirs: object) -> list[str]:
    """List the parts that are others; none where nothing is said of them."""
    if not isinstance(theirs, Mapping):
        return []
    return [name for name, part in mine.items() if theirs.get(name, part) != part]
