"""The health service without HTTP: the cache, health checks and counters of one scope, and their lifetime."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial

from openrouter_guard.api.http.open_requests import OpenRequests
from openrouter_guard.api.schemas.status import MetricsAnswer, StatusAnswer
from openrouter_guard.api.stats.counters import DayCounters
from openrouter_guard.api.stats.error_rate_alert import ErrorRateAlert
from openrouter_guard.api.stats.figures import WINDOWS, metrics_answer
from openrouter_guard.api.stats.reader import CounterReader
from openrouter_guard.api.stats.spending import Spending
from openrouter_guard.api.status.answer import status_answer
from openrouter_guard.api.status.freshness import (
    CheckAvailability,
    FleetHealth,
    Plan,
    adapted,
    age_s,
    fleet_health,
    is_due,
    plan,
    told_age_s,
)
from openrouter_guard.api.status.health_checker import HealthChecker
from openrouter_guard.api.telemetry.registry import Telemetry
from openrouter_guard.api.telemetry.shared_state import ScopeSource
from openrouter_guard.background import Background
from openrouter_guard.errors import OpenRouterGuardError, StoreError
from openrouter_guard.log_once import LogOnce
from openrouter_guard.replica import Replica, Snapshot
from openrouter_guard.rules import limits, time_in_state
from openrouter_guard.rules.admission import fleet_refusal
from openrouter_guard.rules.health_checks import is_recheck_due, wants_check
from openrouter_guard.rules.refusal import Refusal
from openrouter_guard.rules.shared_state import SharedState
from openrouter_guard.rules.signals import OpenRouterState
from openrouter_guard.settings import Settings
from openrouter_guard.store import Store, Timeouts
from openrouter_guard.upstream import CheckResult, OpenRouter, Transport

from .event_stream import EventStream
from .permits import Permits
from .read_cache import ReadCache
from .reports import Reports
from .transition_log import TransitionLog
from .webhook import Webhook

__all__ = ["Service"]

logger = logging.getLogger(__name__)

FLUSH_S = 1.0
RECKON_S = 10.0
ERRORS_READ = 1000


class Service:
    """The interface for the routes.

    Raises:
        ConfigurationError: On creation, if an address or the scope cannot be used.
    """

    def __init__(
        self,
        settings: Settings,
        transport: Transport | None = None,
        telemetry: Telemetry | None = None,
        open_requests: OpenRequests | None = None,
    ) -> None:
        timeouts = Timeouts(settings.redis_timeout_s, settings.redis_timeout_s)
        self.settings = settings
        self._thresholds = settings.thresholds
        self._store = Store(settings.redis, settings.scope, timeouts)
        self._upstream = OpenRouter(
            settings.base_url,
            settings.api_key,
            timeout_s=self._thresholds.check_timeout_s,
            management_key=settings.management_key,
            health_urls=settings.health_urls,
            transport=transport,
        )
        self._replica = Replica(self._store, settings.policy, by=settings.worker_id or _name())
        self._health_checker = HealthChecker(
            self._replica, self._upstream, self._thresholds, self._checked, settings.scope
        )
        self._counters = DayCounters()
        scope = settings.scope
        self._account = LogOnce(
            "The account's credit is not known", "The account's credit is known again", scope=scope
        )
        self._counting = LogOnce("Redis accepts no metrics, they wait", "Redis accepts metrics again", scope=scope)
        self._counter_reader = CounterReader(self._store)
        self._spending = Spending()
        self._alarm = ErrorRateAlert(self._store, self._thresholds, self._replica.by, self._alarmed)
        self.telemetry = telemetry or Telemetry()
        self._told = self.telemetry.of(
            ScopeSource(
                settings,
                lambda: self._replica.view,
                lambda: self._counter_reader.figures,
                self._spending.seconds_to_empty,
            )
        )
        self._journal = TransitionLog(scope, settings.policy, self._told.changed)
        self._webhook = (
            Webhook(settings, self._store, lambda: self._replica.stored, count=self._told.sent)
            if settings.webhook_url
            else None
        )
        self.reports = Reports(self._replica, self._store)
        self.permits = Permits(self._replica, self.reports)
        self.recent = ReadCache()
        self.open_requests = open_requests or OpenRequests(settings.thresholds.max_streams)
        self.events = EventStream(self._replica.news, lambda: self._replica.view, self._as_event, self.open_requests)
        self._background = Background()
        self._is_stopping = False
        self.last_answer: StatusAnswer | None = None

    # -- what is asked ------------------------------------------------------------------------------------------

    async def status(self, *, force: bool) -> StatusAnswer:
        """Return the state of the upstream; *force* makes a check if one is allowed."""
        checked_before = self._replica.view.checked_at
        match self._plan(force=force):
            case Plan.WAIT:
                await self._health_checker.answer()
            case Plan.REVALIDATE:
                self._health_checker.start()
        view = self._replica.view
        answer = status_answer(view, self._settings, is_live=view.checked_at != checked_before)
        self.last_answer = answer
        self.count(answer)
        return answer

    def count(self, answer: StatusAnswer) -> None:
        """Count an answer, including a repeated one."""
        self._counters.answered(is_hit=answer.cache_hit)
        self._told.answered(answer.source)

    @property
    def version(self) -> int:
        """Changes with each read of the shared state."""
        return self._replica.version

    @property
    def only_reads(self) -> bool:
        """Whether a plain status request would be answered from memory without starting a check."""
        return self._plan(force=False) is Plan.CACHED

    def _plan(self, *, force: bool) -> Plan:
        thresholds = adapted(self._fleet_health, thresholds=self._thresholds)
        view = self._replica.view
        told_s = told_age_s(view.record, view.now, thresholds=thresholds)
        return plan(
            self._age_s,
            self._health_checker.check_availability,
            force=force,
            thresholds=thresholds,
            told_age_s=told_s,
        )

    @property
    def _fleet_health(self) -> FleetHealth:
        record = self._replica.view.record
        failures = record.breaker.failures if record else 0
        figures = self._counter_reader.figures
        calls, failed = (figures.calls, figures.failed) if figures else (0, 0)
        return fleet_health(failures, calls, failed, thresholds=self._thresholds)

    @property
    def _settings(self) -> Settings:
        """Uses the current thresholds."""
        thresholds = adapted(self._fleet_health, thresholds=self._thresholds)
        return self.settings if thresholds is self._thresholds else replace(self.settings, thresholds=thresholds)

    async def metrics(self, days: int) -> MetricsAnswer:
        """Return the fleet's metrics of the last *days* UTC days.

        Raises:
            StoreError: If Redis cannot be read.
        """
        now, store = self._replica.now, self._store
        counters, in_state, errors = await asyncio.gather(
            store.metrics(days, now),
            store.time_in_state(max(WINDOWS), now),
            store.worker_errors(ERRORS_READ, now=now),
        )
        return metrics_answer(counters, in_state, errors, days=days, now=now)

    @property
    def view(self) -> Snapshot:
        """The current snapshot."""
        return self._replica.view

    @property
    def refusal(self) -> Refusal | None:
        """The refusal of all calls; None if they may go."""
        view = self._replica.view
        return None if view.record is None else fleet_refusal(view.record, view.now)

    @property
    def store(self) -> Store:
        """For data that is read for each request, and not cached."""
        return self._store

    @property
    def cache(self) -> Replica:
        """For changes."""
        return self._replica

    @property
    def now(self) -> float:
        return self._replica.now

    @property
    def is_ready(self) -> bool:
        return self._background.is_running and not self._is_stopping

    def stalled(self) -> list[str]:
        """The parts of this process that make no progress."""
        return self._background.stalled()

    # -- life ---------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Read the state once, within a time limit, so that the first request finds it; then keep reading."""
        await self._replica.refresh()
        if self._replica.view.is_degraded:
            words = "scope %s: waiting for Redis: until it answers, nothing is known and the gate lets calls go"
            logger.warning(words, self.settings.scope)
        self._journal.look(self._replica.view)
        self._background.start("cache", self._follow)
        self._background.start("pushes", self._replica.listen, waits=True)
        self._background.start("counters", self._flush)
        self._background.start("figures", self._reckon)
        if self._webhook:
            self._background.start("transitions", partial(self._tell, self._webhook))
            self._background.start("webhook", self._webhook.send, waits=True)
        self._background.start("events", self.events.follow)

    def drain(self) -> None:
        """Prepare for the shutdown: accept no new requests and end open ones, because the server waits for them."""
        self._is_stopping = True
        self.events.close()

    async def stop(self) -> None:
        self.drain()
        await self._background.stop()
        await self._health_checker.stop()
        await self.recent.stop()
        with suppress(StoreError):
            if not self._replica.view.is_degraded:
                await self._counters.flush(self._store, self._replica.now)
        if self._webhook:
            await self._webhook.close()
        await self._upstream.close()
        await self._store.close()

    def _as_event(self, view: Snapshot) -> str:
        return status_answer(view, self._settings, is_live=False).model_dump_json()

    async def _follow(self) -> None:
        await self._replica.follow()
        self._journal.look(self._replica.view)
        if self._is_due(self._replica.view):
            self._health_checker.start()

    def _is_due(self, view: Snapshot) -> bool:
        """Return whether to check without a request."""
        if not self._health_checker.has_key:
            return self._health_checker.check_availability is CheckAvailability.FREE
        record, now, policy = view.record or SharedState(), view.now, self.settings.policy
        if is_recheck_due(record, now=now, policy=policy, slot_s=self._thresholds.check_slot_s):
            return not view.is_degraded
        how = self._fleet_health
        thresholds = adapted(how, thresholds=self._thresholds)
        is_old = is_due(self._age_s, record.phase(now), thresholds=thresholds, fleet_health=how)
        is_asked = wants_check(record, now=now, policy=policy) or limits.wants_check(record, now)
        is_wanted = is_old or is_asked
        return is_wanted and self._health_checker.check_availability is CheckAvailability.FREE

    async def _flush(self) -> None:
        await asyncio.sleep(FLUSH_S)
        if self._replica.view.is_degraded:
            return
        try:
            await self._counters.flush(self._store, self._replica.now)
            await self._keep_time()
        except StoreError as error:
            self._counting.failed(error)
        else:
            self._counting.worked()

    async def _reckon(self) -> None:
        view = self._replica.view
        if view.record is not None:
            self._spending.saw(view.record.upstream.balance, view.record.upstream.amounts_at)
        if not view.is_degraded:
            with suppress(StoreError):  # the cache's own read logs it
                await self._alarm.look(await self._counter_reader.read(view.now), view)
        await asyncio.sleep(RECKON_S)

    async def _tell(self, webhook: Webhook) -> None:
        await webhook.look()
        await self._replica.news()

    def _alarmed(self, entry: Mapping[str, str]) -> None:
        if self._webhook:
            self._webhook.alarm(entry)

    async def _keep_time(self) -> None:
        record = self._replica.view.record
        if record is not None and time_in_state.is_due(record, self._replica.now):
            await self._store.keep_time()

    @property
    def _age_s(self) -> float | None:
        view = self._replica.view
        return age_s(view.record, view.now, thresholds=self._thresholds)

    def _checked(self, finding: CheckResult, seconds: float) -> None:
        self._counters.checked(is_good=finding.state is OpenRouterState.ACTIVE)
        self._told.checked(finding.state, seconds)
        if finding.account_error:
            self._account.failed(OpenRouterGuardError(finding.account_error))
        else:
            self._account.worked()


def _name() -> str:
    return f"service-{socket.gethostname()}-{os.getpid()}"
