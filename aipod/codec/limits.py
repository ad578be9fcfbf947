"""How much of what arrives is looked at before it is refused."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Limits"]


@dataclass(frozen=True)
class Limits:
    """Bounds on one message that is read.

    Nothing bounds the length of one list or one map: each of their items takes a byte of the msgpack part at least, so
    the bound on the whole of it holds for them too, and for everything that many small ones could add up to.

    Attributes:
        max_value_bytes: Size of the msgpack part. Decoded it can take 90 times that in memory, so keep it small; arrays
            and large bytes lie outside it and are bounded by the size of the message alone.
        max_segments: Arrays and large bytes in one message.
        max_depth: Lists and maps inside each other; the outermost counts as one.
    """

    max_value_bytes: int = 1 << 20
    max_segments: int = 65_536
    max_depth: int = 64
