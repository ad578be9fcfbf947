"""Payload, key and time of a message, as a task reads them."""

from __future__ import annotations

import datetime
import io
import json
import math
import struct
import sys
import time
from typing import Any

import msgpack
import numpy as np
import pytest

from aipod.errors import ConfigError
from aipod.stream.message import Message
from aipod.stream.tasks import Reading, Unreadable
from aipod.stream.tasks.keys import MAX_KEY_BYTES

HERE = __name__


def read(data: bytes | object, subject: str = "plant.7.temperature", headers: Any = None, **how: str) -> Message:
    payload = data if isinstance(data, bytes) else json.dumps(data).encode()
    message = Message(5, 1000.5, subject, payload, headers or {})
    Reading(**how).read(message)
    return message


def npy(array: Any, **how: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **how)
    return file.getvalue()


def double(data: bytes) -> int:
    return 2 * int(data)


def by_length(message: Message) -> int:
    return len(message.value)


def at_noon(message: Message) -> datetime.datetime:
    return datetime.datetime(2026, 1, 31, 12)


def ends(data: object) -> None:
    sys.exit(3)


class Wordless(Exception):
    def __str__(self) -> str:
        raise RuntimeError


def wordless(data: object) -> None:
    raise Wordless


async def waits(data: object) -> None:
    """Nothing that a task may call for each message."""


NUMBER = 5


class TestPayload:
    @pytest.mark.parametrize(
        ("decode", "data", "value"),
        [
            ("json", b'{"a": [1, 2.5, null, "\xc3\xa9"]}', {"a": [1, 2.5, None, "é"]}),
            ("json", b"\xef\xbb\xbf1", 1),
            ("json", '"é"'.encode("utf-16"), "é"),
            ("json", b"-Infinity", -math.inf),
            ("msgpack", msgpack.packb({"a": [1, b"x", "y"]}), {"a": [1, b"x", "y"]}),
            ("msgpack", msgpack.packb(msgpack.Timestamp(1)), datetime.datetime.fromtimestamp(1, datetime.timezone.utc)),
            ("raw", b"", b""),
            ("raw", b"\x00\xff", b"\x00\xff"),
            (f"{HERE}:double", b"21", 42),
            ("json:loads", b"[1]", [1]),
        ],
    )
    def test_a_payload_becomes_a_value(self, decode: str, data: bytes, value: object) -> None:
        assert read(data, decode=decode).value == value

    @pytest.mark.parametrize(
        ("decode", "data", "problem"),
        [
            ("json", b"", "it is empty"),
            ("json", b"{", "no JSON"),
            ("json", b"\xff\xfe\xfa", "no JSON"),
            ("json", b"1 2", "Extra data"),
            ("json", b"[" * 200_000, "nested too deeply"),
            ("json", b"1" * 5000, "no JSON"),
            ("json", b" " * ((8 << 20) + 1), "at most 8388608 are decoded"),
            ("msgpack", b"", "it is empty"),
            ("msgpack", b"\xc1", "no msgpack"),
            ("msgpack", b"\x01\x02", "no msgpack"),
            ("msgpack", b"\xdd\xff\xff\xff\xff", "no msgpack"),
            ("msgpack", msgpack.packb({1: 2}), "no msgpack"),
            ("msgpack", msgpack.packb(msgpack.ExtType(5, b"x")), "extension type 5"),
            ("msgpack", b"\xa1\xff", "no msgpack"),
            ("msgpack", b"\x91" * 5000, "no msgpack"),
            ("msgpack", b"\xc7\x0c\xff" + struct.pack(">Iq", 0, 2**62), "no msgpack"),
            ("msgpack", b" " * ((8 << 20) + 1), "at most 8388608 are decoded"),
            (f"{HERE}:double", b"x", "double raised ValueError: invalid literal"),
            (f"{HERE}:ends", b"x", "ends raised SystemExit: 3"),
            (f"{HERE}:wordless", b"x", "wordless raised Wordless"),
        ],
    )
    def test_what_cannot_be_decoded_is_unreadable(self, decode: str, data: bytes, problem: str) -> None:
        with pytest.raises(Unreadable, match=problem):
            read(data, decode=decode)

    @pytest.mark.parametrize(
        "array",
        [
            np.arange(6.0).reshape(2, 3),
            np.asfortranarray(np.arange(6).reshape(2, 3)),
            np.array(3, dtype=">i2"),
            np.zeros((0, 5)),
            np.array(["a", "é"]),
            np.array([True, False]),
        ],
    )
    def test_an_array_is_what_it_was(self, array: np.ndarray) -> None:
        value = read(npy(array), decode="npy").value
        assert value.dtype == array.dtype
        np.testing.assert_array_equal(value, array)

    @pytest.mark.parametrize(
        ("data", "problem"),
        [
            (b"", "it is empty"),
            (b"PK\x03\x04", "does not begin as one"),
            (npy(np.array([{}]), allow_pickle=True), "no plain numbers"),
            (npy(np.zeros(2, [("a", "f4")])), "no plain numbers"),
            (npy(np.zeros(3))[:-1], "does not fit"),
            (npy(np.zeros(3)) + b"x", "does not fit"),
            # A header that promises terabytes costs nothing.
            (npy(np.zeros(3)).replace(b"(3,), }", b"(999999999999,), }"), "does not fit|no .npy"),
            (npy(np.zeros(3)).replace(b"(3,), }", b"(-3,), }"), "does not fit|no .npy"),
            (b"\x93NUMPY\x03\x00\x01\x00x", "version 3.0"),
            (b"\x93NUMPY\x01\x00\x04\x00((((", "no .npy"),
        ],
    )
    def test_what_is_no_array_is_unreadable(self, data: bytes, problem: str) -> None:
        with pytest.raises(Unreadable, match=problem):
            read(data, decode="npy")

    @pytest.mark.parametrize(
        ("decode", "problem"),
        [
            ("jsn", "no format 'jsn'; the nearest is json"),
            ("", "no format ''"),
            ("no_such_module_here:f", "there is no module 'no_such_module_here' in this directory"),
            (f"{HERE}:nothing", "has no 'nothing'"),
            (f"{HERE}:NUMBER", "is int, and cannot be called"),
            (f"{HERE}:waits", "is async"),
            ("../evil:f", "names no function; write module:function"),
        ],
    )
    def test_a_format_that_there_is_not_is_refused(self, decode: str, problem: str) -> None:
        with pytest.raises(ConfigError, match=problem):
            Reading(decode=decode)

    def test_a_module_that_fails_is_refused_with_its_reason(self, tmp_path: Any, monkeypatch: Any) -> None:
        (tmp_path / "broken_decoder.py").write_text("import sys\nsys.exit('no licence')\n")
        (tmp_path / "late_decoder.py").write_text("def decode(data):\n    return len(data)\n")
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "path", list(sys.path))
        with pytest.raises(ConfigError, match=r"broken_decoder does not import \(SystemExit: no licence\)"):
            Reading(decode="broken_decoder:decode")
        assert read(b"abc", decode="late_decoder:decode").value == 3
        del sys.modules["late_decoder"]


