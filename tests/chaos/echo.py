"""A model that gives back what it was sent, served: ``python echo.py``."""

from __future__ import annotations

from typing import Any

from aipod.model import AIModelBase
from aipod.rpc.server import serve


class Echo(AIModelBase):
    # Whatever a caller calls an argument, it is one: "self", too. Bytes of 1.0 have no way back in JSON.
    def predict(self, /, **kwargs: Any) -> Any:
        return {name: value for name, value in kwargs.items() if name != "binary_data"}


if __name__ == "__main__":
    serve(Echo)
