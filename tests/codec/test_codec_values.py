"""What travels and as what, and what is refused on the sending side."""

from __future__ import annotations

import collections
import datetime as dt
import decimal
import enum
import threading
import zoneinfo

import ml_dtypes
import numpy as np
import pytest
from codec_samples import round_trip, same

from aipod.codec import encode_call, encode_reply, read_call
from aipod.errors import InvalidArgument, SerializationError


class Colour(enum.IntEnum):
    RED = 3


class Name(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "something else"


class Ratio(float):
    __slots__ = ()


class Alone(str):
    """Equal to nothing else."""

    __slots__ = ()
    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other


class Metres(np.ndarray):
    pass


class BrokenZone(dt.tzinfo):
    def utcoffset(self, when):
        raise OSError("/etc/secret")


Point = collections.namedtuple("Point", "x y")

AS_ITSELF = [
    *(
        None,
        True,
        False,
        0,
        -1,
        2**64 - 1,
        -(2**63),
        1.5,
        -0.0,
        float("inf"),
        float("nan"),
        "",
        "模型",
        "\0",
        b"",
        b"\xff",
    ),
    *([], {}, [[]], {"": {}}, [{"a": [None, {"b": b"c"}]}], b"x" * 1023, b"x" * 1024, "x" * 5000),
    dt.datetime(2024, 2, 29, 1, 2, 3),
    dt.datetime(1, 1, 1, 0, 0, 0, 1),
    dt.datetime(9999, 12, 31, 23, 59, 59, 999999, dt.timezone.utc),
    dt.datetime(2024, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=-5, minutes=-30))),
    dt.datetime(2024, 1, 1, tzinfo=dt.timezone(dt.timedelta(seconds=1, microseconds=5))),
    *(np.float64(0.1), np.float32(0.1), np.float16(0.1), np.longdouble("0.1"), np.complex64(1j), np.complex128(1j)),
    *(np.bool_(True), np.int8(-1), np.uint64(2**64 - 1), np.clongdouble(1j)),
    *(np.str_(""), np.str_("模\0"), np.bytes_(b""), np.bytes_(b"a\0")),
    # Without a unit; since numpy 2.5 it may not be written as np.datetime64("NaT").
    np.array(np.iinfo("i8").min).view("M8")[()],
    *(np.datetime64("NaT", "s"), np.datetime64(5, "25s"), np.timedelta64(7, "ns")),
    np.array([(1, b"ab")], [("a", "<i4"), ("b", "V2")])[0],
    *(ml_dtypes.bfloat16(1.5), ml_dtypes.float8_e5m2(2), ml_dtypes.int4(-3)),
]

AS_SOMETHING_ELSE = [
    ((1, (2,)), [1, [2]]),
    (Point(1, [2]), [1, [2]]),
    (bytearray(b"ab"), b"ab"),
    (memoryview(b"abcd")[::2], b"ac"),
    (memoryview(np.arange(3, dtype=">i2")), b"\0\0\0\1\0\2"),
    (memoryview(np.zeros((0, 3))), b""),
    (Colour.RED, 3),
    (Name("name"), "name"),
    ({Name("name"): 1}, {"name": 1}),
    ({np.str_("name"): 1}, {"name": 1}),
    (Ratio(0.5), 0.5),
    (collections.OrderedDict(a=1), {"a": 1}),
    (collections.defaultdict(list, a=[Colour.RED]), {"a": [3]}),
    (collections.Counter("aa"), {"a": 2}),
    (
        dt.datetime(2024, 7, 1, tzinfo=zoneinfo.ZoneInfo("Asia/Shanghai")),
        dt.datetime(2024, 7, 1, tzinfo=dt.timezone(dt.timedelta(hours=8))),
    ),
]


@pytest.mark.parametrize("value", AS_ITSELF, ids=lambda value: f"{type(value).__name__} {value!r:.20}")
def test_a_value_that_is_carried_comes_back_as_itself(value):
    assert same(round_trip(value), value)
    assert same(round_trip({"a": [value]}), {"a": [value]})


@pytest.mark.parametrize(("value", "arrives"), AS_SOMETHING_ELSE, ids=lambda value: type(value).__name__)
def test_a_value_of_a_related_type_arrives_as_what_it_stands_for(value, arrives):
    assert same(round_trip(value), arrives)
    assert same(round_trip([value]), [arrives])


def cycle():
    value: list = [1]
    value.append({"again": value, "and": value})
    return value


def nested(depth: int):
    value: list = []
    for _ in range(depth - 1):
        value = [value]
    return value


