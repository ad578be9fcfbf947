"""The message by hand against protobuf's own runtime, and where its parts lie in memory."""

from __future__ import annotations

import numpy as np
import pytest
from codec_samples import round_trip, same

from aipod.codec import (
    Limits,
    decode_reply,
    encode_call,
    encode_reply,
    read_call,
    read_reply,
    wire,
    with_job,
    with_timings,
)
from aipod.codec.encoder import pack
from aipod.codec.wire import join
from aipod.errors import SerializationError
from aipod.rpc.v1 import model_pb2

VALUES = {"number": 1, "array": np.arange(7, dtype=">f8"), "bytes": bytes(range(256)) * 9, "empty": np.zeros((0, 3))}


@pytest.fixture
def request_class():
    """Protobuf's own class for a call."""
    return model_pb2.CallRequest


def fields(message: bytes):
    call = read_call(message)
    return call.version, bytes(call.body), [bytes(segment) for segment in call.segments]


@pytest.mark.parametrize("version", ["", "v1", "模型", "x" * 200])
@pytest.mark.parametrize("kwargs", [{}, VALUES, {"text": "x" * 300}])
def test_protobuf_reads_what_we_write(request_class, version, kwargs):
    message = encode_call(version, kwargs)
    theirs = request_class.FromString(message)
    assert (theirs.version, theirs.kwargs, list(theirs.segments)) == fields(message)
    assert theirs.version == version


@pytest.mark.parametrize("shift", range(8))
def test_we_read_what_protobuf_writes_wherever_its_segments_lie(request_class, shift):
    theirs = request_class.FromString(encode_call("v" * (shift + 1), VALUES))
    theirs.ClearField("padding")
    call = read_call(theirs.SerializeToString())
    assert call.version == "v" * (shift + 1)
    assert same(call.kwargs(), VALUES)
    assert all(array.flags.aligned for array in (call.kwargs()["array"], call.kwargs()["empty"]))


def test_an_empty_message_is_a_call_of_nothing_with_nothing_and_a_reply_of_none():
    assert read_call(b"").version == ""
    assert read_call(b"").kwargs() == {}
    assert read_call(b"\x12\x00").kwargs() == {}
    assert decode_reply(b"") is None
    assert encode_call("", {}) == b"\x12\x01\x80"


def test_fields_of_a_newer_aipod_are_passed_over(request_class):
    newer = b"\x50\x96\x01" + b"\x59" + bytes(8) + b"\x65" + bytes(4) + b"\x6a\x02hi" + b"\x82\x7d\x01z" + b"\x7a\x00"
    message = newer + encode_call("v1", VALUES) + newer
    assert request_class.FromString(message).version == "v1"
    assert read_call(message).version == "v1"
    assert same(read_call(message).kwargs(), VALUES)


@pytest.mark.parametrize("priority", [0, 1, -1, 100, -100])
@pytest.mark.parametrize("timed", [False, True])
def test_priority_and_the_wish_for_timings_are_what_protobuf_reads(request_class, priority, timed):
    message = encode_call("v1", VALUES, priority, timed)
    sent, read = request_class.FromString(message), read_call(message)
    assert (sent.priority, sent.timed) == (read.priority, read.timed) == (priority, timed)
    assert same(read.kwargs(), VALUES)


def test_timings_are_added_to_a_reply_that_is_written_already():
    reply = with_timings(encode_reply(VALUES), model_pb2.Timings(queue=0.5).SerializeToString())
    assert model_pb2.CallReply.FromString(reply).timings.queue == 0.5
    message = read_reply(reply)
    assert model_pb2.Timings.FromString(bytes(message.timings)).queue == 0.5
    assert same(message.value(), VALUES)
    assert read_reply(encode_reply(1)).timings is None


