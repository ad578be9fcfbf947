"""With which sentences the engine refuses a call, or gives one up."""

from __future__ import annotations

from aipod.errors import Overloaded, Unavailable

__all__ = ["draining", "interrupted", "no_hope", "no_place", "stopped"]


def draining() -> Unavailable:
    return Unavailable("the server is draining and takes no more calls; try another one, or again later")


def stopped() -> Unavailable:
    return Unavailable("the server stopped before the model was through; the call can have run", may_have_run=True)


def no_place(version: str) -> Overloaded:
    return Overloaded(
        f"no place in the pool came free for version {version!r} in time: every instance is busy or pinned;"
        " try again later, or raise AIPOD_MODEL_POOL_SIZE"
    )


def no_hope(version: str) -> Overloaded:
    return Overloaded(
        f"no place in the pool for version {version!r}: pinned versions take all of it;"
        " unpin one, or raise AIPOD_MODEL_POOL_SIZE or AIPOD_MODEL_POOL_BYTES"
    )


def interrupted(job: str, goes_on: bool) -> Unavailable:
    what = "it goes on when a server is back" if goes_on else "start it again when a server is back"
    return Unavailable(f"the server stopped before training job {job!r} was through; {what}", may_have_run=True)
