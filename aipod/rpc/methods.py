"""The full names of the RPCs, and what the two ends tell each other of themselves."""

from __future__ import annotations

__all__ = ["ABILITIES", "ADMIN", "FOLLOW", "JOBS", "LEGACY_METHODS", "MODEL_METHODS", "TRUNK", "WIRE_VERSION"]

WIRE_VERSION = 1
# An ability that the other end does not know is not used.
ABILITIES: tuple[str, ...] = ("unary", "segments", "admin", "trunk", "jobs")

MODEL_METHODS = {name: f"/aipod.v1.Model/{name.capitalize()}" for name in ("initialize", "train", "predict", "log")}
LEGACY_METHODS = {name: f"/ai.AI/{name}" for name in ("initialize", "train", "predict", "log")}
ADMIN = "/aipod.v1.Admin/"
JOBS = "/aipod.v1.Jobs/"
FOLLOW = f"{JOBS}Follow"
TRUNK = "/aipod.v1.Trunk/Open"