@pytest.mark.parametrize("request_id", ["", "a" * 32, "夜 1"])
@pytest.mark.parametrize("detach", [False, True])
def test_what_a_train_says_of_its_job_is_what_protobuf_reads(request_class, request_id, detach):
    message = encode_call("v1", VALUES, request_id=request_id, detach=detach)
    sent, read = request_class.FromString(message), read_call(message)
    assert (sent.request_id, sent.detach) == (read.request_id, read.detach) == (request_id, detach)
    assert same(read.kwargs(), VALUES)
    assert (read_call(encode_call("v1", {})).request_id, read_call(encode_call("v1", {})).detach) == ("", False)


def test_a_job_is_added_to_a_reply_that_is_written_already():
    reply = with_job(encode_reply(VALUES), "v@1")
    assert model_pb2.CallReply.FromString(reply).job == read_reply(reply).job == "v@1"
    assert same(read_reply(reply).value(), VALUES)
    assert read_reply(encode_reply(1)).job == ""


def test_the_name_of_a_job_or_of_a_request_is_text():
    with pytest.raises(SerializationError, match="request_id: it is not UTF-8"):
        read_call(b"\x42\x01\xff").request_id  # noqa: B018
    with pytest.raises(SerializationError, match="job: it is not UTF-8"):
        read_reply(b"\x42\x01\xff").job  # noqa: B018


def test_what_is_lent_takes_the_place_of_its_segment():
    lent = []

    def lend(segment):
        if len(segment) < 5000:
            return None
        lent.append(bytes(segment))
        return model_pb2.Lent(offset=len(lent) - 1, size=len(segment)).SerializeToString()

    def borrow(record):
        return memoryview(lent[model_pb2.Lent.FromString(bytes(record)).offset])

    values = {"a": np.arange(2000.0), "b": bytes(2000), "c": np.arange(3000) % 2 == 0, "d": b"x" * 6000}
    message = encode_call("v1", values, lend=lend)
    assert len(lent) == 2 and len(message) < 20_000
    assert [one.size for one in model_pb2.CallRequest.FromString(message).lent] == [16_000, 6000]
    read = read_call(message, borrow=borrow)
    assert read.size_bytes == len(message) + sum(map(len, [*lent, bytes(2000), bytes(3000)]))
    assert same(read.kwargs(), values)
    with pytest.raises(SerializationError, match="no memory is shared on this way"):
        read_call(message)


def test_shared_memory_whose_content_is_looked_at_is_copied_first():
    truths = np.zeros(8192, bool)
    shared = bytearray(truths.tobytes())
    message = encode_call("v", {"a": truths}, lend=lambda segment: b"\x10\x01")
    array = read_call(message, borrow=lambda record: memoryview(shared)).kwargs()["a"]
    shared[0] = 7
    assert array[0] == 0 and not array.flags.writeable


@pytest.mark.parametrize("field", [b"\x30\x01", b"\x38\x01", b"\x3d" + bytes(4)])
def test_a_rare_field_that_is_written_in_another_way_is_refused(field):
    with pytest.raises(SerializationError, match="is not written as"):
        read_call(field)


def test_of_several_versions_or_bodies_the_last_one_counts(request_class):
    message = encode_call("first", {"a": 1}) + encode_call("last", {"b": 2})
    assert request_class.FromString(message).version == read_call(message).version == "last"
    assert read_call(message).kwargs() == {"b": 2}


def test_a_number_may_be_written_longer_than_it_must_be():
    assert read_call(b"\x8a\x80\x00\x82\x80\x00v1").version == "v1"


@pytest.mark.parametrize("length", [*range(130), 16_383, 16_384, 2_097_151, 2_097_152])
def test_every_segment_starts_at_a_multiple_of_64_bytes(length):
    array = np.zeros(length + 1, np.uint8)
    message = encode_reply([array, "x" * (length % 999), array])
    whole = np.frombuffer(message, np.uint8)
    for arrived in (item for item in decode_reply(message) if isinstance(item, np.ndarray)):
        assert (arrived.ctypes.data - whole.ctypes.data) % 64 == 0


