"""What a stranger may send: each of it a SerializationError, and none of it costly."""

from __future__ import annotations

import random

import msgpack
import numpy as np
import pytest
from codec_samples import round_trip, same

from aipod.codec import Limits, decode_reply, encode_reply
from aipod.codec.wire import join
from aipod.errors import SerializationError

BYTES, ARRAY, SCALAR, DATETIME = 1, 2, 3, 4


def ext(code: int, data: object) -> msgpack.ExtType:
    return msgpack.ExtType(code, data if isinstance(data, bytes) else msgpack.packb(data))


def reply(body: object, *segments: bytes) -> bytes:
    raw = body if isinstance(body, bytes) else msgpack.packb(body)
    return join("", raw, [memoryview(segment) for segment in segments])


def array(dtype: object, shape: object, data: bytes = bytes(8), order: object = "C") -> bytes:
    return reply({"a": [ext(ARRAY, [0, dtype, order, shape])]}, data)


def scalar(dtype: object, data: object) -> bytes:
    return reply({"a": [ext(SCALAR, [dtype, data])]})


def nested_dtype(depth: int) -> object:
    dtype: object = "|u1"
    for _ in range(depth):
        dtype = [1, [["x", 0, dtype, []]]]
    return dtype


MSGPACK = {
    "an array of 4e9": b"\xdd\xff\xff\xff\xff",
    "a map of 4e9": b"\xdf\xff\xff\xff\xff",
    "bytes of 4e9": b"\xc6\xff\xff\xff\xff",
    "a str of 4e9": b"\xdb\xff\xff\xff\xff",
    "an extension of 4e9": b"\xc9\xff\xff\xff\xff\x02",
    "the byte that is never used": b"\xc1",
    "cut off": b"\x93\x01",
    "trailing bytes": b"\x01\x01",
    "65 levels": b"\x91" * 64 + b"\x90",
    "1,000 levels": b"\x91" * 1000 + b"\x90",
    "5,000 levels": b"\x91" * 5000 + b"\x90",
    "5,000 levels of maps": b"\x81\xa0" * 5000 + b"\x80",
    "100,000 levels": b"\x91" * 100_000,
    "an int key": b"\x81\x01\x01",
    "a bytes key": b"\x81\xc4\x01a\x01",
    "a list as a key": b"\x81\x90\x01",
    "an extension as a key": b"\x81\xd4\x01\x00\x01",
    "a str that is not UTF-8": b"\xa1\xff",
    "a str with half a surrogate pair": b"\xa3\xed\xa0\x80",
    "a key that is not UTF-8": b"\x81\xa1\xff\x01",
    "a timestamp of five bytes": b"\xc7\x05\xff\x00\x00\x00\x00\x00",
    "a timestamp of the year 5e11": b"\xc7\x0c\xff\x00\x00\x00\x00\x7f" + b"\xff" * 7,
}


@pytest.mark.parametrize("body", MSGPACK.values(), ids=MSGPACK)
def test_msgpack_that_is_broken_or_asks_for_too_much_is_refused(body):
    with pytest.raises(SerializationError, match=r"^result") as caught:
        decode_reply(reply(body))
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("body", [b"\x91" * 63 + b"\x90", b"\x81\xa0" * 63 + b"\x80"])
def test_64_levels_are_read_and_one_more_is_not_even_among_many_others(body):
    decode_reply(reply(body))
    wide = b"\x92" + b"\xdc\x00\xff" + b"\x90" * 255
    with pytest.raises(SerializationError, match="nested more than 64 deep"):
        decode_reply(reply(wide + body))


