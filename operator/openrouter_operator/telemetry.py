"""What an operator tells Prometheus about itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from .cluster import Cluster
from .handlers import Operator
from .lease import Lease
from .metrics import Family, Sample, counter, gauge

__all__ = ["families"]


def families(operator: Operator, cluster: Cluster, lease: Lease) -> Iterator[Family]:
    """All metrics, as of now."""
    yield gauge("leader", "Whether this operator is the one that acts", int(lease.is_held))
    yield gauge("resources", "OpenRouterStatus resources that are looked after", len(operator.resources))
    yield gauge("left_out_namespaces", "Namespaces where a right is missing", len(operator.left_out))
    yield gauge("paused_targets", "Workloads that are paused", _paused(operator))
    yield gauge("failing_targets", "Workloads whose last change failed, and is tried again", _failing(operator))
    yield gauge("flapping_resources", "Resources whose breaker closed too often in vain", _flapping(operator))
    yield operator.rounds.family("reconcile_duration_seconds", "How long one reconcile of a resource took")
    yield counter("reconcile_errors_total", "Reconciles that failed as a whole", operator.failed_rounds)
    yield counter("api_requests_total", "Requests to the API server, by its answer", _answers(cluster))
    yield gauge("state_age_seconds", "Time since the shared state was last read", _ages(operator))
    yield gauge("watch_age_seconds", "Time since a watch of these showed something", _watches(operator))
    yield gauge("watch_lag_seconds", "For how long a write of our own has not been shown", operator.streams.lag_s())


def _paused(operator: Operator) -> Iterator[Sample]:
    counts = Counter((w.namespace, w.kind.name) for w in operator.inventory.paused())
    return (Sample(count, {"namespace": where, "kind": kind}) for (where, kind), count in sorted(counts.items()))


def _failing(operator: Operator) -> Iterator[Sample]:
    counts = Counter[str]()
    for watched in operator.resources.values():
        counts[watched.namespace] += watched.reconciler.failing
    return (Sample(count, {"namespace": namespace}) for namespace, count in sorted(counts.items()))


def _flapping(operator: Operator) -> Iterator[Sample]:
    counts = Counter[str]()
    for watched in operator.resources.values():
        counts[watched.namespace] += watched.reconciler.is_flapping
    return (Sample(count, {"namespace": namespace}) for namespace, count in sorted(counts.items()))


def _answers(cluster: Cluster) -> Iterator[Sample]:
    counts = sorted(cluster.answers.items())
    return (Sample(count, {"method": method, "code": code}) for (method, code), count in counts)


def _ages(operator: Operator) -> Iterator[Sample]:
    return (Sample(age_s, {"scope": scope}) for scope, age_s in operator.feeds.ages_s().items())


def _watches(operator: Operator) -> Iterator[Sample]:
    return (Sample(age_s, {"resource": plural}) for plural, age_s in operator.streams.ages_s().items())
