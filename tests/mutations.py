"""Requests as a stranger may send them: good ones of every kind, damaged in ways that dice decide."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from datetime import datetime, timezone

import msgpack
import numpy
from google.protobuf.message import Message

from aipod.codec.encoder import pack
from aipod.codec.wire import join
from aipod.rpc.ai_pb2 import Input
from aipod.rpc.methods import ADMIN, LEGACY_METHODS, MODEL_METHODS
from aipod.rpc.v1 import admin_pb2

__all__ = ["VERSION", "Mutations"]

# The version that most of the requests are for.
VERSION = "v"

_KWARGS: list[dict[str, object]] = [
    {},
    {"x": 1, "y": [1.5, None, True, -(2**63), 2**64 - 1, float("nan")], "文字": "你好"},
    {"when": datetime(2026, 1, 1, tzinfo=timezone.utc), "day": datetime(2026, 1, 1)},
    {
        "array": numpy.arange(6, dtype=">i2").reshape(2, 3),
        "other": numpy.zeros((3, 0), "<f8"),
        "zero": numpy.array(1.5),
    },
    {"fields": numpy.zeros(2, [("a", "?"), ("b", "<U2", (2,)), ("c", [("d", "M8[D]")])])},
    {"text": numpy.array(["ab", "c"]), "bools": numpy.array([True, False]), "scalar": numpy.float32(1.5)},
    {"bytes": bytes(1100), "short": b"abc", "deep": [[{"x": [{"y": numpy.arange(3)}]}]]},
    {"time": numpy.array(["2026-01-01", "NaT"], "M8[25us]"), "complex": numpy.array([1j])},
]
_JSON = [
    b"{}",
    json.dumps({"x": 1, "y": [1.5, None, True, {"deep": [[]]}], "z": -1e308}).encode(),
    '{"文字": "你好", "half": "\\ud800", "nan": NaN, "big": 123456789012345678901234567890}'.encode(),
]
# Bytes that mean something to msgpack or to protobuf, or are the edge of something.
_TELLING = bytes.fromhex("000102080a0b0c0d0f12131a1b2d7a7f80818f90919fa0a1bfc0c1c4c7c8cacbcccfd0d3d4d9dbdcdddedfe0ff")
_MOST_NOISE = 64
_VERBS: list[tuple[str, Callable[[str], Message]]] = [
    ("Info", lambda version: admin_pb2.InfoRequest()),
    ("Versions", lambda version: admin_pb2.VersionsRequest()),
    ("Statistics", lambda version: admin_pb2.StatisticsRequest()),
    ("Load", lambda version: admin_pb2.VersionRequest(version=version)),
    ("Unload", lambda version: admin_pb2.VersionRequest(version=version)),
    ("Pin", lambda version: admin_pb2.PinRequest(version=version, pinned=False)),
    ("Rollback", lambda version: admin_pb2.RollbackRequest(version=version, revision=1)),
    ("SetAlias", lambda version: admin_pb2.SetAliasRequest(alias="alias", version=version)),
    ("DropAlias", lambda version: admin_pb2.DropAliasRequest(alias="alias")),
    ("DeleteVersion", lambda version: admin_pb2.VersionRequest(version="another")),
]


class Mutations:
    """An endless supply.

    Args:
        dice: Decide everything, so that a seed gives the same requests again.
    """

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self._packed = [pack(kwargs, "kwargs") for kwargs in _KWARGS]
        kinds = {
            self._envelope: 30,
            self._body: 25,
            self._header: 15,
            self._segments: 10,
            self._json: 12,
            self._legacy: 8,
            self._version: 8,
            self._verb: 4,
            self._noise: 3,
            self._initialize: 0.3,
        }
        self._kinds, self._weights = list(kinds), list(kinds.values())

    def request(self) -> tuple[str, bytes]:
        """The full name of a method, and what to send to it."""
        [kind] = self._dice.choices(self._kinds, self._weights)
        return kind()

    def damage(self, data: bytes) -> bytes:
        """One to four wounds."""
        wounded = bytearray(data)
        for _ in range(self._dice.choice((1, 1, 1, 2, 4))):
            at = self._dice.randrange(len(wounded) + 1)
            to = min(len(wounded), at + self._dice.choice((0, 1, 1, 1, 2, 4, 30)))
            wounded[at:to] = self._wound(bytes(wounded[at:to]))
        return bytes(wounded)

    def _wound(self, old: bytes) -> bytes:
        dice = self._dice
        what = dice.randrange(6)
        if what == 0:
            return dice.randbytes(len(old))
        if what == 1:
            return bytes(dice.choices(_TELLING, k=max(1, len(old))))
        if what == 2:
            return b""
        if what == 3:
            return old * dice.choice((2, 3, 300))
        if what == 4:
            return bytes((dice.choice(_TELLING),)) + dice.choice(
                (b"\xff\xff\xff\xff", b"\x7f\xff", b"\0\0\0\1", b"\xff")
            )
        return bytes(byte ^ (1 << dice.randrange(8)) for byte in old)

    def _method(self) -> str:
        return MODEL_METHODS[self._dice.choice(("predict", "predict", "predict", "log"))]

    def _envelope(self) -> tuple[str, bytes]:
        return self._method(), self.damage(join(VERSION, *self._dice.choice(self._packed)))

    def _body(self) -> tuple[str, bytes]:
        body, segments = self._dice.choice(self._packed)
        return self._method(), join(VERSION, self.damage(body), segments)

    def _header(self) -> tuple[str, bytes]:
        """The description of an array, damaged inside an extension that is whole."""
        body, segments = self._dice.choice(self._packed)
        kwargs = msgpack.unpackb(body, strict_map_key=False, raw=False, timestamp=0)
        hurt = msgpack.packb(
            {
                key: msgpack.ExtType(value.code, self.damage(value.data)) if type(value) is msgpack.ExtType else value
                for key, value in kwargs.items()
            }
        )
        return self._method(), join(VERSION, hurt, segments)

    def _segments(self) -> tuple[str, bytes]:
        body, segments = self._dice.choice(self._packed)
        hurt = [memoryview(self.damage(bytes(segment))) for segment in segments]
        self._dice.shuffle(hurt)
        return self._method(), join(VERSION, body, hurt[self._dice.randrange(2) :])

    def _json(self) -> tuple[str, bytes]:
        text = self.damage(self._dice.choice(_JSON))
        return LEGACY_METHODS["predict"], Input(kwargs_json=text, version=VERSION).SerializeToString()

    def _legacy(self) -> tuple[str, bytes]:
        request = Input(kwargs_json=self._dice.choice(_JSON), version=VERSION, binary_data=b"data")
        return LEGACY_METHODS["predict"], self.damage(request.SerializeToString())

    def _name(self) -> bytes:
        return self.damage(self._dice.choice((b"v", b"../../v", "模型".encode(), b"a/b", b"v.1-2_3")))

    def _version(self) -> tuple[str, bytes]:
        body, segments = self._dice.choice(self._packed)
        # Written by hand: join() would not write a name that is not UTF-8.
        name = self._name()[:100]
        return self._method(), b"\x0a" + bytes((len(name),)) + name + join("", body, segments)

    def _verb(self) -> tuple[str, bytes]:
        verb, request = self._dice.choice(_VERBS)
        return ADMIN + verb, self.damage(request(VERSION).SerializeToString())

    def _initialize(self) -> tuple[str, bytes]:
        name = self._name()[:100]
        body, _ = pack({"x": 1}, "kwargs")
        return MODEL_METHODS["initialize"], b"\x0a" + bytes((len(name),)) + name + join("", body, [])

    def _noise(self) -> tuple[str, bytes]:
        method = self._dice.choice((MODEL_METHODS["predict"], LEGACY_METHODS["predict"], ADMIN + "Load"))
        return method, self._dice.randbytes(self._dice.randrange(_MOST_NOISE))