IN_PLACE = {
    "a shape of a negative length": array("|u1", [-8]),
    "a shape of two negative lengths": array("|u1", [-4, -2]),
    "a shape of a float": array("|u1", [8.0]),
    "a shape of a bool": array("|u1", [True, 8]),
    "a shape of a str": array("|u1", ["8"]),
    "a shape that is a number": array("|u1", 8),
    "a shape of 65 lengths": array("|u1", [1] * 64 + [8]),
    "a shape of 100,000 huge lengths": array("|u1", [2**63] * 100_000),
    "a shape larger than its segment": array("|u1", [9]),
    "a shape smaller than its segment": array("|u1", [7]),
    "a shape of no dimensions and eight bytes": array("|u1", []),
    "a shape whose product overflows": array("|u1", [2**32, 2**32, 8]),
    "a shape too large for a machine": array("|u1", [2**64 - 1, 2**64 - 1]),
    "an empty shape too large for a machine": array("|u1", [0, 2**63 - 1, 2**63 - 1], b""),
    "an order that is none": array("|u1", [8], order="K"),
    "an order that is a number": array("|u1", [8], order=1),
    "an array of nothing": reply({"a": [ext(ARRAY, b"")]}),
    "an array of half a header": reply({"a": [ext(ARRAY, b"\x94\x00")]}),
    "an array that is a number": reply({"a": [ext(ARRAY, 1)]}),
    "an array that is a map": reply({"a": [ext(ARRAY, {"segment": 0})]}),
    "an array of five": reply({"a": [ext(ARRAY, [0, "|u1", "C", [8], 1])]}, bytes(8)),
    "a header nested 5,000 deep": reply({"a": [ext(ARRAY, b"\x91" * 5000 + b"\x90")]}),
    "a dtype nested 100 deep": array(nested_dtype(100), [8]),
    "a dtype nested 17 deep": array(nested_dtype(17), [8]),
    "a dtype of Python objects": array("|O", [1]),
    "a dtype of Python objects by kind": array("O8", [1]),
    "a dtype that is unknown": array("<x4", [2]),
    "a dtype that only numpy knows": array("f8,f8", [1]),
    "a dtype with a shape": array("(2,2)i4", [1]),
    "a dtype by its Python name": array("float64", [1]),
    "a dtype of 100 KB": array("f8," * 33_000, [1]),
    "a dtype of no bytes": array("|S0", [8], b""),
    "a dtype of no text": array("<U0", [8], b""),
    "a dtype of no memory": array("|V0", [8], b""),
    "a dtype of 9 GB": array("|S9999999999", [0], b""),
    "a dtype with a newline": array("|u1\n", [8]),
    "a dtype of digits that are not ASCII": array("|S٨", [1]),
    "a dtype of a unit that is none": array("<M8[x]", [1]),
    "a dtype of a huge unit": array("<M8[9999999999s]", [1]),
    "a dtype that is a number": array(8, [1]),
    "a dtype that is a map": array({"names": []}, [1]),
    "a long double of another machine": array("<f16:1", [1], bytes(16)),
    "a long double without its mantissa": array("<f16", [1], bytes(16)),
    "a function of ml_dtypes": array("finfo", [1]),
    "a structured dtype of nothing": array([], [1]),
    "a structured dtype of no bytes": array([0, []], [8], b""),
    "a structured dtype of a negative size": array([-8, []], [1]),
    "a structured dtype of 2 GiB": array([2**31, []], [0], b""),
    "a structured dtype of a float": array([8.0, []], [1]),
    "a field that is a number": array([8, [1]], [1]),
    "a field of three": array([8, [["x", 0, "|u1"]]], [1]),
    "a field with a number for a name": array([8, [[1, 0, "|u1", []]]], [1]),
    "a field at a negative offset": array([8, [["x", -1, "|u1", []]]], [1]),
    "a field at a huge offset": array([8, [["x", 2**63, "|u1", []]]], [1]),
    "a field that ends behind its item": array([8, [["x", 5, "<i4", []]]], [1]),
    "a field of objects": array([8, [["x", 0, "|O", []]]], [1]),
    "a field of a negative shape": array([8, [["x", 0, "|u1", [-1]]]], [1]),
    "a field of a shape of nothing": array([8, [["x", 0, "|u1", [0]]]], [1]),
    "a field of a huge shape": array([8, [["x", 0, "|u1", [2**63] * 64]]], [1]),
    "a field of 100,000 dimensions": array([8, [["x", 0, "|u1", [2**63] * 100_000]]], [1]),
    "two fields of one name": array([8, [["x", 0, "|u1", []], ["x", 1, "|u1", []]]], [1]),
    "5,000 fields": array([8, [[str(number), 0, "|u1", []] for number in range(5000)]], [1]),
    "4,000 fields over each other": array([8, [[str(number), 0, "|b1", [8]] for number in range(4000)]], [1]),
    "a bool of 2": array("|b1", [8], b"\0\1\0\1\0\1\0\2"),
    "a bool of 2 in a field": array([2, [["x", 1, "|b1", []]]], [4], b"\0\1" * 3 + b"\1\2"),
    "a bool of 2 in a subarray of a field": array([2, [["x", 0, "|b1", [2]]]], [4], b"\0\1" * 3 + b"\1\2"),
    "a bool of 2 in a field of a field": array([1, [["y", 0, [1, [["x", 0, "|b1", []]]], []]]], [8], b"\2" * 8),
    "text outside Unicode": array("<U1", [2], b"a\0\0\0\0\0\x11\0"),
    "big-endian text outside Unicode": array(">U1", [2], b"\0\0\0a\x00\x11\0\0"),
    "text outside Unicode in a field": array([8, [["x", 4, "<U1", []]]], [1], b"\0\0\0\0\0\0\0\xff"),
    "text outside Unicode in column-major order": array("<U1", [2, 1], b"a\0\0\0\0\0\x11\0", "F"),
    "a scalar of too few bytes": scalar("<i4", b"abc"),
    "a scalar of too many bytes": scalar("<i4", b"abcde"),
    "a scalar of a str": scalar("<i4", "abcd"),
    "a scalar of Python objects": scalar("|O", bytes(8)),
    "a scalar of a bool of 2": scalar("|b1", b"\2"),
    "a scalar of text outside Unicode": scalar("<U1", b"\xff" * 4),
    "a scalar of one": reply({"a": [ext(SCALAR, ["<i4"])]}),
    "a scalar of nothing": reply({"a": [ext(SCALAR, b"")]}),
    "numpy text of bytes": scalar("U", b"text"),
    "numpy bytes of text": scalar("S", "text"),
    "large bytes of nothing": reply({"a": [ext(BYTES, b"")]}, b"x"),
    "large bytes of a segment that is not there": reply({"a": [ext(BYTES, 1)]}, b"x"),
    "large bytes of a negative segment": reply({"a": [ext(BYTES, -1)]}, b"x"),
    "large bytes of a segment by a float": reply({"a": [ext(BYTES, 0.0)]}, b"x"),
    "large bytes of a segment by a bool": reply({"a": [ext(BYTES, False)]}, b"x"),
    "an array of a segment that is not there": reply({"a": [ext(ARRAY, [0, "|u1", "C", [8]])]}),
    "an array of a segment by a list": reply({"a": [ext(ARRAY, [[0], "|u1", "C", [8]])]}, bytes(8)),
    "a time that is none": reply({"a": [ext(DATETIME, b"yesterday")]}),
    "a time in another form": reply({"a": [ext(DATETIME, b"20240101T000000")]}),
    "a time with a letter for its zone": reply({"a": [ext(DATETIME, b"2024-01-01T00:00:00Z")]}),
    "a time of the 13th month": reply({"a": [ext(DATETIME, b"2024-13-01T00:00:00")]}),
    "a time of the year 0": reply({"a": [ext(DATETIME, b"0000-01-01T00:00:00")]}),
    "a time of an offset of 99 hours": reply({"a": [ext(DATETIME, b"2024-01-01T00:00:00+99:00")]}),
    "a time that is not ASCII": reply({"a": [ext(DATETIME, "2024-01-01T00:00:0٨".encode())]}),
    "an extension type of a newer AIPOD": reply({"a": [ext(99, b"")]}),
    "an extension type of another library": reply(b"\x81\xa1a\x91\xd4\xfe\x00"),
    "a timestamp inside an array": reply({"a": [ext(ARRAY, [msgpack.Timestamp(0), "|u1", "C", [8]])]}, bytes(8)),
    "a key that is there twice": reply(b"\x81\xa1a\x91\x82\xa1x\x01\xa1x\x02"),
    "a key of bytes": reply(b"\x81\xa1a\x91\x81\xc4\x01x\x01"),
}


