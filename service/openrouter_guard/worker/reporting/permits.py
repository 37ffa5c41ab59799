"""The fleet's permits of this process: taken from Redis, and renewed as long as their calls run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from openrouter_guard.errors import StoreError
from openrouter_guard.rules import trial_calls
from openrouter_guard.rules.breaker import Open, Policy
from openrouter_guard.rules.shared_state import SharedState
from openrouter_guard.store import Seen, Store
from openrouter_guard.store.store import Decide

__all__ = ["PERMIT_S", "Fleet", "Permits"]

PERMIT_S = (0.25, 1.5)
"""How long a call may wait for a permit: five round trips, within these limits."""
_ROUND_TRIPS = 5


@dataclass(frozen=True, slots=True)
class Fleet:
    """A process' view of the fleet's state, and its means to change it.

    Attributes:
        latest: The last read, with the present time.
        seen_s: Time of the last read, by this process' monotonic clock.
        known: The state to decide on: a record, or the one that Redis has lost.
        adopt: Called with each new read.
        decided: Commits a decision, first on the last read; True if there was something to commit.
    """

    latest: Callable[[], Seen]
    seen_s: Callable[[], float]
    known: Decide
    adopt: Callable[[Seen], None]
    decided: Callable[[Decide, Seen | None], Awaitable[bool]]


class Permits:
    """The permits of this process.

    Args:
        store: Holds the permits.
        lock: Lock held during each conversation with Redis.
        fleet: The current view.
        policy: The settings of the rules.
    """

    def __init__(self, store: Store, lock: asyncio.Lock, fleet: Fleet, policy: Policy) -> None:
        self._store = store
        self._lock = lock
        self._fleet = fleet
        self._policy = policy
        self._renewals: dict[str, asyncio.Task[None]] = {}

    async def take(self, owner: str) -> bool:
        """Take one for *owner* if one is left, mostly in one round trip.

        Raises:
            StoreError: If Redis does not answer.
        """
        asks_s, permit = time.monotonic(), partial(self._permit, owner)
        async with self._lock:
            seen = self._fleet.latest()
            if self._fleet.seen_s() > asks_s and permit(seen.record, seen.now_s) is None:
                # Another thread has dropped it since.
                return False
            return await self._turned(owner) or await self._asked(owner, permit)

    async def _turned(self, owner: str) -> bool:
        """Take the first permit, if the half-open state is not stored yet."""
        seen = self._fleet.latest()
        if seen.record is None or not isinstance(seen.record.breaker, Open):
            return False
        new = self._permit(owner, seen.record, seen.now_s)
        done = new and await self._store.commit(seen, new)
        if done:
            self._fleet.adopt(seen.became(done))
        return bool(done)

    async def _asked(self, owner: str, decide: Decide, *, renews: bool = False) -> bool:
        got, seen = await self._store.permit(owner, self._fleet.latest(), self._policy, renews=renews)
        self._fleet.adopt(seen)
        return await self._fleet.decided(decide, seen) if got is None else got

    @property
    def wait_s(self) -> float:
        """How long to wait for one, in seconds, depending on the distance to Redis."""
        least_s, most_s = PERMIT_S
        return max(least_s, min(_ROUND_TRIPS * self._store.round_trip_s, most_s))

    def keep(self, owner: str) -> None:
        """Renew its lease until it is dropped."""
        self._renewals[owner] = asyncio.create_task(self._renew(owner))

    def holds(self, owner: str) -> bool:
        """Return whether its lease is renewed."""
        return owner in self._renewals

    def drop(self, owner: str) -> None:
        """Stop renewing it."""
        renewal = self._renewals.pop(owner, None)
        if renewal is not None:
            renewal.cancel()

    def _permit(self, owner: str, record: SharedState | None, now_s: float) -> SharedState | None:
        known = self._fleet.known(record, now_s)
        return known and trial_calls.with_permit(known, owner, now_s=now_s, policy=self._policy)

    async def _renew(self, owner: str) -> None:
        until_s = time.monotonic() + self._policy.trial_call_s
        while time.monotonic() < until_s:
            await asyncio.sleep(self._policy.permit_lease_s / 3)
            with suppress(StoreError):
                async with self._lock:
                    await self._asked(owner, partial(self._renewal, owner), renews=True)

    def _renewal(self, owner: str, record: SharedState | None, now_s: float) -> SharedState | None:
        held = getattr(record.breaker, "permits", {}) if record else {}
        # An expired lease is not taken again: another worker may have the permit by now.
        return self._permit(owner, record, now_s) if owner in held else None
