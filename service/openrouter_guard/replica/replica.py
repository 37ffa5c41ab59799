"""This process' copy of the shared state: pushed and polled, so that a request costs no round trip to Redis."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace

from openrouter_guard.errors import StateUnreadable, StoreError, StoreUnavailable
from openrouter_guard.log_once import LogOnce
from openrouter_guard.rules import evaluation, shared_state, trial_calls
from openrouter_guard.rules.breaker import Closed, Policy
from openrouter_guard.rules.loss import recovered
from openrouter_guard.rules.models import Models
from openrouter_guard.rules.shared_state import SharedState
from openrouter_guard.store import Batch, Seen, Store
from openrouter_guard.store.store import Decide
from openrouter_guard.unreadable import unreadable_errors

__all__ = ["Replica", "Snapshot"]

POLL_S = (0.5, 1.0)
"""Time between two reads of the state, in case a push was lost; jittered, so that replicas do not read in step."""
RETRY_S = (0.1, 1.0)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot of the state.

    Attributes:
        record: The record with due transitions; None if nothing is known.
        now_s: Redis' clock, Unix seconds.
        models: Single models with a state of their own.
        error: The reason why the state cannot be read; None if it can.
    """

    record: SharedState | None
    now_s: float
    error: Exception | None = None
    models: Models = field(default_factory=dict)

    @property
    def is_degraded(self) -> bool:
        return self.error is not None

    @property
    def checked_s(self) -> float:
        return self.record.upstream.checked_s if self.record else 0.0


