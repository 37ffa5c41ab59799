"""Commits decisions on the shared state in the background, one after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from openrouter_guard.errors import StoreError
from openrouter_guard.replica.state_copy import StateCopy
from openrouter_guard.store.store import Decide

from .offline import Offline

__all__ = ["Decisions"]


class Decisions:
    """The decisions of one reporter.

    Args:
        state: Commits them.
        offline: Decides while Redis is away.
        note_away: Called if Redis does not accept one.
    """

    def __init__(self, state: StateCopy, offline: Offline, note_away: Callable[[StoreError], None]) -> None:
        self._state = state
        self._offline = offline
        self._note_away = note_away
        self._errands: set[asyncio.Task[None]] = set()

    def soon(self, decide: Decide, *, is_direct: bool = False) -> None:
        """Commit one in the background; if *is_direct*, decide first on the last read."""
        errand = asyncio.create_task(self._decide(decide, is_direct=is_direct))
        self._errands.add(errand)
        errand.add_done_callback(self._errands.discard)

    async def done(self) -> None:
        """Wait for those that have begun."""
        if self._errands:
            # A caller that stops waiting must not stop them.
            await asyncio.wait(self._errands)

    async def _decide(self, decide: Decide, *, is_direct: bool) -> None:
        try:
            async with self._state.lock:
                await self._state.commit(decide, self._state.latest() if is_direct else None)
        except StoreError as error:
            self._note_away(error)
            self._offline.decide(decide)
