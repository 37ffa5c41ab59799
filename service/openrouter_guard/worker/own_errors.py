"""Bugs of the guard on the caller's path: logged once each, and kept from the caller."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from types import CodeType, TracebackType

from openrouter_guard.errors import CallNotPermitted, ConfigurationError

__all__ = ["OwnErrors", "is_thrown_in"]

logger = logging.getLogger(__name__)

_OURS = __name__.partition(".")[0]
_FOR_THE_CALLER = (CallNotPermitted, ConfigurationError)


def is_thrown_in(error: BaseException) -> bool:
    """Return whether a signal handler or another thread has thrown it into our code, such as a time limit."""
    return not isinstance(error, Exception) or _is_of_a_signal(error) or not _is_known(type(error))


class OwnErrors:
    """The bugs of one guard."""

    def __init__(self) -> None:
        self._noted: set[tuple[str, str]] = set()

    def note(self, error: BaseException) -> None:
        """Log *error*, once for each type and place. Its text is left out, because it may quote the caller's data."""
        # If the caller is at the end of its stack, even this may fail.
        with suppress(Exception):
            told = (type(error).__name__, _place(error))
            if told not in self._noted:
                self._noted.add(told)
                logger.error("a bug in OpenRouter Guard, calls go on; please report it: %s at %s", *told)

    def took(self, error: BaseException, *, of_foreign_code: bool = False) -> bool:
        """Note *error* if it is a bug of ours; False if it belongs to the caller.

        A refusal belongs to the caller, and so does an exception thrown into our code from outside: by a signal
        handler, such as a time limit's, by another thread, or by an event loop.

        Args:
            error: The exception.
            of_foreign_code: Whether that code reads foreign objects, whose attributes may raise anything.
        """
        if not isinstance(error, Exception) or isinstance(error, _FOR_THE_CALLER) or _is_of_a_signal(error):
            return False
        if not _is_known(type(error)) and not (of_foreign_code and _is_raised_by_others(error)):
            return False
        self.note(error)
        return True


def _is_known(kind: type) -> bool:
    """Return whether our code could raise it; otherwise another thread has thrown it in."""
    return _package(kind.__module__) in {*sys.stdlib_module_names, _OURS, "redis"}


def _is_raised_by_others(error: BaseException) -> bool:
    innermost = [trace.tb_frame.f_globals.get("__name__", "") for trace in _traces(error)][-1:]
    return any(_package(name) != _OURS for name in innermost)


def _is_of_a_signal(error: BaseException) -> bool:
    ran = {trace.tb_frame.f_code for trace in _traces(error)}
    return any(code in ran for code in _handlers())


def _handlers() -> Iterator[CodeType]:
    """Return the code of this process' signal handlers."""
    for number in signal.valid_signals():
        handler = signal.getsignal(number)
        handler = getattr(handler, "func", handler)
        handler = getattr(handler, "__func__", handler)
        code = getattr(handler, "__code__", None) or getattr(getattr(handler, "__call__", None), "__code__", None)  # noqa: B004
        if isinstance(code, CodeType):
            yield code


def _traces(error: BaseException) -> Iterator[TracebackType]:
    trace = error.__traceback__
    while trace is not None:
        yield trace
        trace = trace.tb_next


def _place(error: BaseException) -> str:
    """Return the place in our code where it was raised."""
    ours = [trace for trace in _traces(error) if _package(trace.tb_frame.f_globals.get("__name__", "")) == _OURS]
    if not ours:
        return "an unknown place"
    frame = ours[-1].tb_frame
    return f"{frame.f_globals['__name__']}:{ours[-1].tb_lineno}"


def _package(module: object) -> str:
    return str(module).partition(".")[0]
