"""The fleet's permits of this process: taken from Redis, and renewed as long as their calls run."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from openrouter_guard.errors import StoreError
from openrouter_guard.replica.state_copy import StateCopy
from openrouter_guard.rules.breaker import Policy

__all__ = ["PERMIT_S", "Permits"]

PERMIT_S = (0.25, 1.5)
"""How long a call may wait for a permit: five round trips, within these limits."""
_ROUND_TRIPS = 5


class Permits:
    """The permits of this process.

    Args:
        state: Holds the permits.
        policy: The settings of the rules.
    """

    def __init__(self, state: StateCopy, policy: Policy) -> None:
        self._state = state
        self._policy = policy
        self._renewals: dict[str, asyncio.Task[None] | None] = {}

    async def take(self, owner: str) -> bool:
        """Take one for *owner* if one is left, mostly in one round trip.

        Raises:
            StoreError: If Redis does not answer.
        """
        asks_at = time.monotonic()
        async with self._state.lock:
            seen = self._state.latest()
            if self._state.read_at > asks_at and self._state.permitted(owner, seen.record, seen.now) is None:
                # Others have taken all of them while this call waited for its turn.
                return False
            return await self._state.permit(owner)

    @property
    def wait_s(self) -> float:
        """How long to wait for one, in seconds, depending on the distance to Redis."""
        least_s, most_s = PERMIT_S
        return max(least_s, min(_ROUND_TRIPS * self._state.round_trip_s, most_s))

    def keep(self, owner: str, *, renews: bool) -> None:
        """Note that *owner* has it until it is dropped, and renew its lease if *renews*."""
        self._renewals[owner] = asyncio.create_task(self._renew(owner)) if renews else None

    def holds(self, owner: str) -> bool:
        """Return whether *owner* has one."""
        return owner in self._renewals

    def drop(self, owner: str) -> None:
        """Stop renewing it."""
        renewal = self._renewals.pop(owner, None)
        if renewal is not None:
            renewal.cancel()

    async def _renew(self, owner: str) -> None:
        until = time.monotonic() + self._policy.trial_call_s
        while time.monotonic() < until:
            await asyncio.sleep(self._policy.permit_lease_s / 3)
            with suppress(StoreError):
                async with self._state.lock:
                    await self._state.permit(owner, renews=True)
