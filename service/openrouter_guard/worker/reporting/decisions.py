"""Commits decisions on the shared state in the background, one after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from openrouter_guard.errors import StoreError
from openrouter_guard.rules.shared_state import SharedState
from openrouter_guard.store import Seen, Store
from openrouter_guard.store.store import Decide

from .offline import Offline

__all__ = ["Decisions"]


class Decisions:
    """The decisions of one reporter.

    Args:
        store: Commits them.
        lock: Lock held during each conversation with Redis.
        alone: Decides while Redis is away.
        latest: The last read, with the present time.
        adopt: Called with each new read.
        note_away: Called if Redis does not accept one.
    """

    def __init__(
        self,
        store: Store,
        lock: asyncio.Lock,
        alone: Offline,
        latest: Callable[[], Seen],
        adopt: Callable[[Seen], None],
        note_away: Callable[[StoreError], None],
    ) -> None:
        self._store = store
        self._lock = lock
        self._offline = alone
        self._latest = latest
        self._adopt = adopt
        self._note_away = note_away
        self._errands: set[asyncio.Task[None]] = set()

    async def commit(self, decide: Decide, seen: Seen | None) -> bool:
        """Commit one now; the caller holds the lock.

        Args:
            decide: It.
            seen: The state to decide on first; None: read it.

        Returns:
            True if there was something to commit.

        Raises:
            StoreError: If Redis does not accept it.
        """
        decided = False

        def watched(record: SharedState | None, now_s: float) -> SharedState | None:
            nonlocal decided
            new = decide(record, now_s)
            decided = new is not None and new != record
            return new

        self._adopt(await self._store.change(watched, seen))
        return decided

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
            async with self._lock:
                await self.commit(decide, self._latest() if is_direct else None)
        except StoreError as error:
            self._note_away(error)
            self._offline.decide(decide)
