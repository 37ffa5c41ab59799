"""The operator's metrics for Prometheus."""

from __future__ import annotations

import math
import platform
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

from prometheus_client import CollectorRegistry, GCCollector, Info, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from openrouter_guard.version import package_version
from openrouter_operator.controller.handlers import Operator
from openrouter_operator.controller.pause_metrics import METRICS
from openrouter_operator.controller.reconcile import Reconciler
from openrouter_operator.decisions.conditions import statuses
from openrouter_operator.decisions.goal import Step
from openrouter_operator.decisions.summary import Problem, TargetSummary
from openrouter_operator.kubernetes.client import Cluster
from openrouter_operator.kubernetes.lease import Lease

__all__ = ["Telemetry"]

Samples = Iterable[tuple[tuple[str, ...], float]]
"""The values of the labels, and the number."""


_STATUS = {"True": 1.0, "False": 0.0, "Unknown": math.nan}


class Telemetry:
    """The metrics of one operator, in a registry of their own."""

    def __init__(self, operator: Operator, cluster: Cluster, lease: Lease) -> None:
        self._registry = registry = CollectorRegistry()
        build = Info(f"{METRICS}_build", "The running version", registry=registry)
        build.info({"version": package_version(), "python": platform.python_version()})
        registry.register(operator.reconcile_durations)
        registry.register(operator.reconcile_errors)
        registry.register(operator.pause_metrics.pauses)
        registry.register(operator.pause_metrics.resumes)
        registry.register(operator.pause_metrics.durations)
        registry.register(_AsOfNow(operator, cluster, lease))
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)

    def render(self, accept: str) -> tuple[bytes, str]:
        """Return the metrics in the format that the ``Accept`` header asks for, and its content type."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type


class _AsOfNow(Collector):
    """Metrics that are computed at the moment of the scrape."""

    def __init__(self, operator: Operator, cluster: Cluster, lease: Lease) -> None:
        self._operator = operator
        self._cluster = cluster
        self._lease = lease

    def collect(self) -> Iterator[Metric]:
        operator = self._operator
        yield _gauge("leader", "1 for the operator that acts", self._lease.is_held)
        yield _gauge("resources", "OpenRouterStatus resources that are looked after", len(operator.resources))
        yield _gauge("left_out_namespaces", "Namespaces where a right is missing", len(operator.left_out))
        yield _gauges("paused_targets", "Workloads that are paused", ["namespace", "kind"], _paused(operator))
        yield _gauges("paused_pods", "Pods that do not run for a pause", ["namespace"], _paused_pods(operator))
        yield _gauges(
            "longest_pause_seconds",
            "Since the oldest pause began",
            ["namespace"],
            _longest_pauses(operator, self._cluster.now),
        )
        yield _gauges(
            "resuming_targets",
            "Paused workloads that should be coming back",
            ["namespace"],
            _by_namespace(operator, _resuming),
        )
        yield _gauges(
            "contested_targets",
            "Workloads whose pause something else undoes",
            ["namespace"],
            _by_namespace(operator, _problems(lambda summary: summary.contested)),
        )
        yield _gauges(
            "unmatched_targets",
            "Targets and exclusions of specs that match nothing",
            ["namespace"],
            _by_namespace(operator, _problems(lambda summary: summary.unmatched)),
        )
        yield _gauges(
            "resource_condition",
            "1 for a condition of a resource that is true, 0 for false, NaN for unknown",
            ["namespace", "name", "type"],
            _conditions(operator),
        )
        yield _gauges(
            "failing_targets",
            "Workloads whose last change failed, and is tried again",
            ["namespace"],
            _by_namespace(operator, lambda reconciler: reconciler.failing),
        )
        yield _gauges(
            "flapping_resources",
            "Resources whose breaker closed too often in vain",
            ["namespace"],
            _by_namespace(operator, lambda reconciler: reconciler.is_flapping),
        )
        yield _answers(self._cluster)
        yield _gauges("state_age_seconds", "Time since the shared state was last read", ["scope"], _ages(operator))
        yield _gauges(
            "watch_age_seconds", "Time since a watch of these showed something", ["resource"], _watches(operator)
        )
        yield _gauge(
            "watch_lag_seconds", "For how long a write of our own has not been shown", operator.watch_lag.lag_s()
        )


def _gauge(name: str, words: str, value: float) -> Metric:
    return GaugeMetricFamily(f"{METRICS}_{name}", words, value)


def _gauges(name: str, words: str, labels: Sequence[str], samples: Samples) -> Metric:
    family = GaugeMetricFamily(f"{METRICS}_{name}", words, labels=labels)
    for values, number in samples:
        family.add_metric(values, number)
    return family


def _paused(operator: Operator) -> Samples:
    return sorted(Counter((w.namespace, w.kind.name) for w in operator.inventory.paused()).items())


def _paused_pods(operator: Operator) -> Samples:
    pods = Counter[str]()
    for workload in operator.inventory.paused():
        pods[workload.namespace] += max(workload.original_pods - workload.pods, 0)
    return (((namespace,), number) for namespace, number in sorted(pods.items()))


def _longest_pauses(operator: Operator, now: float) -> Samples:
    """Return the age of the oldest pause; one that was left behind on purpose does not count."""
    oldest: dict[str, float] = {}
    for workload in operator.inventory.paused():
        if workload.pause and not workload.pause.is_orphaned:
            oldest[workload.namespace] = min(workload.pause.at, oldest.get(workload.namespace, math.inf))
    return (((namespace,), max(now - at, 0.0)) for namespace, at in sorted(oldest.items()))


def _problems(of: Callable[[TargetSummary], Sequence[Problem]]) -> Callable[[Reconciler], int]:
    return lambda reconciler: len(of(reconciler.result.summary)) if reconciler.result else 0


def _resuming(reconciler: Reconciler) -> int:
    result = reconciler.result
    if result is None or result.goal.step is not Step.RESUME:
        return 0
    return result.summary.paused + result.summary.resuming


def _conditions(operator: Operator) -> Samples:
    for watched in operator.resources.values():
        reconciler = watched.reconciler
        for kind, status in (statuses(reconciler.result) if reconciler.result else {}).items():
            yield (watched.namespace, reconciler.name, kind), _STATUS[status]


def _by_namespace(operator: Operator, count: Callable[[Reconciler], int]) -> Samples:
    counts = Counter[str]()
    for watched in operator.resources.values():
        counts[watched.namespace] += count(watched.reconciler)
    return (((namespace,), number) for namespace, number in sorted(counts.items()))


def _answers(cluster: Cluster) -> Metric:
    family = CounterMetricFamily(
        f"{METRICS}_api_requests", "Requests to the API server, by its answer", labels=["method", "code"]
    )
    for values, number in sorted(cluster.answers.items()):
        family.add_metric(values, number)
    return family


def _ages(operator: Operator) -> Samples:
    return (((scope,), age_s) for scope, age_s in operator.feeds.ages_s().items())


def _watches(operator: Operator) -> Samples:
    return (((plural,), age_s) for plural, age_s in operator.watch_lag.ages_s().items())