@pytest.mark.parametrize("message", IN_PLACE.values(), ids=IN_PLACE)
def test_what_cannot_be_read_is_refused_with_its_place(message):
    with pytest.raises(SerializationError, match=r'^result\["a"\]\[0\]: ') as caught:
        decode_reply(message)
    assert caught.value.place == 'result["a"][0]'
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        (array("|u1", [2**63] * 100_000), "shape is not a list of at most 64 lengths"),
        (
            array([8, [["x", 0, "|u1", [2**63] * 100_000]]], [1]),
            "field 'x' of a structured dtype has an impossible shape",
        ),
        (array([8, [["x", 0, "|u1", [2**63] * 64]]], [1]), "field 'x' of a structured dtype ends behind its item"),
    ],
    ids=["shape", "dimensions of a field", "size of a field"],
)
def test_lengths_that_would_take_long_to_multiply_are_refused_before(message, sentence):
    with pytest.raises(SerializationError, match=sentence):
        decode_reply(message)


def test_a_segment_is_referred_to_exactly_once():
    twice = [ext(BYTES, 0), ext(BYTES, 0)]
    with pytest.raises(SerializationError, match=r"^result\[1\]: segment 0 is referred to twice"):
        decode_reply(reply(twice, b"x"))
    with pytest.raises(SerializationError, match=r"^result: nothing refers to 2 of the message's segments"):
        decode_reply(reply([ext(BYTES, 1)], b"x", b"y", b"z"))
    with pytest.raises(SerializationError):
        decode_reply(reply(b"", b"x"))


