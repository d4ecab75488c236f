# SPDX-License-Identifier: Apache-2.0
"""Arrays cross without copies, whatever they are; what cannot cross is refused by name."""
import array
import ctypes

import numpy as np
import pytest

from chorus import _core

DTYPES = [(np.float64, 0x4002), (np.float32, 0x2002), (np.float16, 0x1002), (np.int64, 0x4000), (np.int32, 0x2000),
          (np.int16, 0x1000), (np.int8, 0x0800), (np.uint64, 0x4001), (np.uint32, 0x2001), (np.uint16, 0x1001),
          (np.uint8, 0x0801), (np.bool_, 0x0806)]


@pytest.mark.parametrize("dtype, code", DTYPES)
def test_numpy(dtype, code):
    a = np.zeros((3, 5), dtype)
    told = _core.describe(a)
    assert told["data"] == a.ctypes.data and told["dtype"] == code
    assert list(told["shape"]) == [3, 5] and list(told["strides"]) == [5, 1] and told["size_bytes"] == a.nbytes


def test_views_keep_their_strides():
    a = np.zeros((4, 10), np.float32)
    told = _core.describe(a[::2, 3:])
    assert told["data"] == a.ctypes.data + 12 and list(told["strides"]) == [20, 1]
    assert told["size_bytes"] == (20 + 6 + 1) * 4


def test_read_only_is_told():
    a = np.zeros(3, np.float32)
    a.flags.writeable = False
    assert _core.describe(a)["flags"] == _core.CHORUS_TENSOR_READ_ONLY


def test_empty_and_scalar():
    assert _core.describe(np.zeros((0, 4), np.float32))["size_bytes"] == 0
    assert list(_core.describe(np.array(1.0))["shape"]) == []


@pytest.mark.parametrize("make", [lambda: array.array("f", [1, 2]), lambda: (ctypes.c_float * 2)(), lambda: memoryview(np.zeros(2, "f4"))])
def test_buffer_protocol(make):
    assert _core.describe(make())["dtype"] == _core.CHORUS_F32


@pytest.mark.parametrize("name, code", [("bfloat16", _core.CHORUS_BF16), ("float8_e4m3fn", _core.CHORUS_F8_E4M3FN),
                                        ("float8_e5m2", _core.CHORUS_F8_E5M2)])
def test_ml_dtypes(name, code):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    a = np.zeros((2, 3), getattr(ml_dtypes, name))
    told = _core.describe(a[:, 1:])
    assert told["dtype"] == code and told["data"] == a.ctypes.data + a.itemsize


class Dlpack:
    """numpy's DLPack alone, without the buffer protocol; `old`: from before DLPack 1.0."""
    def __init__(self, array, old=False):
        self.array, self.old, self.calls = array, old, 0

    def __dlpack__(self, **keywords):
        self.calls += 1
        if self.old and keywords:
            raise TypeError("unexpected keyword max_version")
        return self.array.__dlpack__(**keywords)


@pytest.mark.parametrize("old", [False, True])
def test_dlpack(old):
    a = np.zeros((2, 3), np.float32)
    told = _core.describe(Dlpack(a, old))
    assert told["data"] == a.ctypes.data and told["dtype"] == _core.CHORUS_F32 and list(told["shape"]) == [2, 3]


def test_dlpack_memory_is_given_back():
    import sys
    a = np.zeros((2, 3), np.float32)
    before = sys.getrefcount(a)
    for _ in range(100):
        _core.describe(Dlpack(a))
        _core.describe(a)
    assert sys.getrefcount(a) == before


def test_fields():
    a = np.arange(6, dtype=np.float32)
    told = _core.describe({"data": a.ctypes.data, "dtype": _core.CHORUS_BF16, "shape": [2, 3]})
    assert told["size_bytes"] == 12 and told["dtype"] == _core.CHORUS_BF16
    with pytest.raises(TypeError, match="no field of chorus_tensor"):
        _core.describe({"data": 0, "sahpe": [1]})


@pytest.mark.parametrize("bad, kind", [(object(), TypeError), ("text", TypeError), (np.zeros(2, np.complex64), TypeError),
                                       (np.zeros((1,) * 9, np.float32), ValueError), (np.zeros(2, "S3"), TypeError),
                                       (np.zeros(2, ">f4"), TypeError)])
def test_refused(bad, kind):
    with pytest.raises(kind):
        _core.describe(bad)


def test_unaligned_strides_are_refused():
    record = np.zeros(4, np.dtype([("a", "u1"), ("b", "f4")]))["b"]
    with pytest.raises(ValueError, match="stride"):
        _core.describe(record)


def test_torch():
    torch = pytest.importorskip("torch")
    for dtype, code in ((torch.float32, _core.CHORUS_F32), (torch.bfloat16, _core.CHORUS_BF16), (torch.int64, _core.CHORUS_I64)):
        a = torch.zeros(4, 6, dtype=dtype)
        told = _core.describe(a[::2])
        assert told["data"] == a.data_ptr() and told["dtype"] == code and list(told["strides"]) == [12, 1]