class TestKey:
    @pytest.mark.parametrize(
        ("key", "value", "expected"),
        [
            ("", 5, ""),
            ("device", {"device": "pump 7.é*>"}, "pump 7.é*>"),
            ("field:device", {"device": ""}, ""),
            ("a.b", {"a": {"b": "x"}}, "x"),
            ("a.1.b", {"a": [0, {"b": "x"}]}, "x"),
            ("1", [7, 8], "8"),
            ("1", {"1": "text"}, "text"),
            (".", "itself", "itself"),
            ("k", {"k": 7}, "7"),
            ("k", {"k": 1.5}, "1.5"),
            ("k", {"k": True}, "true"),
            ("k", {"k": "x" * MAX_KEY_BYTES}, "x" * MAX_KEY_BYTES),
            ("subject:1", 0, "7"),
            (f"{HERE}:by_length", [1, 2, 3], "3"),
        ],
    )
    def test_a_key_is_found(self, key: str, value: object, expected: str) -> None:
        found = read(value, key=key).key
        assert found == expected
        assert type(found) is str

    def test_a_header_is_a_key(self) -> None:
        assert read(0, headers={"Device": "x"}, key="header:Device").key == "x"

    def test_a_number_of_numpys_is_a_key(self) -> None:
        message = read(npy(np.array(5)), decode="npy", key=f"{HERE}:first")
        assert message.key == "5"

    @pytest.mark.parametrize(
        ("key", "value", "problem"),
        [
            ("k", {}, "there is no field 'k'"),
            ("k", [1], "there is no field 'k'"),
            ("k", "text", "there is no field 'k'"),
            ("k", None, "there is no field 'k'"),
            ("a.b", {"a": 1}, "there is no field 'a.b'"),
            ("5", [1], "there is no field '5'"),
            ("k", {"k": None}, "is null"),
            ("k", {"k": [1]}, "is list"),
            ("k", {"k": {}}, "is dict"),
            ("k", {"k": math.nan}, "is nan"),
            ("k", {"k": "x" * (MAX_KEY_BYTES + 1)}, "has 257 bytes"),
            ("k", {"k": "é" * 200}, "has 400 bytes"),
            ("k", {"k": 10**3000}, "is int"),
            ("k", {"k": "\ud800"}, "half a character"),
            ("header:Device", 0, "no header 'Device'"),
            ("subject:3", 0, "has no token 3"),
            (f"{HERE}:by_length", 5, "by_length raised TypeError"),
        ],
    )
    def test_what_is_no_key_makes_the_message_unreadable(self, key: str, value: object, problem: str) -> None:
        with pytest.raises(Unreadable, match=problem):
            read(value, key=key)

    @pytest.mark.parametrize("key", ["a..b", "field:", "header:", "header:a b", "subject:x", "subject:-1", "a.b:c:d"])
    def test_a_key_that_makes_no_sense_is_refused(self, key: str) -> None:
        with pytest.raises(ConfigError):
            Reading(key=key)