def test_an_array_is_a_view_of_the_message_and_keeps_it_alive():
    array = np.arange(1000.0)
    message = encode_reply({"x": array})
    arrived = decode_reply(message)["x"]
    assert np.shares_memory(arrived, np.frombuffer(message, np.uint8))
    del message
    assert same(arrived, array)
    with pytest.raises(ValueError, match="read-only"):
        arrived[0] = 1


def test_an_array_in_a_buffer_that_can_be_written_to_cannot_be_written_to_either():
    assert not decode_reply(memoryview(bytearray(encode_reply(np.arange(3)))))[...].flags.writeable


def test_an_array_that_lies_crooked_is_copied_and_the_same():
    message = encode_reply(np.arange(5.0))
    for offset in range(1, 8):
        buffer = bytes(offset) + message
        arrived = decode_reply(memoryview(buffer)[offset:])
        assert arrived.flags.aligned
        assert not arrived.flags.writeable
        assert same(arrived, np.arange(5.0))


def test_a_column_major_array_is_sent_as_it_lies_and_stays_so():
    array = np.asfortranarray(np.arange(12, dtype="<i2").reshape(3, 4))
    message = encode_reply(array)
    assert array.tobytes("F") in message
    arrived = decode_reply(message)
    assert arrived.flags.f_contiguous
    assert not arrived.flags.c_contiguous


def test_large_bytes_arrive_as_bytes_of_their_own():
    for sent in (b"x" * 1024, bytearray(b"y" * 5000), memoryview(np.arange(600.0)), memoryview(b"zz" * 3000)[::2]):
        arrived = round_trip([sent])[0]
        assert type(arrived) is bytes
        assert arrived == bytes(sent)


def test_only_large_bytes_take_a_segment():
    assert read_call(encode_call("", {"x": bytes(1023)})).segments == []
    assert read_call(encode_call("", {"x": bytes(1024)})).segments == [bytes(1024)]


def test_more_segments_than_anybody_reads_are_refused_where_they_are_sent():
    with pytest.raises(
        SerializationError, match=r"^result: 65537 arrays and large bytes are more than 65536; stack them"
    ):
        encode_reply([np.zeros(1)] * 65_537)


def test_a_version_is_there_before_anything_is_decoded():
    call = read_call(b"\x0a\x02v1\x12\x01\xc1")
    assert call.version == "v1"
    with pytest.raises(SerializationError):
        call.kwargs()


def test_a_call_can_be_decoded_more_than_once():
    call = read_call(encode_call("v1", VALUES))
    assert same(call.kwargs(), call.kwargs())


def test_more_plain_values_than_the_limit_are_refused_with_both_numbers_before_they_are_decoded():
    message = encode_call("", {"x": "y" * 2000})
    with pytest.raises(
        SerializationError, match=r"kwargs: 2006 bytes .* 1000 allowed; send large data as numpy arrays"
    ):
        read_call(message, Limits(max_value_bytes=1000))
    assert read_call(message, Limits(max_value_bytes=2006)).kwargs() == {"x": "y" * 2000}


def test_arrays_and_large_bytes_do_not_count_as_plain_values():
    message = encode_reply([np.zeros(100_000), bytes(100_000)])
    assert len(decode_reply(message, Limits(max_value_bytes=100))) == len(["array", "bytes"])


def test_a_message_above_two_gigabytes_is_read_like_any_other():
    # Zeros that nobody has looked at take no memory.
    array = np.zeros(2**31 + 5, np.uint8)
    body, _ = pack({"x": array}, "kwargs")
    head = join("v", body, []) + b"\x1a\x85\x80\x80\x80\x08"
    message = np.zeros(len(head) + array.nbytes, np.uint8)
    message[: len(head)] = np.frombuffer(head, np.uint8)
    message[-1] = 7
    call = read_call(message.data)
    assert (call.version, call.size_bytes) == ("v", message.nbytes)
    arrived = call.kwargs()["x"]
    assert arrived.shape == array.shape
    assert arrived[-1] == 7


