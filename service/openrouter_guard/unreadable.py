"""What cannot be understood of the shared state is an error of ours, so that everybody knows what to do about it.

The readers of single values raise nothing. This is for what nobody has thought of: somebody may have stored anything.
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
    """Raise :class:`StateUnreadable` for all errors but ours; *where* is the address without secrets.

    The message has the type and the place. What the error itself says may be a secret that somebody stored.
    """
    try:
        yield
    except OpenRouterGuardError:
        raise
    except Exception as error:
        raise StateUnreadable(
            f"the state in Redis at {where} cannot be understood: {type(error).__name__} at {_place(error)}; "
            "please report it"
        ) from error


def reads_state(method: Method) -> Method:
    """A method of what has an ``address``: what it cannot understand is :class:`StateUnreadable`."""

    @wraps(method)
    async def careful(self: Any, *args: Any, **kwargs: Any) -> Any:
        with unreadable_errors(self.address):
            return await method(self, *args, **kwargs)

    return cast("Method", careful)


def _place(error: Exception) -> str:
    """The last line of ours that ran, as ``file.py:12``."""
    frame, place = error.__traceback__, "an unknown place"
    while frame is not None:
        name = frame.tb_frame.f_code.co_filename
        if "openrouter_guard" in name:
            place = f"{name.rpartition('/')[2]}:{frame.tb_lineno}"
        frame = frame.tb_next
    return place
