"""A model that gives back a digest of what it was sent: ``aipod serve stream_digest.py:Digest``.

What it does beside that is in the version: ``strict`` refuses windows with a bad message in them, ``slow-2.5`` takes
2.5 seconds, ``large`` gives back as many characters as the sum of ``v``. Calls of the first two are noted in ``ran`` in
the data path, before anything else.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from aipod.errors import InvalidArgument
from aipod.model import AIModelBase

__all__ = ["Digest", "digest"]


def digest(values: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Sum up messages such that any other choice, or another order, of messages shows."""
    values = list(values)
    text = json.dumps(values, sort_keys=True)
    return {
        "count": len(values),
        "sum": sum(value["v"] for value in values),
        "hash": hashlib.sha256(text.encode()).hexdigest()[:16],
    }


class Digest(AIModelBase):
    def predict(self, messages: list[dict[str, Any]], window: dict[str, Any], **_: Any) -> Any:
        kind, _, seconds = self.version.partition("-")
        if kind in ("strict", "slow"):
            self._note(f"{self.version} {window['key']}/{window['id']}/{len(messages)}\n")
        if kind == "slow":
            time.sleep(float(seconds))
        bad = [at for at, message in enumerate(messages) if message.get("bad")]
        if kind == "strict" and bad:
            raise InvalidArgument(f"message {bad[0]} is bad")
        return "x" * sum(message["v"] for message in messages) if kind == "large" else digest(messages)

    def _note(self, line: str) -> None:
        ran = os.open(Path(self.datapath) / "ran", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        os.write(ran, line.encode())
        os.close(ran)