def first(message: Message) -> Any:
    return message.value[()]


class TestTime:
    def test_without_a_word_it_is_the_servers(self) -> None:
        assert read(0).time == 1000.5

    @pytest.mark.parametrize(
        ("unit", "found", "expected"),
        [
            ("s", 12.25, 12.25),
            ("s", 12, 12.0),
            ("s", -1, -1.0),
            ("ms", 1_700_000_000_123, 1_700_000_000.123),
            ("us", 5_000_000, 5.0),
            ("ns", 5_000_000_000, 5.0),
            ("ms", "1500", 1.5),
            ("s", "1.5e3", 1500.0),
            ("ms", "1970-01-01T00:00:01Z", 1.0),
            ("s", "1970-01-01 00:00:01.5", 1.5),
            ("s", "1970-01-01t00:00:01,123456789z", 1.123456789),
            ("s", "1970-01-01T02:00+02:00", 0.0),
            ("s", "1970-01-01T00:00:00-0130", 5400.0),
            ("s", "1970-01-02", 86400.0),
        ],
    )
    def test_a_field_is_read_in_its_unit_or_as_iso_8601(self, unit: str, found: object, expected: float) -> None:
        message = read({"ts": found}, time="field:ts", time_unit=unit)
        assert message.time == pytest.approx(expected, abs=1e-9)
        assert type(message.time) is float

    def test_a_header_is_a_time(self) -> None:
        assert read(0, headers={"At": "2500"}, time="header:At", time_unit="ms").time == 2.5

    @pytest.mark.parametrize("how", [{"time": f"{HERE}:at_noon"}, {"time": "."}])
    def test_a_time_without_an_offset_is_utc_wherever_the_machine_is(self, how: Any, monkeypatch: Any) -> None:
        monkeypatch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        try:
            assert read("2026-01-31T12:00:00", **how).time == 1769860800.0
        finally:
            monkeypatch.undo()
            time.tzset()

    @pytest.mark.parametrize("found", [np.int64(7), np.float32(7), np.datetime64(7, "s"), np.datetime64(7_000, "ms")])
    def test_numpys_times_are_times(self, found: object, monkeypatch: Any) -> None:
        monkeypatch.setattr(sys.modules[HERE], "at_noon", lambda message: found)
        assert read(0, time=f"{HERE}:at_noon").time == 7.0

    @pytest.mark.parametrize(
        ("found", "problem"),
        [
            (None, "is null"),
            (True, "is bool"),
            ([1], "is list"),
            ("yesterday", "'yesterday', which is no ISO 8601"),
            ("", "is no|which is no"),
            ("2026-02-30T00:00:00Z", "no ISO 8601"),
            ("2026-01-01T00:00:00+99:00", "no ISO 8601"),
            ("x" * 500, "…"),
            (math.nan, "outside the years"),
            (math.inf, "outside the years"),
            (1_700_000_000_000, "look at time_unit"),
            (10**400, "a number of 1329 bits"),
            ("9" * 30, "outside the years"),
        ],
    )
    def test_what_is_no_time_makes_the_message_unreadable(self, found: object, problem: str) -> None:
        with pytest.raises(Unreadable, match=problem):
            read({"ts": found}, time="ts")

    def test_a_missing_time_makes_the_message_unreadable(self) -> None:
        with pytest.raises(Unreadable, match="no field 'ts'"):
            read({}, time="ts")

    @pytest.mark.parametrize("how", [{"time": "ts", "time_unit": "minutes"}, {"time": "subject:x"}, {"time": ""}])
    def test_a_time_that_makes_no_sense_is_refused(self, how: Any) -> None:
        with pytest.raises(ConfigError):
            Reading(**how)
