"""Turns every unexpected error in reading the shared state into one of ours, so that callers know how to react.

The readers of single values raise nothing. This is for unforeseen values, since any client may have written them.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, TypeVar, cast

from .errors import OpenRouterGuardError, StateUnreadable

__all__ = ["reads_state", "unreadable_errors"]

Method = TypeVar("Method", bound=Callable[..., Coroutine[Any, Any, Any]])


@contextmanager
def unreadable_errors(where: str) -> Iterator[None]:
    """Raise :class:`StateUnreadable` for all foreign errors; *where* is the address without secrets.

    The message has the type and the place. The error's own text may contain a stored secret.
    """
    try:
        yield
    except OpenRouterGuardError:
        raise
    except Exception as error:
        raise StateUnreadable(
            f"the state in Redis at {where} cannot be decoded: {type(error).__name__} at {_place(error)}; "
            "please report it"
        ) from error


def reads_state(method: Method) -> Method:
    """Wrap a method of an object with an ``address``: undecodable values raise :class:`StateUnreadable`."""

    @wraps(method)
    async def careful(self: Any, *args: Any, **kwargs: Any) -> Any:
        with unreadable_errors(self.address):
            return await method(self, *args, **kwargs)

    return cast("Method", careful)


def _place(error: Exception) -> str:
    """Return the last line of our code that ran, as ``file.py:12``."""
    frame, place = error.__traceback__, "an unknown place"
    while frame is not None:
        name = frame.tb_frame.f_code.co_filename
        if "openrouter_guard" in name:
            place = f"{name.rpartition('/')[2]}:{frame.tb_lineno}"
        frame = frame.tb_next
    return place
