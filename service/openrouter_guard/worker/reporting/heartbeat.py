"""Tells the fleet that this worker is alive, and adds up the time in each state."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from openrouter_guard.replica.pace import POLL_S, pause
from openrouter_guard.rules import time_in_state
from openrouter_guard.rules.breaker import Policy
from openrouter_guard.rules.codec import iso
from openrouter_guard.store import Store
from openrouter_guard.version import package_version
from openrouter_guard.worker.threads.loops import HEARTBEAT_S
from openrouter_guard.worker.view import View

__all__ = ["Heartbeat"]


class Heartbeat:
    """The heartbeat of one worker.

    Args:
        store: Holds the fleet's workers.
        policy: The settings of the rules.
        worker_id: Name of the worker.
        known: Set once the state was read.
        view: Returns the current view.
        is_alone: Returns whether Redis accepts no writes.
    """

    def __init__(
        self,
        store: Store,
        policy: Policy,
        worker_id: str,
        known: asyncio.Event,
        view: Callable[[], View],
        is_alone: Callable[[], bool],
    ) -> None:
        self._store = store
        self._about = {"version": package_version(), "settings": policy.fingerprint}
        self._worker_id = worker_id
        self._known = known
        self._view = view
        self._is_alone = is_alone

    async def beat(self) -> None:
        """Write one, and wait until the next is due."""
        if not self._known.is_set():
            # The first reads have priority, because calls wait for them; and this would need a connection of its own.
            await self._known.wait()
            await pause(POLL_S)
        if self._is_alone():
            # Already logged.
            await pause(POLL_S)
            return
        view = self._view()
        await self._store.heartbeat(self._worker_id, {**self._about, "last_seen": iso(view.now)})
        if time_in_state.is_due(view.record, view.now):
            await self._store.keep_time()
        await asyncio.sleep(HEARTBEAT_S)