REFUSED = [
    ({1, 2}, r"^result: type set is not supported; make it a list$"),
    ({"a": [0, 1, 2, {1}]}, r'^result\["a"\]\[3\]: type set is not supported'),
    ({"a": ({"b": object()},)}, r'^result\["a"\]\[0\]\["b"\]: type object is not supported; send None, bool'),
    (Point(1, decimal.Decimal(1)), r"^result\[1\]: type decimal.Decimal is not supported; make it a str or a float"),
    (1j, r"^result: type complex is not supported; make it a numpy.complex128"),
    (dt.date(2024, 1, 1), r"^result: type datetime.date is not supported"),
    (dt.timedelta(1), r"^result: type datetime.timedelta is not supported"),
    ((item for item in ()), r"^result: type generator is not supported"),
    (len, r"^result: type builtin_function_or_method is not supported"),
    ({1: 2}, r"^result: a key of type int is not supported; make every key a str"),
    ({"a": [{None: 2}]}, r'^result\["a"\]\[0\]: a key of type NoneType is not supported'),
    ({"a": {b"b": 1}}, r'^result\["a"\]: a key of type bytes is not supported'),
    ({Alone("a"): 1, Alone("a"): 2}, r"^result: two of its keys are the same text"),
    (2**64, r"^result: an int of more than 64 bits is not supported"),
    ({"a": [1, -(2**63) - 1]}, r'^result\["a"\]\[1\]: an int of more than 64 bits'),
    ({"a": (1, 2**64)}, r'^result\["a"\]\[1\]: an int of more than 64 bits'),
    (["\ud800"], r"^result\[0\]: a str with half a surrogate pair"),
    ({"a": {"\ud800": 1}}, r'^result\["a"\]: a str with half a surrogate pair'),
    ([np.str_("\ud800")], r"^result\[0\]: "),
    ({'say "hi"\n': [set()]}, r'^result\["say \\"hi\\"\\n"\]\[0\]: '),
    ({"k" * 100_000: set()}, r'^result\["k{64}…"\]: '),
    (cycle(), r"^result: its lists and dicts are nested more than 64 deep; flatten it, or is it part of itself\?"),
    (nested(65), r"^result: its lists and dicts are nested more than 64 deep"),
    (dt.datetime(2024, 1, 1, tzinfo=BrokenZone()), r"^result: its time zone does not work \(OSError\); use"),
    (np.array([None]), r"^result: dtype object holds objects"),
    ([np.array([(1, "a")], [("a", "i4"), ("b", "O")])], r"^result\[0\]: dtype .* holds objects"),
    (np.ma.array([1], mask=[True]), r"^result: type numpy.ma.\w*\.?MaskedArray would lose its meaning"),
    (np.zeros(2).view(Metres), r"^result: type test_codec_values.Metres would lose its meaning; send numpy.asarray"),
    (np.recarray(2, "i4"), r"^result: type numpy.*recarray would lose its meaning"),
    (np.zeros(3, np.dtype([])), r"^result: dtype \[\] has no bytes"),
    (np.zeros(3, [(("title", "name"), "i4")]), r"^result: field 'name' of a structured dtype has a title"),
    (np.zeros(3, [("a", "i4", (0,))]), r"^result: "),
    ([np.dtype("i4")], r"^result\[0\]: type numpy.* is not supported"),
]


@pytest.mark.parametrize(("value", "sentence"), REFUSED, ids=lambda item: "" if isinstance(item, str) else None)
def test_what_cannot_travel_is_refused_where_it_is_sent_with_its_place(value, sentence):
    with pytest.raises(SerializationError, match=sentence) as caught:
        encode_reply(value)
    assert len(str(caught.value)) < 300


@pytest.mark.skipif(not hasattr(np.dtypes, "StringDType"), reason="numpy 2 has them first")
def test_text_of_any_length_is_refused_with_the_dtype_that_works():
    with pytest.raises(SerializationError, match=r"result: dtype StringDType.* text of a fixed length \('U'\)"):
        encode_reply(np.array(["a"], np.dtypes.StringDType()))


def test_an_error_in_an_argument_names_it_as_the_caller_wrote_it():
    with pytest.raises(InvalidArgument, match=r'^kwargs\["a"\]\[3\]: type set is not supported') as caught:
        encode_call("v1", {"a": [0, 1, 2, set()]})
    assert caught.value.place == 'kwargs["a"][3]'


def test_a_memory_map_travels_as_an_array(tmp_path):
    mapped = np.memmap(tmp_path / "mapped", np.float32, "w+", shape=(3, 2))
    mapped[:] = 7
    assert same(round_trip(mapped), np.asarray(mapped))


def test_64_levels_are_carried():
    assert same(round_trip(nested(64)), nested(64))


def test_a_version_that_is_no_text_is_refused():
    with pytest.raises(SerializationError, match=r"^version: "):
        encode_call("\ud800", {})


@pytest.mark.parametrize("kwargs", [[1], None, "text", 5])
def test_arguments_that_are_no_dict_are_refused_on_both_sides(kwargs):
    with pytest.raises(SerializationError, match=r"^kwargs: a .* is no dict of names to values"):
        encode_call("v1", kwargs)
    with pytest.raises(SerializationError, match=r"^kwargs: a .* is no map of names to values"):
        read_call(encode_reply(kwargs)).kwargs()


def test_a_refused_value_leaves_what_was_to_be_sent_unchanged():
    value = {"a": [1, {"b": (2, set())}], "c": Colour.RED}
    with pytest.raises(SerializationError):
        encode_reply(value)
    assert repr(value) == repr({"a": [1, {"b": (2, set())}], "c": Colour.RED})


def test_many_threads_encode_and_decode_at_once():
    wrong = []

    def work(number: int) -> None:
        value = {"x": number, "array": np.full(100, number), "text": str(number) * 500}
        wrong.extend(1 for _ in range(200) if not same(round_trip(value), value))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
