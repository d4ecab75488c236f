# SPDX-License-Identifier: Apache-2.0
"""Words for the constants of the C headers, found by their prefix: rule="log-linear" is CHORUS_COMBINE_LOG_LINEAR. A new constant of
the headers is a new word here without a line of code."""
from __future__ import annotations

import difflib
from typing import Any, Callable, Dict, TypeVar, Union

from . import _core

Word = Union[str, int]
F = TypeVar("F", bound=Callable[..., Any])


def words(prefix: str) -> Dict[str, int]:
    """{"log-linear": 1, …} of all constants CHORUS_<prefix>_*."""
    start = f"CHORUS_{prefix}_"
    return {name[len(start):].lower().replace("_", "-"): getattr(_core, name) for name in dir(_core) if name.startswith(start)}


def constant(argument: str, prefix: str, word: Word) -> int:
    """The constant for `word`; a number is taken as it is, for libchorus to judge."""
    if isinstance(word, int):
        return word
    known = words(prefix)
    found = known.get(word.lower().replace("_", "-"))
    if found is None:
        near = difflib.get_close_matches(word, known, 1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise ValueError(f"{argument}: '{word}' is unknown{hint} Known: {', '.join(sorted(known))}")
    return found


DTYPES: Dict[str, int] = {
    "f64": _core.CHORUS_F64, "f32": _core.CHORUS_F32, "f16": _core.CHORUS_F16, "bf16": _core.CHORUS_BF16,
    "i64": _core.CHORUS_I64, "i32": _core.CHORUS_I32, "i8": _core.CHORUS_I8, "u8": _core.CHORUS_U8,
    "float64": _core.CHORUS_F64, "float32": _core.CHORUS_F32, "float16": _core.CHORUS_F16, "bfloat16": _core.CHORUS_BF16,
    "int64": _core.CHORUS_I64, "int32": _core.CHORUS_I32, "int8": _core.CHORUS_I8, "uint8": _core.CHORUS_U8,
}


def dtype_of(argument: str, dtype: Any) -> int:
    """From "bf16", numpy.float32, torch.bfloat16, a dtype object, or a number of the headers."""
    if isinstance(dtype, int):
        return dtype
    name = dtype if isinstance(dtype, str) else getattr(dtype, "name", None) or getattr(dtype, "__name__", None) or str(dtype)
    found = DTYPES.get(str(name).rsplit(".", 1)[-1])
    if found is None:
        raise ValueError(f"{argument}: '{dtype}' is no data type here; known: {', '.join(DTYPES)}")
    return found


def contract(*functions: str) -> Callable[[F], F]:
    """Puts the C headers' comments on these functions below a docstring: they are the contract."""
    def decorate(target: F) -> F:
        texts = [getattr(_core, name).__doc__ or "" for name in functions]
        below = "\n\n".join(f"From the C contract, {text}" for text in texts)
        target.__doc__ = f"{target.__doc__ or ''}\n\n{below}"
        return target
    return decorate
