"""What the codec's tests share: a strict comparison, and values of every kind."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from aipod.codec import decode_reply, encode_reply

# An x87 long double has 10 bytes that mean something; numpy copies no others when it moves elements about.
LONG_DOUBLES = (np.longdouble, np.clongdouble)
_LONG_DOUBLE_BYTES = {63: 10}.get(int(np.finfo(np.longdouble).nmant), np.dtype(np.longdouble).itemsize)


def round_trip(value):
    return decode_reply(encode_reply(value))


def same(left, right) -> bool:
    """Whether two values are of one type and the same to the bit."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, np.ndarray):
        return left.dtype == right.dtype and left.shape == right.shape and _same_elements(left, right)
    if isinstance(left, np.generic) and not isinstance(left, (str, bytes)):
        return same(np.asarray(left), np.asarray(right))
    return repr(left) == repr(right)


def _same_elements(left: np.ndarray, right: np.ndarray) -> bool:
    if left.dtype.names is not None:  # what lies between the fields is nobody's
        left, right = left.reshape(-1), right.reshape(-1)
        return all(_same_elements(left[name], right[name]) for name in left.dtype.names)
    if left.dtype.type in LONG_DOUBLES:
        return _long_double_bytes(left) == _long_double_bytes(right)
    return left.tobytes() == right.tobytes()


def _long_double_bytes(array: np.ndarray) -> bytes:
    size = np.dtype(np.longdouble).itemsize
    rows = np.frombuffer(array.tobytes(), np.uint8).reshape(-1, size)
    meant = rows[:, -_LONG_DOUBLE_BYTES:] if array.dtype.byteorder == ">" else rows[:, :_LONG_DOUBLE_BYTES]
    return meant.tobytes()


def _laid_out(draw, array: np.ndarray) -> np.ndarray:
    """Return the array in one of the ways that it can lie in memory."""
    layout = draw(st.sampled_from(["as it is", "F", "reversed", "strided", "transposed", "broadcast", "read-only"]))
    if layout == "F":
        return np.asfortranarray(array)
    if layout == "reversed" and array.ndim:
        return array[::-1]
    if layout == "strided" and array.ndim:
        return array[..., ::2]
    if layout == "transposed":
        return array.T
    if layout == "broadcast":
        return np.broadcast_to(array, (2, *array.shape))
    if layout == "read-only":
        array.flags.writeable = False
    return array


def _carried(dtype: np.dtype) -> bool:
    """Leave out what is refused: titles, and what has no bytes."""
    if dtype.names is not None:
        return all(
            not title and _carried(field.base) and 0 not in field.shape for field, _, *title in dtype.fields.values()
        )
    return dtype.itemsize > 0


dtypes = st.one_of(
    hnp.scalar_dtypes(),
    hnp.nested_dtypes(),
    st.sampled_from(["g", "G", ">g", "V5", "<M8", "m8[25us]"]).map(np.dtype),
).filter(_carried)


shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)


@st.composite
def arrays(draw, shapes=shapes) -> np.ndarray:
    dtype, shape = draw(dtypes), draw(shapes)
    if dtype.kind in "iufcmM" and dtype.type not in LONG_DOUBLES:  # any bits at all, so that NaN has all its payloads
        size = int(np.prod(shape)) * dtype.itemsize
        array = np.frombuffer(bytearray(draw(st.binary(min_size=size, max_size=size))), dtype).reshape(shape)
    elif dtype.type in LONG_DOUBLES or (dtype.kind == "V" and dtype.names is None):
        array = np.full(shape, draw(st.floats()) if dtype.type in LONG_DOUBLES else b"\x01\xff", dtype)
    else:
        array = draw(hnp.arrays(dtype, shape))
    return _laid_out(draw, array)


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(),
    texts,
    st.binary(max_size=40),
    st.binary(min_size=1020, max_size=1030),
    st.datetimes(timezones=st.none() | st.timezones()).map(lambda time: time.replace(fold=0)),
    arrays(),
    arrays(st.just((1,))).map(lambda array: array.reshape(-1)[0]),
)
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts, inner, max_size=5), max_leaves=20
)
