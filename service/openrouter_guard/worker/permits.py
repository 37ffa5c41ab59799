"""The fleet's permits that this process holds: taken from Redis, and kept alive as long as their calls run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial

from openrouter_guard.errors import StoreError
from openrouter_guard.rules import record as records
from openrouter_guard.rules.breaker import Policy
from openrouter_guard.rules.record import Record
from openrouter_guard.store.store import Decide

__all__ = ["Permits"]


class Permits:
    """Those of this process.

    Args:
        change: Commits a decision; True if there was one.
        known: What to decide on: the record, or the one that Redis has lost.
        policy: The settings of the rules.
    """

    def __init__(self, change: Callable[[Decide], Awaitable[bool]], known: Decide, policy: Policy) -> None:
        self._change = change
        self._known = known
        self._policy = policy
        self._renewals: dict[str, asyncio.Task[None]] = {}

    async def take(self, owner: str) -> bool:
        """Take one for *owner*, if there is one left.

        Raises:
            StoreError: If Redis does not say.
        """
        return await self._change(partial(self._permit, owner))

    def keep(self, owner: str) -> None:
        """Renew its lease until it is dropped."""
        self._renewals[owner] = asyncio.create_task(self._renew(owner))

    def drop(self, owner: str) -> None:
        """Renew it no longer."""
        renewal = self._renewals.pop(owner, None)
        if renewal is not None:
            renewal.cancel()

    def _permit(self, owner: str, record: Record | None, now_s: float) -> Record | None:
        known = self._known(record, now_s)
        return known and records.with_permit(known, owner, now_s=now_s, policy=self._policy)

    async def _renew(self, owner: str) -> None:
        until_s = time.monotonic() + self._policy.trial_call_s
        while time.monotonic() < until_s:
            await asyncio.sleep(self._policy.permit_lease_s / 3)
            with suppress(StoreError):
                await self._change(partial(self._renewal, owner))

    def _renewal(self, owner: str, record: Record | None, now_s: float) -> Record | None:
        held = getattr(record.breaker, "permits", {}) if record else {}
        # A lease that ran out is not taken again: by now the permit may be somebody else's.
        return self._permit(owner, record, now_s) if owner in held else None
