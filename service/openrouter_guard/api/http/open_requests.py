"""Requests that stay open until there is a change: limits their number in one process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress

from starlette.types import Receive

from openrouter_guard.background import cancelled

__all__ = ["OpenRequests", "TooManyClients", "disconnected"]

LONGEST_S = 60.0
"""The longest single wait."""


class TooManyClients(Exception):
    """The maximum of open requests is reached, or the service stops."""


class OpenRequests:
    """The number of open requests, over all scopes of this process.

    Args:
        most: Maximum at a time.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self.taken = 0
        self._end = asyncio.Event()

    def take(self) -> None:
        """Take a seat; :meth:`leave` must follow.

        Raises:
            TooManyClients: If the maximum is reached, or the service stops.
        """
        if self._end.is_set() or self.taken >= self._most:
            raise TooManyClients
        self.taken += 1

    def leave(self) -> None:
        self.taken -= 1

    @contextmanager
    def one(self) -> Iterator[None]:
        """As :meth:`take`, for the duration of the block."""
        self.take()
        try:
            yield
        finally:
            self.leave()

    def close(self) -> None:
        """End all waits, and accept no new ones."""
        self._end.set()

    async def wait(
        self, goes_on: Callable[[], float], news: Callable[[], Awaitable[None]], receive: Receive, wait_s: float
    ) -> None:
        """Hold a request for at most ``wait_s``; shorter if its client disconnects, or the service stops.

        Args:
            goes_on: Seconds until time alone may change the answer; 0 ends the wait. Called after each change.
            news: Returns when there may be a change.
            receive: Reports that the client has disconnected.
            wait_s: The longest wait.
        """
        ends = {asyncio.create_task(disconnected(receive)), asyncio.create_task(self._ended())}
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    while not any(end.done() for end in ends) and (pause_s := goes_on()):
                        await _first(ends, news, pause_s)
        finally:
            await cancelled(*ends)

    async def _ended(self) -> None:
        await self._end.wait()


async def disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _first(ends: set[asyncio.Task[None]], news: Callable[[], Awaitable[None]], pause_s: float) -> None:
    told = asyncio.ensure_future(news())
    try:
        await asyncio.wait({*ends, told}, timeout=min(pause_s, LONGEST_S), return_when=asyncio.FIRST_COMPLETED)
    finally:
        told.cancel()
