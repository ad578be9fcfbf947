"""The records of a training, and how it stands, as lines for people."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

from aipod.cli.json_text import to_json
from aipod.cli.text import number, one_line
from aipod.errors import TrainingCancelled, TrainingFailed
from aipod.rpc.client import JobInfo

__all__ = ["metrics_text", "progress_of", "reason_text", "record_line", "state_line"]

# What has a place of its own in the line, or is in none.
_PLACED = frozenset({"progress", "data", "message", "stage", "status", "timestamp", "time", "seq", "job_id"})


def record_line(record: Mapping[str, Any]) -> str:
    """``12:03:04   40%  fitting  epoch 3, accuracy 0.9125  the message``."""
    progress = progress_of(record)
    status = record.get("status")
    parts = [
        _clock(record),
        "    " if progress is None else f"{progress:3.0f}%",
        _text(record.get("stage")),
        _data_text(record.get("data")),
        _text(record.get("message")),
        "" if status == "running" else _text(status),
        _data_text({name: value for name, value in record.items() if name not in _PLACED}),
    ]
    return "  ".join(part for part in parts if part)


def progress_of(record: Mapping[str, Any]) -> float | None:
    """From 0 to 100, if the record says it in a way that can be shown so."""
    progress = _finite(record.get("progress"))
    return None if progress is None else min(max(progress, 0.0), 100.0)


def metrics_text(data: object) -> str:
    """The numbers in a record's data, or in what a training returned."""
    return _data_text(_numbers(data))


def state_line(info: JobInfo) -> str:
    """Which job it is, and how it stands: what it made, or why it made nothing."""
    told = [info.state]
    if info.revision:
        told.append(f"revision {info.revision}")
    if metrics := metrics_text(info.metrics):
        told.append(metrics)
    why = reason_text(info)
    return f"{info.id}: {', '.join(told)}" + (f": {why}" if why else "")


def reason_text(info: JobInfo) -> str:
    """Why it did not succeed, without what is known of it anyway."""
    reason = info.reason
    for known in (TrainingFailed(info.version, info.id, ""), TrainingCancelled(info.version, info.id)):
        reason = reason.removeprefix(str(known))
    return one_line(reason.removeprefix(": "))


def _clock(record: Mapping[str, Any]) -> str:
    seconds = _finite(record.get("time", record.get("timestamp")))
    try:
        return "        " if seconds is None else time.strftime("%H:%M:%S", time.localtime(seconds))
    except (OverflowError, OSError, ValueError):  # the model wrote it
        return "        "


def _numbers(data: object) -> dict[str, float]:
    return {name: value for name, value in data.items() if _finite(value) is not None} if isinstance(data, dict) else {}


def _finite(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # an int that no float is large enough for
        return None


def _data_text(data: object) -> str:
    if not isinstance(data, dict):
        return _text(data)
    return ", ".join(f"{one_line(name)} {_text(value)}" for name, value in data.items())


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return one_line(value)
    return number(value) if isinstance(value, float) else one_line(to_json(value))
