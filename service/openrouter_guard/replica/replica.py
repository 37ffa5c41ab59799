"""A server's copy of the shared state, pushed and polled: a request costs no round trip to Redis, and needs none."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace

from openrouter_guard.errors import StateUnreadable, StoreError, StoreUnavailable
from openrouter_guard.log_once import LogOnce
from openrouter_guard.rules import shared_state
from openrouter_guard.rules.breaker import Policy
from openrouter_guard.rules.models import Models
from openrouter_guard.rules.shared_state import SharedState
from openrouter_guard.store import Batch, Seen, Store
from openrouter_guard.store.store import Decide

from .pace import POLL_S, RETRY_S, pause
from .state_copy import StateCopy

__all__ = ["Replica", "Snapshot"]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot of the state.

    Attributes:
        record: The record with due transitions; None if nothing is known.
        now: Redis' clock, Unix seconds.
        models: Single models with a state of their own.
        error: The reason why the state cannot be read; None if it can.
    """

    record: SharedState | None
    now: float
    error: Exception | None = None
    models: Models = field(default_factory=dict)

    @property
    def is_degraded(self) -> bool:
        return self.error is not None

    @property
    def checked_at(self) -> float:
        return self.record.upstream.checked_at if self.record else 0.0


class Replica:
    """The last known state of one scope for a server, which answers from it whether Redis is there or not.

    It follows the state, and logs once when Redis goes away and when it is back.

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
        self._copy = StateCopy(store, policy, by, on_read=lambda _before: self._tell(), outlives=True, clock=clock)
        self._wake = asyncio.Event()
        self._news = asyncio.Event()
        scope = store.keys.scope
        self._reading = LogOnce("Redis is away, serving the last known state", "Redis is back", scope=scope)
        self._writing = LogOnce(
            "Redis accepts no changes of the state", "Redis accepts changes of the state again", scope=scope
        )
        self._pushing = LogOnce(
            "Redis pushes no changes, polling every second", "Redis pushes changes again", scope=scope
        )

    @property
    def now(self) -> float:
        """Redis' clock."""
        return self._copy.now

    @property
    def view(self) -> Snapshot:
        return Snapshot(self._copy.record, self.now, self._reading.error, self._copy.models)

    @property
    def stored(self) -> Snapshot:
        """The last read, without transitions that are due and that no process has committed yet."""
        return replace(self.view, record=self._copy.seen.record)

    async def news(self) -> None:
        """Wait for the next read of the state, or for its failure."""
        await self._news.wait()

    # -- following the state ------------------------------------------------------------------------------------

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
        await pause(RETRY_S)

    async def refresh(self) -> None:
        """Read the state, and commit the transition that follows from it; a failure is logged."""
        async with self._copy.lock:
            try:
                await self._copy.read()
            except StoreError as error:
                self._away(error)
                return
            self._reading.worked()
            with suppress(StoreError), self._logged():
                if await self._copy.commit_due():
                    self._writing.worked()

    # -- changing it --------------------------------------------------------------------------------------------

    async def change(self, decide: Decide) -> Seen:
        """Commit a decision.

        Raises:
            StoreError: If it was not committed; it has been logged.
        """
        async with self._copy.lock:
            with self._logged():
                seen = await self._copy.commit(decide)
        self._writing.worked()
        return seen

    async def count(self, batch: Batch) -> str:
        """Count a batch, and commit its consequences; return the outcome, as in :class:`Counted`.

        Raises:
            StoreError: If the outcome is uncertain; it has been logged.
        """
        async with self._copy.lock:
            with self._logged():
                counted = await self._copy.count(batch, at=self.now)
                await self._copy.settle(counted.seen)
        return counted.verdict

    async def permit(self, owner: str, *, renews: bool = False) -> bool:
        """Take one of the fleet's permits for *owner*, or renew its own; False if it has none then.

        Raises:
            StoreError: If Redis does not answer; it has been logged.
        """
        async with self._copy.lock:
            with self._logged():
                return await self._copy.permit(owner, renews=renews)

    def base(self, record: SharedState | None, now: float) -> SharedState:
        """Return the record to decide on: with due transitions, or what was known of a lost one, or a fresh one."""
        current = self._copy.current(record, now)
        if current is not None:
            return current
        known = self._copy.expired()
        return replace(known, epoch=shared_state.next_epoch(known.epoch, now)) if known else shared_state.fresh(now)

    @contextmanager
    def _logged(self) -> Iterator[None]:
        """Log why Redis did not take a change."""
        try:
            yield
        except (StoreUnavailable, StateUnreadable) as error:
            self._away(error)
            raise
        except StoreError as error:
            self._writing.failed(error)
            raise

    def _away(self, error: StoreError) -> None:
        self._reading.failed(error)
        self._tell()

    def _tell(self) -> None:
        self.version += 1
        self._news.set()
        self._news = asyncio.Event()
