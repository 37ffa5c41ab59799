"""What Prometheus scrapes: the shared state as this process knows it, and this process' own counters."""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version

from prometheus_client import CollectorRegistry, Counter, Info, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from openrouter_guard.rules.breaker import Phase
from openrouter_guard.rules.record import Record
from openrouter_guard.rules.signals import OpenRouterState
from openrouter_guard.runtime import View
from openrouter_guard.settings import Thresholds

from .requests import Requests
from .serving import Source, age_s

__all__ = ["Telemetry", "package_version"]

_PREFIX = "openrouter_guard"


class Telemetry:
    """The metrics of one app, in a registry of its own."""

    def __init__(self, view: Callable[[], View], thresholds: Thresholds) -> None:
        self._registry = CollectorRegistry()
        self._checks = self._counter("upstream_checks", "Health checks of OpenRouter by this process", "result")
        answers = self._counter("status_answers", "Answers of the status request", "source")
        # A label is looked up once and not at each answer, which may be all of an answer's work.
        self._answers = {source: answers.labels(source.value) for source in Source}
        self._requests = Requests(_PREFIX)
        self._registry.register(self._requests)
        for state in OpenRouterState:
            self._checks.labels(state.value)
        build = Info(f"{_PREFIX}_build", "The running version", registry=self._registry)
        build.info({"version": package_version(), "python": platform.python_version()})
        self._registry.register(_State(view, thresholds))
        ProcessCollector(registry=self._registry)

    def checked(self, state: OpenRouterState) -> None:
        self._checks.labels(state.value).inc()

    def answered(self, source: Source) -> None:
        self._answers[source].inc()

    def requested(self, route: str, status_code: int, seconds: float) -> None:
        self._requests.answered(route, status_code, seconds)

    def render(self, accept: str) -> tuple[bytes, str]:
        """The metrics in the form that the ``Accept`` header asks for, and its content type."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type

    def _counter(self, name: str, about: str, *labels: str) -> Counter:
        return Counter(f"{_PREFIX}_{name}", about, labels, registry=self._registry)


class _State(Collector):
    """The shared state at the moment of the scrape; NaN while the store cannot be read."""

    def __init__(self, view: Callable[[], View], thresholds: Thresholds) -> None:
        self._view = view
        self._thresholds = thresholds

    def collect(self) -> Iterator[GaugeMetricFamily]:
        view = self._view()
        record = view.record or Record()
        known = not view.is_degraded
        age = age_s(view.record, view.now_s, thresholds=self._thresholds)
        yield _phases(record.phase(view.now_s) if known else None)
        yield _gauge("consecutive_failures", "Of the fleet", record.breaker.failures if known else None)
        yield _gauge("balance_usd", "What is left of the key's limit", record.upstream.balance if known else None)
        yield _gauge("epoch", "Number of the breaker's current state", record.epoch if known else None)
        yield _gauge("state_age_seconds", "Since the last health check, by whichever replica", age)
        yield _gauge("store_up", "Whether Redis can be read", 1 if known else 0)


def _phases(current: Phase | None) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"{_PREFIX}_breaker_state", "1 for the state that the breaker is in", labels=["state"])
    for phase in Phase:
        family.add_metric([phase.value], math.nan if current is None else float(phase is current))
    return family


def _gauge(name: str, about: str, value: float | None) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"{_PREFIX}_{name}", about, value=math.nan if value is None else value)


def package_version() -> str:
    try:
        return version("openrouter-guard")
    except PackageNotFoundError:
        return "0"
