"""Requests that stay open until there is news: so many at a time in one process, whatever they listen to."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress

from starlette.types import Receive

from openrouter_guard.background import cancelled

__all__ = ["OpenRequests", "TooManyClients", "disconnected"]

LONGEST_S = 60.0
"""Nothing waits for longer in one piece."""


class TooManyClients(Exception):
    """As many requests stay open as may, or the end has come."""


class OpenRequests:
    """How many there are, over all scopes of this process.

    Args:
        most: How many there may be at a time.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self.taken = 0
        self._end = asyncio.Event()

    def take(self) -> None:
        """Stay; to be followed by :meth:`leave`.

        Raises:
            TooManyClients: If as many stay as may, or the end has come.
        """
        if self._end.is_set() or self.taken >= self._most:
            raise TooManyClients
        self.taken += 1

    def leave(self) -> None:
        self.taken -= 1

    @contextmanager
    def one(self) -> Iterator[None]:
        """As :meth:`take`, for as long as the block lasts."""
        self.take()
        try:
            yield
        finally:
            self.leave()

    def close(self) -> None:
        """Nobody waits any longer, and nobody begins to."""
        self._end.set()

    async def wait(
        self, goes_on: Callable[[], float], news: Callable[[], Awaitable[None]], receive: Receive, wait_s: float
    ) -> None:
        """Hold a request for ``wait_s`` at the most: shorter where its client hangs up, or the end comes.

        Args:
            goes_on: For how many seconds nothing will change by time alone; 0 ends the wait. Asked at each news.
            news: Returns when there may be something new.
            receive: Says when the client has gone.
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
