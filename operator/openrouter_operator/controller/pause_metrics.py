"""Counts pauses and resumes, and measures how long the pauses lasted."""

from __future__ import annotations

from prometheus_client import Counter, Histogram

from openrouter_operator.decisions.events import Event
from openrouter_operator.workloads.workload import Workload

__all__ = ["METRICS", "PauseMetrics"]

METRICS = "openrouter_guard_operator"
"""Prefix of an operator's metrics."""
_BUCKETS_S = (10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21_600, 86_400)
_BEGUN = frozenset({"Paused"})
_BACK = frozenset({"Resumed", "ChangedByAdmission"})
_OVER = _BACK | {"LetGo"}


class PauseMetrics:
    """The pauses that this process has begun and ended.

    Attributes:
        pauses: Workloads paused.
        resumes: Workloads brought back; one that a person changed meanwhile is let go, and does not count.
        durations: Durations of all pauses that ended.
    """

    def __init__(self) -> None:
        labels = ["namespace", "kind"]
        self.pauses = Counter(f"{METRICS}_pauses", "Workloads that were paused", labels, registry=None)
        self.resumes = Counter(f"{METRICS}_resumes", "Workloads that were brought back", labels, registry=None)
        self.durations = Histogram(
            f"{METRICS}_pause_duration_seconds",
            "How long pauses lasted that are over",
            registry=None,
            buckets=_BUCKETS_S,
        )

    def count(self, workload: Workload, event: Event, now: float) -> None:
        """Count the event about a change of *workload*, as it was before the change; *now* is Unix seconds."""
        labels = (workload.namespace, workload.kind.name)
        if event.reason in _BEGUN:
            self.pauses.labels(*labels).inc()
        if event.reason in _BACK:
            self.resumes.labels(*labels).inc()
        if event.reason in _OVER and workload.pause is not None:
            self.durations.observe(max(now - workload.pause.at, 0.0))
