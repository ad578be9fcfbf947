"""What keeps instances of a model alive and runs calls on them. Knows no gRPC."""

from __future__ import annotations

from aipod.engine.call import Call, LocalCall
from aipod.engine.engine import Engine

__all__ = ["Call", "Engine", "LocalCall"]