def test_what_is_too_large_to_travel_whole_is_written_only_where_there_is_room(monkeypatch):
    with pytest.raises(
        SerializationError, match=r"^message: 21474\d+ bytes are more than the 2147483647 of a call that"
    ):
        encode_call("v", {"x": np.zeros(2**31, np.uint8)})
    monkeypatch.setattr(wire, "MAX_WHOLE_BYTES", 10_000)
    values = {"x": np.arange(20_000, dtype=np.uint8), "y": np.zeros(0), "z": bytes(5000)}
    message = encode_call("v", values, room=lambda nbytes: memoryview(bytearray(nbytes)))
    assert isinstance(message, memoryview) and message.readonly
    assert same(read_call(message).kwargs(), values)
    with pytest.raises(SerializationError):
        encode_call("v", values, room=lambda nbytes: None)


@pytest.mark.parametrize("values", [VALUES, {}, {"x": b"y" * 5000}, [np.arange(5), None]])
def test_a_message_is_the_same_wherever_it_is_written(values):
    asked = []

    def room(nbytes):
        asked.append(nbytes)
        return memoryview(bytearray(b"\xff" * nbytes))

    message = encode_reply(values, room=room)
    assert bytes(message) == encode_reply(values)
    assert asked in ([], [len(message)])
    timed = with_timings(message, model_pb2.Timings(queue=0.5).SerializeToString())
    assert same(decode_reply(timed), values)


BROKEN = {
    "a tag and nothing": b"\x12",
    "a length and nothing": b"\x12\x05",
    "a value cut off": b"\x12\x05abcd",
    "a length cut off": b"\x12\xff",
    "a length of 4e9": b"\x12\xff\xff\xff\xff\x0f",
    "a length of 2**63": b"\x12" + b"\xff" * 9 + b"\x01",
    "a number without an end": b"\x12" + b"\xff" * 11,
    "a tag without an end": b"\xff" * 11,
    "field number 0": b"\x00\x01",
    "field number 0 with a length": b"\x02\x00",
    "a field number of 30 bits": b"\x82\x80\x80\x80\x10\x00",
    "a version that is a number": b"\x08\x01",
    "kwargs that are fixed64": b"\x11" + bytes(8),
    "a segment that is fixed32": b"\x1d" + bytes(4),
    "a group": b"\x23\x24",
    "the end of a group": b"\x24",
    "wire type 6": b"\x26\x00",
    "wire type 7": b"\x27\x00",
    "a fixed64 cut off": b"\x21" + bytes(7),
    "a fixed32 cut off": b"\x25" + bytes(3),
    "an unknown number cut off": b"\x20\x80",
    "a version that is not UTF-8": b"\x0a\x02\xff\xfe",
    "a version with half a surrogate pair": b"\x0a\x03\xed\xa0\x80",
}


@pytest.mark.parametrize("message", BROKEN.values(), ids=BROKEN)
def test_a_broken_message_is_refused(message):
    for form in (message, memoryview(message), b"\x12\x01\x80" + message):
        with pytest.raises(SerializationError):
            read_call(form)


@pytest.mark.parametrize("field", [b"\x1a\x00", b"\x7a\x00", b"\x20\x00"], ids=["segments", "padding", "unknown"])
def test_the_number_of_fields_is_bounded(field):
    with pytest.raises(SerializationError, match="more than 10 segments"):
        read_call(field * 1000, Limits(max_segments=10))


def test_as_many_segments_as_are_allowed_pass_with_all_their_padding():
    message = encode_reply([np.arange(9)] * 50)
    assert len(decode_reply(message, Limits(max_segments=50))) == 50
    with pytest.raises(SerializationError, match="more than 49 segments"):
        decode_reply(message, Limits(max_segments=49))
