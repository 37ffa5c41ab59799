"""What was read from Redis a moment ago: many who ask for the same at the same time cost one read."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from openrouter_guard.background import cancelled

__all__ = ["KEEP_S", "ReadCache"]

T = TypeVar("T")

KEEP_S = 1.0
"""How long what was read is given again, unless the shared state changes meanwhile."""
_KEPT = 64


@dataclass(frozen=True, slots=True)
class _Read:
    task: asyncio.Task[Any]
    version: int
    until_s: float

    def holds(self, version: int) -> bool:
        if self.version != version or self.until_s < time.monotonic():
            return False
        return not self.task.done() or (not self.task.cancelled() and self.task.exception() is None)


class ReadCache:
    """The reads of one scope, by what was asked for."""

    def __init__(self) -> None:
        self._reads: dict[Hashable, _Read] = {}

    async def get(self, question: Hashable, version: int, read: Callable[[], Awaitable[T]]) -> tuple[T, bool]:
        """The answer to *question* at this *version* of the shared state, and whether it was there already.

        Who stops waiting stops nobody else's read. Raises what *read* raises, and keeps no failure.
        """
        known = self._reads.get(question)
        if known is not None and known.holds(version):
            is_there = known.task.done()
            return cast("T", await asyncio.shield(known.task)), is_there
        while len(self._reads) >= _KEPT:
            # The oldest goes, and is read to its end by those who wait for it.
            del self._reads[next(iter(self._reads))]
        task: asyncio.Task[T] = asyncio.ensure_future(_of(read))
        # A failure that nobody waits for any more is nobody's business.
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._reads.pop(question, None)
        self._reads[question] = _Read(task, version, time.monotonic() + KEEP_S)
        return await asyncio.shield(task), False

    async def stop(self) -> None:
        reads, self._reads = self._reads, {}
        await cancelled(*(read.task for read in reads.values()))


async def _of(read: Callable[[], Awaitable[T]]) -> T:
    return await read()
