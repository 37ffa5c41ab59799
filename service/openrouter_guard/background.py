"""The loops of this process, and whether they make progress."""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

__all__ = ["Background", "cancelled"]

logger = logging.getLogger(__name__)

STALL_S = 30.0
"""Every round is limited by timeouts that are much shorter."""
_PAUSE_S = 1.0
_AGAIN_S = 0.1
_MISTAKES_MOST = 100


@dataclass(slots=True)
class _Loop:
    task: asyncio.Task[None]
    came_round_at: float
    waits: bool


class Background:
    """Runs each piece of work over and over until :meth:`stop`."""

    def __init__(self) -> None:
        self._loops: dict[str, _Loop] = {}
        self._mistakes: set[tuple[str, str, str]] = set()

    def start(self, name: str, work: Callable[[], Awaitable[object]], *, waits: bool = False) -> None:
        """Run *work* repeatedly; ``waits`` marks work whose single round may take for ever."""
        task = asyncio.create_task(self._forever(name, work), name=name)
        self._loops[name] = _Loop(task, time.monotonic(), waits)

    async def stop(self) -> None:
        loops, self._loops = self._loops, {}
        await cancelled(*(loop.task for loop in loops.values()))

    @property
    def is_running(self) -> bool:
        return bool(self._loops)

    def stalled(self) -> list[str]:
        """Return the loops that ended, or have made no progress for a long time."""
        late = time.monotonic() - STALL_S
        loops = self._loops.items()
        return [name for name, loop in loops if loop.task.done() or (not loop.waits and loop.came_round_at < late)]

    async def _forever(self, name: str, work: Callable[[], Awaitable[object]]) -> None:
        while True:
            try:
                await work()
            except Exception as error:  # noqa: BLE001  a loop that ends would be missed by nobody
                # Only unexpected errors come here. A restart would not fix a stored value.
                self._failed(name, error)
                await asyncio.sleep(_PAUSE_S)
            self._came_round(name)

    def _failed(self, name: str, error: Exception) -> None:
        """Log it once for each type and place, with the traceback."""
        frames = traceback.extract_tb(error.__traceback__)
        mistake = (name, type(error).__name__, f"{frames[-1].filename}:{frames[-1].lineno}")
        if mistake not in self._mistakes and len(self._mistakes) < _MISTAKES_MOST:
            self._mistakes.add(mistake)
            logger.error("background work failed and goes on: %s; logged once", name, exc_info=error)

    def _came_round(self, name: str) -> None:
        if name in self._loops:
            self._loops[name].came_round_at = time.monotonic()


async def cancelled(*tasks: asyncio.Task[None]) -> None:
    """Cancel until all have ended.

    Once is not enough: on Python 3.11 ``asyncio.wait_for``, which redis-py writes with, may lose a cancellation.
    """
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=_AGAIN_S)
