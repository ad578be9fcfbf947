"""Every dtype that numpy has without Python objects, in every layout."""

from __future__ import annotations

import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
from codec_samples import round_trip, same

from aipod.codec import decode_reply, encode_reply
from aipod.codec.dtypes import describe, resolve

PLAIN = ["?", *(order + code for order in "<>" for code in ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"))]
PLAIN += [order + code for order in "<>" for code in ("f2", "f4", "f8", "c8", "c16", "g", "G", "U3")]
PLAIN += ["S1", "S5", "V1", "V5", "l", "q", "p", "intp", "uintp"]
PLAIN += [f"{order}{kind}8{unit}" for order in "<>" for kind in "Mm" for unit in ("", "[Y]", "[25s]", "[ns]", "[7as]")]

EXTENSIONS = ["bfloat16", "float8_e4m3b11fnuz", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz"]
EXTENSIONS += ["int4", "uint4", "float8_e3m4", "float8_e8m0fnu", "float6_e2m3fn", "float4_e2m1fn", "int1", "uint2"]
EXTENSIONS = [name for name in EXTENSIONS if hasattr(ml_dtypes, name)]  # the last of them are young

STRUCTURED = {
    "packed": [("a", "?"), ("b", ">f8"), ("c", "S3")],
    "nested": [("a", [("b", "<U2"), ("c", [("d", "M8[ms]")])]), ("e", "i1")],
    "subarray": [("a", "f4", (2, 3)), ("b", [("c", "?", (2,))], (2,))],
    "subarray of one": [("a", "f4", (1,))],
    "with gaps": {"names": ["a", "b"], "formats": ["i1", "f8"], "offsets": [3, 8], "itemsize": 32},
    "not in order": {"names": ["a", "b"], "formats": ["i1", "f8"], "offsets": [8, 0], "itemsize": 9},
    "a union": {"names": ["a", "b"], "formats": ["<u4", "<u2"], "offsets": [0, 0], "itemsize": 4},
    "no fields": {"names": [], "formats": [], "offsets": [], "itemsize": 4},
    "names of any script": [("模型", "i4"), ('a"b', "i4")],
    "aligned": np.dtype([("a", "i1"), ("b", "f8")], align=True),
    "with bfloat16": [("a", ml_dtypes.bfloat16), ("b", ml_dtypes.float8_e5m2, (2,))],
    "16 deep": [("a", "i1")],
}
for _ in range(15):
    STRUCTURED["16 deep"] = [("a", STRUCTURED["16 deep"])]

MOST_DIMENSIONS = 64 if np.lib.NumpyVersion(np.__version__) >= "2.0.0" else 32

LAYOUTS = {
    "as it is": lambda array: array,
    "column-major": np.asfortranarray,
    "transposed": lambda array: array.T,
    "axes swapped": lambda array: array.transpose(1, 0, 2),
    "reversed": lambda array: array[::-1, :, ::-1],
    "strided": lambda array: array[:, ::2, 1:],
    "broadcast": lambda array: np.broadcast_to(array[0], (3, *array.shape[1:])),
    "one row many times": lambda array: np.broadcast_to(array.reshape(-1)[:1], (5,)),
    "empty": lambda array: array[:0],
    "empty in the middle": lambda array: array[:, :0],
    "of no dimensions": lambda array: array[0, 0, 0:1].reshape(()),
    "of many dimensions": lambda array: array.reshape((1,) * (MOST_DIMENSIONS - 3) + array.shape),
    "crooked": lambda array: np.frombuffer(b"\0" + array.tobytes(), array.dtype, offset=1).reshape(array.shape),
}


def filled(dtype: np.dtype) -> np.ndarray:
    """Return an array of shape (2, 3, 4) with other bits in each element."""
    numbers = np.arange(24)
    if dtype.names is not None:
        array = np.zeros((2, 3, 4), dtype)
        for name in dtype.names:
            array[name] = filled(dtype[name].base).reshape((2, 3, 4) + (1,) * len(dtype[name].shape))
        return array
    if dtype.kind in "SUV" and dtype.type in (np.bytes_, np.str_, np.void):
        return numbers.astype("S2").astype(dtype).reshape(2, 3, 4)
    return (
        (numbers % 2 if dtype.kind == "b" or dtype.type.__module__ == "ml_dtypes" else numbers)
        .astype(dtype)
        .reshape(2, 3, 4)
    )


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("dtype", [*PLAIN, *EXTENSIONS, *STRUCTURED.values()], ids=[*PLAIN, *EXTENSIONS, *STRUCTURED])
def test_an_array_of_every_dtype_in_every_layout_comes_back_to_the_bit(dtype, layout):
    if isinstance(dtype, str) and dtype in EXTENSIONS:
        dtype = getattr(ml_dtypes, dtype)
    array = layout(filled(np.dtype(dtype)))
    arrived = round_trip([array])[0]
    assert same(arrived, array)
    assert arrived.flags.aligned
    assert arrived.dtype.metadata is None


@pytest.mark.parametrize("dtype", ["<f2", "<f4", ">f8", "<c16"])
def test_every_payload_of_nan_is_kept(dtype):
    bits = np.random.default_rng(0).integers(0, 256, 4096, np.uint8)
    bits[::2] = 0xFF
    assert round_trip(bits.view(dtype)).tobytes() == bits.tobytes()


@pytest.mark.parametrize("dtype", [*PLAIN, *STRUCTURED.values()], ids=[*PLAIN, *STRUCTURED])
def test_the_description_of_a_dtype_makes_an_equal_one(dtype):
    assert resolve(describe(np.dtype(dtype))) == np.dtype(dtype)


def test_text_arrays_may_hold_what_python_allows_in_a_str():
    assert same(round_trip(np.array(["\ud800", "\U0010ffff", ""])), np.array(["\ud800", "\U0010ffff", ""]))


@pytest.mark.parametrize("name", EXTENSIONS)
def test_every_bit_pattern_of_the_small_types_is_kept(name):
    if np.dtype(getattr(ml_dtypes, name)).itemsize == 1:
        array = np.arange(256, dtype=np.uint8).view(getattr(ml_dtypes, name))
        assert round_trip(array).tobytes() == array.tobytes()


def test_an_error_about_a_large_dtype_is_short():
    dtype = np.dtype([(f"field{number}", "O") for number in range(1000)])
    with pytest.raises(Exception, match="holds objects") as caught:
        encode_reply(np.zeros(1, dtype))
    assert len(str(caught.value)) < 300


def test_a_decoded_array_is_changed_by_copying_it_first():
    arrived = decode_reply(encode_reply(np.arange(3)))
    changed = arrived.copy()
    changed[0] = 7
    assert changed[0] != arrived[0]


def test_the_codec_loads_neither_protobuf_nor_ml_dtypes():
    listed = "[name for name in sys.modules if name.startswith(('google', 'ml_dtypes', 'grpc'))]"
    program = f"import sys, aipod.codec; print({listed})"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert answer.stdout.strip() == "[]"
