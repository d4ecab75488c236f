# SPDX-License-Identifier: Apache-2.0
"""Failures as exceptions: one class per status code, each also the built-in exception that Python users expect."""
from __future__ import annotations

from typing import Any, Dict, List, Type

from . import _core


class ChorusError(Exception):
    """A failed call. `str()` is the C library's message; `code` its status, `text` the message with all causes below it."""

    code: int
    text: str

    def __init__(self, code: int, message: str, text: str, handle: Any = None) -> None:
        super().__init__(message)
        self.code = code
        self.text = text
        self._handle = handle

    @property
    def status(self) -> str:
        """Name of the status, "INVALID_ARGUMENT"."""
        return _core.chorus_status_get_name(self.code) or ""

    @property
    def causes(self) -> List[str]:
        """Messages of the direct causes, for example one per mistake in a recipe."""
        if self._handle is None:
            return []
        count = _core.chorus_error_get_cause_count(self._handle)
        found = (_core.chorus_error_get_message(_core.chorus_error_get_cause(self._handle, i)) for i in range(count))
        return [message or "" for message in found]


class CancelledError(ChorusError):
    """A callback asked to stop; nothing half-written remains."""


class InvalidArgumentError(ChorusError, ValueError):
    """An argument is wrong; the message names it."""


class NotFoundError(ChorusError, LookupError):
    """A file, device, tensor, token or option does not exist."""


class AlreadyExistsError(ChorusError, FileExistsError):
    """The output is there and may not be replaced."""


class PermissionDeniedError(ChorusError, PermissionError):
    """The system or a safety rule forbids it."""


class ResourceExhaustedError(ChorusError, MemoryError):
    """Out of memory, disk, or a stated limit."""


class FailedPreconditionError(ChorusError, RuntimeError):
    """The right call in the wrong state."""


class AbortedError(ChorusError, RuntimeError):
    """Gave way to a concurrent operation."""


class OutOfRangeError(ChorusError, IndexError):
    """An index or position past the end."""


class UnimplementedError(ChorusError, NotImplementedError):
    """Understood, and no kernel or code does it yet."""


class InternalError(ChorusError, RuntimeError):
    """A bug in Chorus or a plugin."""


class UnavailableError(ChorusError, OSError):
    """A device or file system is not usable now."""


class DataLossError(ChorusError, ValueError):
    """A file is malformed or truncated."""


_CLASSES: Dict[int, Type[ChorusError]] = {
    _core.CHORUS_CANCELLED: CancelledError,
    _core.CHORUS_INVALID_ARGUMENT: InvalidArgumentError,
    _core.CHORUS_NOT_FOUND: NotFoundError,
    _core.CHORUS_ALREADY_EXISTS: AlreadyExistsError,
    _core.CHORUS_PERMISSION_DENIED: PermissionDeniedError,
    _core.CHORUS_RESOURCE_EXHAUSTED: ResourceExhaustedError,
    _core.CHORUS_FAILED_PRECONDITION: FailedPreconditionError,
    _core.CHORUS_ABORTED: AbortedError,
    _core.CHORUS_OUT_OF_RANGE: OutOfRangeError,
    _core.CHORUS_UNIMPLEMENTED: UnimplementedError,
    _core.CHORUS_INTERNAL: InternalError,
    _core.CHORUS_UNAVAILABLE: UnavailableError,
    _core.CHORUS_DATA_LOSS: DataLossError,
}


def _exception(code: int, message: str, text: str, handle: Any) -> ChorusError:
    return _CLASSES.get(code, ChorusError)(code, message, text, handle)


_core.set_raiser(_exception)
