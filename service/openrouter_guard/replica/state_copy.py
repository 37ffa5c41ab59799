"""A process' copy of the shared state: the only way in which service, operator and worker read and change it."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TypeAlias

from openrouter_guard.clocks import MonotonicTime, ServerTime, monotonic
from openrouter_guard.rules import evaluation, trial_calls
from openrouter_guard.rules.breaker import Closed, Open, Policy
from openrouter_guard.rules.loss import recovered
from openrouter_guard.rules.models import Models
from openrouter_guard.rules.shared_state import SharedState
from openrouter_guard.store import Batch, Counted, Seen, Store
from openrouter_guard.store.store import Decide
from openrouter_guard.unreadable import unreadable_errors

__all__ = ["StateCopy"]

Evaluate: TypeAlias = Callable[[SharedState, float], SharedState]
"""Maps a record and the time to the record with its due transitions."""


class StateCopy:
    """The copy of one scope. It reads the state, restores the parts that Redis lost, and commits decisions.

    One conversation with Redis at a time, so that an older answer never replaces a newer one: hold :attr:`lock` while
    you call an asynchronous method. Each of them raises a :class:`~openrouter_guard.errors.StoreError` if the outcome
    is uncertain.

    Args:
        store: Holds the state.
        policy: The settings of the rules.
        by: Name of this process in the history.
        evaluate: Works out due transitions; by default by the rules alone.
        on_read: Called after each read, with the one before.
        outlives: Whether a state that has expired in Redis stays known, without its failures.
        clock: Unix seconds, as long as Redis' clock is unknown.

    Attributes:
        known: The last read; parts that Redis lost are kept as they were.
        record: The same, with due transitions; None if nothing is known.
        seen: The last read, as it was.
        models: Single models with a state of their own: those of the last read, and those that the owner has noted
            since.
        read_at: Time of the last read, by the monotonic clock.
    """

    def __init__(
        self,
        store: Store,
        policy: Policy,
        by: str,
        *,
        evaluate: Evaluate | None = None,
        on_read: Callable[[Seen], None] = lambda _before: None,
        outlives: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.lock = asyncio.Lock()
        self.known: SharedState | None = None
        self.record: SharedState | None = None
        self.seen = Seen(None, clock(), {})
        self.models: Models = {}
        self.read_at = MonotonicTime(-math.inf)
        self._store = store
        self._policy = policy
        self._evaluate = evaluate or (lambda record, now: evaluation.evaluate(record, now=now, policy=policy, by=by))
        self._on_read = on_read
        self._outlives = outlives
        self._clock = clock
        self._offset_s: float | None = None

    @property
    def now(self) -> ServerTime:
        """Redis' clock by this process' monotonic one, so that jumps of the wall clock move no deadline."""
        return ServerTime(self._clock() if self._offset_s is None else time.monotonic() + self._offset_s)

    @property
    def round_trip_s(self) -> float:
        """How long Redis takes to answer, in seconds."""
        return self._store.round_trip_s

    def latest(self) -> Seen:
        """Return the last read, with the present time and the noted models."""
        return replace(self.seen, now=self.now, models=self.models)

    # -- what follows from a read -------------------------------------------------------------------------------

    def restored(self, record: SharedState | None, now: float) -> SharedState | None:
        """Return the lost state, if the record shows that Redis lost it."""
        return recovered(self.known or SharedState(), record, now, self._policy)

    def current(self, record: SharedState | None, now: float) -> SharedState | None:
        """Return the record that should replace it: with its due transitions, or the one that Redis has lost."""
        return self.restored(record, now) or (record and self._evaluate(record, now))

    def to_decide_on(self, record: SharedState | None, now: float) -> SharedState | None:
        """Return the record, or the one that Redis has lost."""
        known = self.restored(record, now) or record
        # The overwrite by an older writer comes first.
        return known if known is None or known.legacy_open is None else self._evaluate(known, now)

    def expired(self) -> SharedState | None:
        """Return the part of the known state that outlives it."""
        return self.known and replace(self.known, breaker=Closed())

    # -- the conversation ---------------------------------------------------------------------------------------

    async def read(self) -> None:
        """Read the state."""
        self._take(await self._store.read())

    async def settle(self, seen: Seen) -> None:
        """Take a read, and commit the transition that follows from it."""
        self._take(seen)
        await self.commit_due()

    async def commit_due(self) -> bool:
        """Commit the transition that follows from the last read, if any: the first process to see it does so."""
        seen = self.seen
        if self.current(seen.record, seen.now) in (None, seen.record):
            return False
        await self.commit(self.current, seen)
        return True

    async def commit(self, decide: Decide, seen: Seen | None = None) -> Seen:
        """Commit a decision, first on *seen*; without it, the state is read."""
        after = await self._store.change(decide, seen)
        self._take(after)
        return after

    async def count(self, batch: Batch, *, at: float) -> Counted:
        """Count a batch. The caller settles the state after it."""
        # After a loss the results count in the state that was lost.
        lost = self.current if self.restored(None, self.now) else None
        return await self._store.count(batch, at=at, lost=lost)

    async def permit(self, owner: str, *, renews: bool = False) -> bool:
        """Take one of the fleet's permits for *owner*, or renew its own, mostly in one round trip.

        An expired lease is not renewed: another worker may have the permit by now.
        """
        if not renews and await self._half_opened(owner):
            return True
        got, seen = await self._store.permit(owner, self.latest(), self._policy, renews=renews)
        self._take(seen)
        if got is None:
            after = await self.commit(partial(self.permitted, owner, renews=renews), seen)
            got = after.record is not None and trial_calls.holds_permit(after.record, owner)
        return got

    def permitted(
        self, owner: str, record: SharedState | None, now: float, *, renews: bool = False
    ) -> SharedState | None:
        """Return the record with a permit for *owner*; None if it cannot have one."""
        known = self.to_decide_on(record, now)
        if known is None or (renews and not trial_calls.holds_permit(known, owner)):
            return None
        return trial_calls.with_permit(known, owner, now=now, policy=self._policy)

    async def _half_opened(self, owner: str) -> bool:
        """Take the first permit, if the half-open state is not stored yet."""
        seen = self.latest()
        if seen.record is None or not isinstance(seen.record.breaker, Open):
            return False
        new = self.permitted(owner, seen.record, seen.now)
        done = new and await self._store.commit(seen, new)
        if done:
            self._take(seen.became(done))
        return bool(done)

    def _take(self, seen: Seen) -> None:
        with unreadable_errors(self._store.address):
            known = self.known
            # Lost parts are kept as they were: only a commit may give them a new epoch.
            if self.restored(seen.record, seen.now) is None:
                known = seen.record or (self.expired() if self._outlives else None)
            record = known and self._evaluate(known, seen.now)
        before, self.seen = self.seen, seen
        self.known, self.record, self.models = known, record, seen.models
        self._offset_s = seen.now - time.monotonic()
        self.read_at = monotonic()
        self._on_read(before)
