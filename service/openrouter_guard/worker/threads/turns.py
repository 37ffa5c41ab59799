"""An event loop that shares its thread with others, where threads are greenlets.

With gevent, all threads are greenlets of one thread of the system, and asyncio allows that thread one running loop. A
second one does not start: not the background's own after a first one, and none beside a loop of the application. Here
a loop is the running one only in its own turn, and hands over while it waits.
"""

from __future__ import annotations

import asyncio
import selectors
from asyncio.events import _get_running_loop, _set_running_loop
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

__all__ = ["Turns", "new_loop"]


class Turns(selectors.BaseSelector):
    """The selector of a loop, which waits in it and nowhere else."""

    def __init__(self) -> None:
        # Chosen now: gevent replaces it.
        self._selector = selectors.DefaultSelector()
        self._other: asyncio.AbstractEventLoop | None = None

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Let the loop run in this block, whatever other one runs in this thread of the system."""
        self._begin(None)
        try:
            yield
        finally:
            _set_running_loop(self._other)

    def _begin(self, own: asyncio.AbstractEventLoop | None) -> None:
        self._other = _get_running_loop()
        _set_running_loop(own)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        own = _get_running_loop()
        _set_running_loop(self._other)
        try:
            return self._selector.select(timeout)
        finally:
            self._begin(own)

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._selector.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._selector.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._selector.modify(fileobj, events, data)

    def close(self) -> None:
        self._selector.close()

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        return self._selector.get_key(fileobj)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._selector.get_map()


def new_loop() -> tuple[asyncio.AbstractEventLoop, Turns]:
    """Return a new loop, and its turns."""
    turns = Turns()
    return asyncio.SelectorEventLoop(turns), turns
