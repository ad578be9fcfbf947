"""What a message's headers are here: plain text by plain text, by one rule, wherever the message comes from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["parsed", "plain"]


def plain(headers: Mapping[Any, Any] | None) -> dict[str, str]:
    """Make text of what a client handed over: older ones give objects for what is not ASCII."""
    if not headers:
        return {}
    return {str(name): str(value) for name, value in headers.items() if str(name).strip()}


def parsed(block: bytes) -> dict[str, str]:
    """Read headers as they are stored: a line with the version, then ``name: value`` lines.

    A name that is not one ASCII word is left out, and of a name that comes twice the last counts, as the client that
    delivers has it.
    """
    found: dict[str, str] = {}
    for line in block.split(b"\r\n")[1:]:
        name, colon, value = line.partition(b":")
        key = name.strip().decode("ascii", "replace")
        if colon and key.isascii() and key and not any(sign.isspace() for sign in key):
            found[key] = value.strip().decode("utf-8", "replace")
    return found
