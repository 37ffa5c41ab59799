"""The metrics for Prometheus: the shared state as this process knows it, and this process' own counters."""

from __future__ import annotations

import platform
from functools import partial

from prometheus_client import CollectorRegistry, Counter, GCCollector, Histogram, Info, ProcessCollector
from prometheus_client.exposition import choose_encoder

from openrouter_guard.api.schemas.status import Source
from openrouter_guard.rules.breaker import BreakerState
from openrouter_guard.rules.signals import ErrorType, OpenRouterState
from openrouter_guard.version import package_version

from . import shared_state
from .http_requests import HttpRequests
from .shared_state import PREFIX, SharedStateCollector

__all__ = ["ScopeTelemetry", "Telemetry"]

_RESULTS = {True: "sent", False: "dropped"}
_CHECK_BUCKETS_S = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Telemetry:
    """The metrics of one app, in a registry of its own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        labels = ["scope"]
        self.checks = Counter(
            f"{PREFIX}_upstream_checks",
            "Health checks of OpenRouter by this process",
            [*labels, "result"],
            registry=self._registry,
        )
        self.check_times = Histogram(
            f"{PREFIX}_upstream_check_duration_seconds",
            "How long health checks of OpenRouter took",
            labels,
            registry=self._registry,
            buckets=_CHECK_BUCKETS_S,
        )
        self.answers = Counter(
            f"{PREFIX}_status_answers", "Answers of the status request", [*labels, "source"], registry=self._registry
        )
        self.transitions = Counter(
            f"{PREFIX}_transitions",
            "Changes of the breaker that this process has seen",
            [*labels, "from", "to", "reason"],
            registry=self._registry,
        )
        self.webhook_events = Counter(
            f"{PREFIX}_webhook_events", "Events of the webhook", [*labels, "result"], registry=self._registry
        )
        self._requests = HttpRequests(PREFIX)
        self._shared = SharedStateCollector()
        build = Info(f"{PREFIX}_build", "The running version", registry=self._registry)
        build.info({"version": package_version(), "python": platform.python_version()})
        self._registry.register(self._requests)
        self._registry.register(self._shared)
        ProcessCollector(registry=self._registry)
        GCCollector(registry=self._registry)

    def of(self, source: shared_state.ScopeSource) -> ScopeTelemetry:
        """Return the counters of one scope, whose shared state is scraped from now on."""
        self._shared.sources.append(source)
        return ScopeTelemetry(self, source.scope)

    def requested(self, route: str, status_code: int, seconds: float) -> None:
        self._requests.answered(route, status_code, seconds)

    def render(self, accept: str) -> tuple[bytes, str]:
        """Return the metrics in the format that the ``Accept`` header asks for, and its content type."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type


class ScopeTelemetry:
    """The counters of one scope.

    The label is looked up once rather than at each answer, where it might cost most of the time.
    """

    def __init__(self, telemetry: Telemetry, scope: str) -> None:
        self._checks = {state: telemetry.checks.labels(scope, state.value) for state in OpenRouterState}
        self._check_times = telemetry.check_times.labels(scope)
        self._answers = {source: telemetry.answers.labels(scope, source.value) for source in Source}
        self._webhook = {is_sent: telemetry.webhook_events.labels(scope, name) for is_sent, name in _RESULTS.items()}
        self._transitions = partial(telemetry.transitions.labels, scope)
        # Prometheus sees no increase in a series that begins with 1.
        for reason in {error.value for error in (*ErrorType, *OpenRouterState)} - {OpenRouterState.ACTIVE.value}:
            self._transitions(BreakerState.CLOSED.value, BreakerState.OPEN.value, reason)

    def checked(self, state: OpenRouterState, seconds: float) -> None:
        self._checks[state].inc()
        self._check_times.observe(seconds)

    def changed(self, before: BreakerState, after: BreakerState, reason: str) -> None:
        """Count a change of the breaker."""
        self._transitions(before.value, after.value, shared_state.reason_label(reason)).inc()

    def sent(self, is_sent: bool) -> None:
        """Count an event of the webhook: sent, or dropped."""
        self._webhook[is_sent].inc()

    def answered(self, source: Source) -> None:
        self._answers[source].inc()
