"""Tasks: one configured stream each, from a file, a database or Python, checked before anything runs."""

from __future__ import annotations

from aipod.stream.errors import Unreadable
from aipod.stream.tasks.model import DeadSpec, ModelSpec
from aipod.stream.tasks.prepare import Prepare, window_of
from aipod.stream.tasks.provider import Provider, TaskProvider, open_provider, read_tasks
from aipod.stream.tasks.reading import Reading
from aipod.stream.tasks.sinkspec import SinkSpec
from aipod.stream.tasks.source import Source
from aipod.stream.tasks.task import StreamTask
from aipod.stream.tasks.template import Template
from aipod.stream.tasks.toml import load, loads

__all__ = [
    "DeadSpec",
    "ModelSpec",
    "Prepare",
    "Provider",
    "Reading",
    "SinkSpec",
    "Source",
    "StreamTask",
    "TaskProvider",
    "Template",
    "Unreadable",
    "load",
    "loads",
    "open_provider",
    "read_tasks",
    "window_of",
]