class Replica:
    """The last known state of one scope, and this process' only way to change it.

    Args:
        store: Holds the state.
        policy: The settings of the rules.
        by: Name of this process in the history.
        clock: Unix seconds, as long as Redis' clock is unknown.

    Attributes:
        policy: The settings of the rules.
        by: Name of this process in the history.
        version: Changes with each read of the state, whatever the result.
    """

    def __init__(self, store: Store, policy: Policy, by: str, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self.policy = policy
        self.by = by
        self.version = 0
        self._known: SharedState | None = None
        self._shown: SharedState | None = None
        self._models: Models = {}
        self._clock = clock
        self._offset_s: float | None = None
        self._wake = asyncio.Event()
        self._news = asyncio.Event()
        # One conversation at a time, so that an older answer never replaces a newer one.
        self._lock = asyncio.Lock()
        scope = store.keys.scope
        self._reading = LogOnce("Redis is away, serving the last known state", "Redis is back", scope=scope)
        self._writing = LogOnce(
            "Redis accepts no changes of the state", "Redis accepts changes of the state again", scope=scope
        )
        self._pushing = LogOnce(
            "Redis pushes no changes, polling every second", "Redis pushes changes again", scope=scope
        )

    @property
    def now_s(self) -> float:
        """Redis' clock by this process' monotonic one, so that jumps of the wall clock move no deadline."""
        return self._clock() if self._offset_s is None else time.monotonic() + self._offset_s

    @property
    def view(self) -> Snapshot:
        return Snapshot(self._shown, self.now_s, self._reading.error, self._models)

    async def news(self) -> None:
        """Wait for the next read of the state, or for its failure."""
        await self._news.wait()

    # -- what the loops do --------------------------------------------------------------------------------------

    async def follow(self) -> None:
        """Read the state once: at a push, or after a moment."""
        with suppress(TimeoutError):
            async with asyncio.timeout(random.uniform(*POLL_S)):  # noqa: S311  jitter, not a secret
                await self._wake.wait()
        self._wake.clear()
        await self.refresh()

    async def listen(self) -> None:
        """Receive pushes until the connection ends, then wait a moment."""
        try:
            async for _ in self._store.listen():
                self._pushing.worked()
                self._wake.set()
        except StoreUnavailable:
            pass  # the polls notice too, and log it
        except StoreError as error:
            if self._reading.error is None:  # otherwise the polls have logged the reason
                self._pushing.failed(error)
        await asyncio.sleep(random.uniform(*RETRY_S))  # noqa: S311  jitter, not a secret

    async def refresh(self) -> None:
        async with self._lock:
            try:
                seen = await self._store.read()
                self._adopt(seen)
            except StoreError as error:
                self.away(error)
                return
            self._reading.worked()
            with suppress(StoreError):
                await self._commit_what_follows(seen)

    # -- changing it --------------------------------------------------------------------------------------------

    async def change(self, decide: Decide) -> Seen:
        """Commit a decision.

        Raises:
            StoreError: If it was not committed; it has been logged.
        """
        async with self._lock:
            return await self._change(decide)

    async def count(self, batch: Batch) -> str:
        """Count a batch, and commit its consequences; return the outcome, as in :class:`Counted`.

        Raises:
            StoreError: If the outcome is uncertain; it has been logged.
        """
        async with self._lock:
            try:
                lost = self._current if self._restored(None, self.now_s) else None
                counted = await self._store.count(batch, at_s=self.now_s, lost=lost)
                self._adopt(counted.seen)
            except StoreError as error:
                self._not_written(error)
                raise
            await self._commit_what_follows(counted.seen)
        return counted.verdict

    async def permit(self, owner: str, *, renews: bool = False) -> bool:
        """Take one of the fleet's permits for *owner*, or renew its own; False if it has none then.

        Raises:
            StoreError: If Redis does not answer; it has been logged.
        """

        def permitted(record: SharedState | None, now_s: float) -> SharedState | None:
            known = self._current(record, now_s)
            if known is None or (renews and not trial_calls.holds_permit(known, owner)):
                return None
            return trial_calls.with_permit(known, owner, now_s=now_s, policy=self.policy)

        async with self._lock:
            known = Seen(self._known, self.now_s, {}, self._models)
            try:
                got, seen = await self._store.permit(owner, known, self.policy, renews=renews)
                self._adopt(seen)
            except StoreError as error:
                self._not_written(error)
                raise
            if got is None:
                after = await self._change(permitted)
                got = after.record is not None and trial_calls.holds_permit(after.record, owner)
            return got

    def base(self, record: SharedState | None, now_s: float) -> SharedState:
        """Return the record to decide on: with due transitions, or what was known of a lost one, or a fresh one."""
        current = self._current(record, now_s)
        if current is not None:
            return current
        known = self._without_count()
        return (
            replace(known, epoch=shared_state.next_epoch(known.epoch, now_s)) if known else shared_state.fresh(now_s)
        )

    def away(self, error: StoreError) -> None:
        self._reading.failed(error)
        self._tell()

    async def _commit_what_follows(self, seen: Seen) -> None:
        """The first process to see a due transition commits it."""
        if self._current(seen.record, seen.now_s) not in (None, seen.record):
            await self._change(self._current)

    async def _change(self, decide: Decide) -> Seen:
        try:
            seen = await self._store.change(decide)
            self._adopt(seen)
        except StoreError as error:
            self._not_written(error)
            raise
        self._writing.worked()
        return seen

    def _not_written(self, error: StoreError) -> None:
        if isinstance(error, StoreUnavailable | StateUnreadable):
            self.away(error)
        else:
            self._writing.failed(error)

    def _current(self, record: SharedState | None, now_s: float) -> SharedState | None:
        restored = self._restored(record, now_s)
        return restored or (record and self._settled(record, now_s))

    def _restored(self, record: SharedState | None, now_s: float) -> SharedState | None:
        return recovered(self._known or SharedState(), record, now_s, self.policy)

    def _settled(self, record: SharedState, now_s: float) -> SharedState:
        return evaluation.evaluate(record, now_s=now_s, policy=self.policy, by=self.by)

    def _adopt(self, seen: Seen) -> None:
        with unreadable_errors(self._store.address):
            # Lost parts are kept as they were: only a commit may give them a new epoch.
            is_lost = self._restored(seen.record, seen.now_s) is not None
            known = self._known if is_lost else seen.record or self._without_count()
            shown = known and self._settled(known, seen.now_s)
        self._known, self._shown, self._models = known, shown, seen.models
        self._offset_s = seen.now_s - time.monotonic()
        self._tell()

    def _without_count(self) -> SharedState | None:
        return self._known and replace(self._known, breaker=Closed())

    def _tell(self) -> None:
        self.version += 1
        self._news.set()
        self._news = asyncio.Event()
