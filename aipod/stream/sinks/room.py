"""Whether a directory takes files, found out by trying: no other answer is true on every file system."""

from __future__ import annotations

import tempfile
from pathlib import Path

from aipod.errors import ConfigError

__all__ = ["try_to_write"]


def try_to_write(directory: Path, name: str) -> None:
    """Make a file in a directory, and remove it.

    Args:
        name: What is to go there, for the error.

    Raises:
        ConfigError: It is refused.
    """
    try:
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise ConfigError([f"{name}: {error.strerror}; name a directory that this user may write to"]) from error
