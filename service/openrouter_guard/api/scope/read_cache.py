"""Caches reads from Redis for a moment: simultaneous requests for the same data cost one read."""

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
"""How long a read is reused, unless the shared state changes in between."""
_KEPT = 64


@dataclass(frozen=True, slots=True)
class _Read:
    task: asyncio.Task[Any]
    version: Hashable
    until: float

    def holds(self, version: Hashable) -> bool:
        if self.version != version or self.until < time.monotonic():
            return False
        return not self.task.done() or (not self.task.cancelled() and self.task.exception() is None)


class ReadCache:
    """The reads of one scope, by question."""

    def __init__(self) -> None:
        self._reads: dict[Hashable, _Read] = {}

    async def get(self, question: Hashable, version: Hashable, read: Callable[[], Awaitable[T]]) -> tuple[T, bool]:
        """Return the answer to *question* at this *version* of the shared state, and whether it was cached.

        A caller that stops waiting cancels no other caller's read. Raises the errors of *read*, and caches no
        failure.
        """
        known = self._reads.get(question)
        if known is not None and known.holds(version):
            is_there = known.task.done()
            return cast("T", await asyncio.shield(known.task)), is_there
        while len(self._reads) >= _KEPT:
            # The oldest entry is dropped; callers that wait for it still get their answer.
            del self._reads[next(iter(self._reads))]
        task: asyncio.Task[T] = asyncio.ensure_future(_of(read))
        # A failure with no waiting caller is ignored.
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._reads.pop(question, None)
        self._reads[question] = _Read(task, version, time.monotonic() + KEEP_S)
        return await asyncio.shield(task), False

    async def stop(self) -> None:
        reads, self._reads = self._reads, {}
        await cancelled(*(read.task for read in reads.values()))


async def _of(read: Callable[[], Awaitable[T]]) -> T:
    return await read()
