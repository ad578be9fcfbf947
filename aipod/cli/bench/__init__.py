"""``aipod bench``: how many calls a server answers, and how long each takes."""

from __future__ import annotations

from aipod.cli.bench.command import bench

__all__ = ["bench"]
