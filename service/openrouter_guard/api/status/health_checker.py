"""Health checks: one a minute for the whole fleet, one at a time in this process, however many requests want one."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial

from openrouter_guard.background import cancelled
from openrouter_guard.errors import StoreError
from openrouter_guard.replica import Replica
from openrouter_guard.rules.breaker import Closed
from openrouter_guard.rules.health_checks import CHECKER_PREFIX, after_check, is_checks_only, with_check_slot
from openrouter_guard.rules.shared_state import SharedState
from openrouter_guard.rules.signals import Effect, ErrorType
from openrouter_guard.settings import Thresholds
from openrouter_guard.store import Batch
from openrouter_guard.tracing import span
from openrouter_guard.upstream import NO_KEY, CheckResult, OpenRouter

from .freshness import GRACE_S, CheckAvailability, check_availability, is_known

__all__ = ["HealthChecker"]

logger = logging.getLogger(__name__)


class HealthChecker:
    """Makes this process' share of the fleet's health checks.

    Args:
        on_check: Called after each check with its result and its duration in seconds.
        scope: Scope in the spans of the checks.
    """

    def __init__(
        self,
        replica: Replica,
        upstream: OpenRouter,
        thresholds: Thresholds,
        on_check: Callable[[CheckResult, float], None],
        scope: str,
    ) -> None:
        self._scope = scope
        self._replica = replica
        self._upstream = upstream
        self._thresholds = thresholds
        self._on_check = on_check
        self._reporter = CHECKER_PREFIX + secrets.token_hex(4)
        self._seq = 0
        self._running: asyncio.Task[None] | None = None

    @property
    def check_availability(self) -> CheckAvailability:
        view = self._replica.view
        found = check_availability(view.record, view.now, is_away=view.is_degraded, thresholds=self._thresholds)
        # Without a key no check is possible; once that is stored, there is nothing to add.
        is_mute = found is CheckAvailability.FREE and not self.has_key and is_known(view.record)
        return CheckAvailability.NONE if is_mute else found

    @property
    def has_key(self) -> bool:
        """Whether checks are possible; without a key this process takes no slot and overwrites no result."""
        return self._upstream.has_key

    def start(self) -> asyncio.Task[None]:
        """Make a check if the slot is free, or join the running one."""
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._refresh())
        return self._running

    async def answer(self) -> None:
        """Wait for an available check; return without one if none comes in time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._thresholds.check_timeout_s + 2 * GRACE_S):
                if self.check_availability is CheckAvailability.FREE or self._is_running:
                    await asyncio.shield(self.start())
                while self.check_availability is CheckAvailability.OUT:
                    await self._replica.news()

    async def stop(self) -> None:
        if self._running is not None:
            await cancelled(self._running)

    @property
    def _is_running(self) -> bool:
        return self._running is not None and not self._running.done()

    async def _refresh(self) -> None:
        try:
            if self.has_key:
                await self._check()
            else:
                await self._replica.change(self._without_key)
        except StoreError:
            return  # the replica has logged it once; the slot expires
        except Exception:
            logger.exception("unexpected error in a health check")

    async def _check(self) -> None:
        reserved = await self._reserve()
        if reserved is not None:
            began_at, at = time.monotonic(), self._replica.now
            with span("health_check", scope=self._scope, epoch=reserved.epoch) as told:
                finding = await self._upstream.check(at)
                told.set(state=finding.state.value)
            self._on_check(finding, time.monotonic() - began_at)
            await self._commit(finding, reserved.epoch, at)

    def _without_key(self, record: SharedState | None, now: float) -> SharedState | None:
        """Store that there is no key, if no state exists yet."""
        base = self._replica.base(record, now)
        told = replace(NO_KEY.upstream(now), checked_at=0.0, amounts_at=0.0)
        return None if is_known(base) else replace(base, upstream=told)

    async def _reserve(self) -> SharedState | None:
        """Return the record with the fleet's slot taken, or None if another process has it."""
        is_ours = False

        def decide(record: SharedState | None, now: float) -> SharedState | None:
            nonlocal is_ours
            base = self._replica.base(record, now)
            slot_s, policy = self._thresholds.check_slot_s, self._replica.policy
            reserved = with_check_slot(base, now=now, slot_s=slot_s, policy=policy)
            is_ours = reserved is not None
            return reserved

        seen = await self._replica.change(decide)
        return seen.record if is_ours else None

    async def _commit(self, finding: CheckResult, epoch: int, began_at: float) -> None:
        seen = await self._replica.change(partial(self._after, finding, began_at))
        runs = _runs(finding, seen.record)
        if runs:
            self._seq += 1
            await self._replica.count(Batch(epoch, self._reporter, self._seq, runs))

    def _after(self, finding: CheckResult, began_at: float, record: SharedState | None, now: float) -> SharedState:
        base = self._replica.base(record, now)
        seen = finding.upstream(now)
        policy, by = self._replica.policy, self._replica.by
        return after_check(base, seen, now=now, policy=policy, by=by, began_at=began_at, reporter=self._reporter)


def _runs(finding: CheckResult, record: SharedState | None) -> Sequence[tuple[str, int]]:
    """Return the effect of a check: a failure counts as one; a success only ends failures that checks alone saw."""
    if finding.signal.error_type is ErrorType.CREDITS_EXHAUSTED:
        return (("C", 1),)
    if finding.signal.effect is Effect.FAILURE:
        return (("F", 1),)
    breaker = record.breaker if record else Closed()
    ends = isinstance(breaker, Closed) and breaker.failures > 0 and is_checks_only(breaker)
    return (("S", 1),) if ends and finding.signal.effect is Effect.SUCCESS else ()
