"""Commits decisions on the shared state in the background, one after the other."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from openrouter_guard.errors import StoreError
from openrouter_guard.replica.state_copy import StateCopy
from openrouter_guard.rules import health_checks, shared_state, trial_calls
from openrouter_guard.rules.breaker import Policy
from openrouter_guard.rules.shared_state import SharedState
from openrouter_guard.rules.signals import Signal
from openrouter_guard.store.store import Decide

from .offline import Offline

__all__ = ["Decisions"]


class Decisions:
    """The decisions of one reporter.

    Args:
        state: Commits them.
        offline: Decides while Redis is away.
        note_away: Called if Redis does not accept one.
        policy: The settings of the rules.
        by: Name for the decisions.
    """

    def __init__(
        self,
        state: StateCopy,
        offline: Offline,
        note_away: Callable[[StoreError], None],
        policy: Policy,
        by: str,
    ) -> None:
        self._state = state
        self._offline = offline
        self._note_away = note_away
        self._policy = policy
        self._by = by
        self._errands: set[asyncio.Task[None]] = set()
        self._later: dict[str, Callable[[], None]] = {}

    def after_trial(self, signal: Signal, owner: str, took_s: float) -> None:
        """Commit the result of *owner*'s trial call; 0 s: its duration is unknown."""

        def decide(record: SharedState | None, now: float) -> SharedState | None:
            known = self._state.to_decide_on(record, now)
            return known and trial_calls.after_trial(
                known, signal, owner, now=now, policy=self._policy, took_s=took_s
            )

        if self._offline.active and self._offline.decide(decide):
            # A permit granted by this process alone: Redis may answer, but does not know of it.
            return
        # The permit guards it, so the last read of the fleet is enough if it includes the permit.
        read = self._state.seen.record
        self._soon(decide, is_direct=read is not None and owner in read.breaker.permits)

    def doubted(self, signal: Signal) -> None:
        """Commit a call's doubt about the key or the credit, so that a health check confirms it."""

        def decide(record: SharedState | None, now: float) -> SharedState | None:
            known = self._state.to_decide_on(record, now)
            return known and health_checks.doubted(known, signal, now=now, policy=self._policy, by=self._by)

        self._soon(decide)
        if self._offline.in_callers:
            self._later[f"doubt {signal.error_type}"] = partial(self.doubted, signal)

    def limited(self, signal: Signal, *, by: str) -> None:
        """Commit the platform's rate limit, reported by the reporter *by*."""

        def decide(record: SharedState | None, now: float) -> SharedState:
            known = self._state.to_decide_on(record, now) or shared_state.fresh(now)
            return trial_calls.limited(known, signal, now, by=by)

        self._soon(decide)
        if self._offline.in_callers:
            self._later["limit"] = partial(self._limited_at, time.monotonic(), signal, by)

    def _limited_at(self, at: float, signal: Signal, by: str) -> None:
        left_s = (signal.wait_s or 0.0) - (time.monotonic() - at)
        if left_s > 0:
            self.limited(replace(signal, wait_s=left_s), by=by)

    def come_back(self) -> None:
        """Decide in the background again. Commit the limits and doubts that callers could only note without one."""
        self._offline.comes_back()
        later, self._later = self._later, {}
        for commit in later.values():
            commit()

    async def done(self) -> None:
        """Wait for those that have begun."""
        if self._errands:
            # A caller that stops waiting must not stop them.
            await asyncio.wait(self._errands)

    def _soon(self, decide: Decide, *, is_direct: bool = False) -> None:
        """Commit one in the background; if *is_direct*, decide first on the last read."""
        if self._offline.in_callers:
            self._offline.decide(decide)
            return
        errand = asyncio.create_task(self._decide(decide, is_direct=is_direct))
        self._errands.add(errand)
        errand.add_done_callback(self._errands.discard)

    async def _decide(self, decide: Decide, *, is_direct: bool) -> None:
        try:
            async with self._state.lock:
                await self._state.commit(decide, self._state.latest() if is_direct else None)
        except StoreError as error:
            self._note_away(error)
            self._offline.decide(decide)
