"""What holds for every value, tried on many."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pytest
from codec_samples import arrays, round_trip, same, texts, values
from hypothesis import given, settings
from hypothesis import strategies as st

from aipod.codec import decode_reply, encode_call, encode_reply, read_call
from aipod.errors import SerializationError

pytestmark = pytest.mark.filterwarnings("ignore:Python-style masking")

cases = settings(settings.get_profile("codec"))


def as_it_arrives(value):
    """A time zone arrives as its offset, and nothing else changes."""
    if isinstance(value, dict):
        return {key: as_it_arrives(item) for key, item in value.items()}
    if isinstance(value, list):
        return [as_it_arrives(item) for item in value]
    return datetime.fromisoformat(value.isoformat()) if type(value) is datetime else value


@cases
@given(values)
def test_every_value_comes_back_as_it_was(value):
    assert same(round_trip(value), as_it_arrives(value))


@cases
@given(arrays())
def test_every_array_comes_back_to_the_bit_and_cannot_be_written_to(array):
    back = round_trip(array)
    assert same(back, array)
    assert not back.flags.writeable
    assert back.flags.aligned


@cases
@given(texts, st.dictionaries(texts, values, max_size=3))
def test_every_call_keeps_its_version_and_its_arguments(version, kwargs):
    call = read_call(encode_call(version, kwargs))
    assert call.version == version
    assert same(call.kwargs(), as_it_arrives(kwargs))


@cases
@given(values, st.data())
def test_a_damaged_message_is_a_value_or_a_serialization_error_and_nothing_else(value, data):
    message = bytearray(encode_reply(value))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(message) - 1))
        message[at] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(0, len(message)))
    for damaged in (bytes(message), bytes(message[:end])):
        try:
            decode_reply(damaged)
        except SerializationError as error:
            assert len(str(error)) < 1000


@cases
@given(st.binary(max_size=200))
def test_any_bytes_at_all_are_a_value_or_a_serialization_error(message):
    try:
        decode_reply(message)
        read_call(message).kwargs()
    except SerializationError:
        pass


def test_the_comparison_of_these_tests_sees_a_single_bit():
    quiet, other = np.array([0x7FC00000, 0x7FC00001], np.uint32).view(np.float32)
    assert not same(np.array([quiet]), np.array([other]))
    assert not same(1, 1.0)
    assert not same(np.float64(1), 1.0)
