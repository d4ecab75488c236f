# SPDX-License-Identifier: Apache-2.0
"""Arrays for results, of the kind the caller brought: torch tensors for torch tensors, numpy arrays else. Neither torch nor ml_dtypes
is imported unless the caller has."""
from __future__ import annotations

import sys
from typing import Any, Sequence, Tuple

import numpy as np

from . import _core

_NUMPY = {_core.CHORUS_F64: np.float64, _core.CHORUS_F32: np.float32, _core.CHORUS_F16: np.float16, _core.CHORUS_I64: np.int64,
          _core.CHORUS_I32: np.int32, _core.CHORUS_U8: np.uint8}
_TORCH = {_core.CHORUS_F64: "float64", _core.CHORUS_F32: "float32", _core.CHORUS_F16: "float16", _core.CHORUS_BF16: "bfloat16",
          _core.CHORUS_I64: "int64", _core.CHORUS_I32: "int32", _core.CHORUS_U8: "uint8"}


def is_torch(array: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(array, torch.Tensor)


def empty(like: Any, shape: Sequence[int], dtype: int) -> Any:
    """An uninitialised array of the kind of `like`. bf16 in numpy: ml_dtypes' where it can be had, else the bits as uint16."""
    if is_torch(like):
        torch = sys.modules["torch"]
        return torch.empty(tuple(shape), dtype=getattr(torch, _TORCH[dtype]))
    if dtype == _core.CHORUS_BF16:
        try:
            import ml_dtypes
        except ImportError:
            return np.empty(tuple(shape), np.uint16)
        return np.empty(tuple(shape), ml_dtypes.bfloat16)
    return np.empty(tuple(shape), _NUMPY[dtype])


def taken(array: Any) -> Any:
    """What can be handed to C: lists become numpy arrays (of f32, where they hold fractions), torch tensors lose their graph."""
    if is_torch(array):
        return array.detach() if array.requires_grad else array
    if not isinstance(array, (list, tuple, float, int)):
        return array
    made = np.asarray(array)
    return made.astype(np.float32) if made.dtype == np.float64 else made


def shape_and_dtype(array: Any) -> Tuple[Tuple[int, ...], int]:
    shape, dtype = getattr(array, "shape", None), getattr(array, "dtype", None)
    if shape is None or dtype is None:
        told = _core.describe(array)
        return tuple(told["shape"]), told["dtype"]
    from ._words import dtype_of
    return tuple(int(n) for n in shape), dtype_of("dtype", dtype)


def floats(values: Any) -> Any:
    """Numbers as f32, as weights and temperatures are."""
    if values is None or is_torch(values):
        return values
    return np.ascontiguousarray(values, np.float32)


def ints(values: Any) -> Any:
    """Numbers as i64, as row ids and steps are."""
    if values is None or is_torch(values):
        return values
    return np.ascontiguousarray(values, np.int64)


def output(wanted: Any, like: Any, shape: Sequence[int], dtype: int) -> Any:
    """None for False, a new array for True, else the caller's array to write into."""
    if wanted is False or wanted is None:
        return None
    return empty(like, shape, dtype) if wanted is True else wanted
