# SPDX-License-Identifier: Apache-2.0
"""The context: options, log, thread pool, plugins and their devices."""
from __future__ import annotations

import logging
import os
import threading
from types import TracebackType
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Type, TypeVar, Union

from . import _core
from ._words import Word, constant, contract

_LOGGER = logging.getLogger("chorus")
_LEVELS = {_core.CHORUS_LOG_DEBUG: logging.DEBUG, _core.CHORUS_LOG_INFO: logging.INFO,
           _core.CHORUS_LOG_WARNING: logging.WARNING, _core.CHORUS_LOG_ERROR: logging.ERROR}
S = TypeVar("S", bound="Object")


def _to_logging(level: int, message: str) -> None:
    _LOGGER.log(_LEVELS.get(level, logging.INFO), "%s", message)


class Object:
    """Owns a C object: closed by close(), at the end of a with block, or when the last reference goes."""

    _handle: Any = None

    @property
    def handle(self) -> Any:
        """For chorus._core."""
        if self._handle is None:
            raise ValueError(f"this {type(self).__name__} is closed")
        return self._handle

    def close(self) -> None:
        """Lets go of the object; calls that run finish first. Twice is fine."""
        self._handle = None

    def __enter__(self: S) -> S:
        return self

    def __exit__(self, kind: Optional[Type[BaseException]], value: Optional[BaseException],
                 traceback: Optional[TracebackType]) -> None:
        self.close()


class Context(Object):
    """Loads the plugins and starts the thread pool; everything else is made from one, by default from default_context()."""

    @contract("chorus_context_create", "chorus_context_spec_set_option")
    def __init__(self, options: Optional[Mapping[str, Union[str, int, float, bool]]] = None, *, threads: Optional[int] = None,
                 plugins: Iterable[Union[str, "os.PathLike[str]"]] = (), log: Union[Callable[[int, str], Any], str, None] = "logging",
                 level: Word = "warning") -> None:
        """Options by name (see options()); `threads` is short for the option of that name. `plugins`: files to load first. `log`: a
        function (level, message), None, or "logging" for the logger "chorus"; messages are delivered by the thread whose call
        caused them, when the call returns."""
        spec = _core.chorus_context_spec_create()
        for name, value in {**(options or {}), **({} if threads is None else {"threads": threads})}.items():
            text = {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)
            _core.chorus_context_spec_set_option(spec, name, text)
        for path in plugins:
            _core.chorus_context_spec_add_plugin(spec, path)
        if log is not None:
            _core.chorus_context_spec_set_log(spec, log if callable(log) else _to_logging, constant("level", "LOG", level))
        self._handle = _core.chorus_context_create(spec)

    def plugins(self) -> List[Dict[str, Any]]:
        """Each plugin that was found, and why not where it was not loaded."""
        count = _core.chorus_context_get_plugin_count(self.handle)
        return [_core.chorus_context_get_plugin(self.handle, i) for i in range(count)]

    def devices(self) -> List[Dict[str, Any]]:
        """Each device: name, plugin, description, number of kernels."""
        count = _core.chorus_context_get_device_count(self.handle)
        return [_core.chorus_context_get_device(self.handle, i) for i in range(count)]

    def options(self) -> List[Dict[str, Any]]:
        """The table of options: name, type, default, value, range, doc."""
        count = _core.chorus_context_get_option_count(self.handle)
        return [_core.chorus_context_get_option(self.handle, i) for i in range(count)]

    def __repr__(self) -> str:
        if self._handle is None:
            return "<chorus.Context, closed>"
        return f"<chorus.Context: {', '.join(device['name'] for device in self.devices())}>"


_default: Optional[Context] = None
_default_lock = threading.Lock()


def default_context() -> Context:
    """The context that objects use when none is given; made on first use, with default options."""
    global _default
    with _default_lock:
        if _default is None or _default._handle is None:
            _default = Context()
        return _default


def context_handle(context: Optional[Context]) -> Any:
    return (context or default_context()).handle