def test_the_first_of_many_faults_is_the_one_that_is_told():
    faults = [1, ext(99, b""), ext(98, b""), {"x": ext(97, b"")}]
    with pytest.raises(SerializationError, match=r"^result\[1\]: there is no extension type 99"):
        decode_reply(reply(faults))


def test_the_timestamp_of_msgpack_is_read_as_utc():
    arrived = decode_reply(reply(msgpack.Timestamp(1_700_000_000, 5000)))
    assert arrived.isoformat() == "2023-11-14T22:13:20.000005+00:00"


def test_a_float8_without_ml_dtypes_is_refused_by_its_name(monkeypatch):
    message = array("bfloat16", [4])
    assert decode_reply(message)["a"][0].dtype.name == "bfloat16"
    monkeypatch.setitem(__import__("sys").modules, "ml_dtypes", None)
    with pytest.raises(
        SerializationError, match="dtype 'bfloat16' needs the package ml_dtypes, which is not installed"
    ):
        decode_reply(message)


@pytest.mark.parametrize("unit", [b"\x81\xa0\x80", b"\x91\x90", b"\x90", b"\x80", b"\xd4\x63\x00", b"\xc0"])
def test_a_million_small_things_are_refused_by_what_they_add_up_to(unit):
    count = 1_000_000
    with pytest.raises(SerializationError, match="bytes besides arrays and large bytes are more than"):
        decode_reply(reply(b"\xdd" + count.to_bytes(4, "big") + unit * count), Limits(max_value_bytes=count))


def test_thousands_of_damaged_messages_do_no_harm():
    generator = random.Random(20240229)
    rich = {
        "array": np.arange(6, dtype=">i2").reshape(2, 3),
        "fields": np.zeros(2, [("a", "?"), ("b", "<U2", (2,)), ("c", [("d", "M8[D]")])]),
        "scalar": np.float32(1.5),
        "bytes": bytes(1024),
        "deep": [[{"x": [1.5, None, "text", b"bytes"]}]],
        "text": np.array(["ab", "c"]),
        "bools": np.array([True, False]),
    }
    whole = encode_reply(rich)
    assert same(round_trip(rich), rich)
    refused = 0
    for _ in range(5000):
        damaged = bytearray(whole)
        for _ in range(generator.randint(1, 3)):
            at = generator.randrange(400)
            damaged[at : at + generator.randint(0, 2)] = generator.randbytes(generator.randint(0, 2))
        try:
            decode_reply(bytes(damaged))
        except SerializationError:
            refused += 1
    assert refused > 1000
