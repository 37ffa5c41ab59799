"""Workloads, specs and snapshots for tests of the operator's pure rules, at 1,000 s on the Redis clock."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from openrouter_guard.rules.breaker import Breaker, Closed, HalfOpen, Open
from openrouter_guard.rules.shared_state import SharedState, Upstream
from openrouter_operator.decisions.snapshot import ScopeSnapshot
from openrouter_operator.decisions.targets import Candidate, Owner
from openrouter_operator.resource.spec import Spec, parse
from openrouter_operator.workloads.kinds import DEPLOYMENT
from openrouter_operator.workloads.workload import Pause, Workload

__all__ = [
    "NOW_S",
    "OPENED_S",
    "OTHER",
    "OWNER",
    "WORKERS",
    "Clock",
    "candidates",
    "closed",
    "half_open",
    "opened",
    "paused",
    "snapshot",
    "spec",
    "unknown",
    "workload",
]

NOW_S = 1_000.0
OPENED_S = 900.0
OWNER = Owner("uid-of-default", "default")
OTHER = Owner("uid-of-other", "other")
WORKERS = {"kind": "Deployment", "selector": {"matchLabels": {"fleet": "workers"}}}


class Clock:
    """A monotonic clock that stands until a test moves it."""

    def __init__(self) -> None:
        self.now = NOW_S

    def __call__(self) -> float:
        return self.now


def spec(**fields: Any) -> Spec:
    """The spec of a resource that targets all workers; *fields* as in YAML."""
    return parse({"targets": [WORKERS]} | fields)


def workload(name: str = "a", replicas: int = 3, **other: Any) -> Workload:
    """A worker Deployment that nobody has paused."""
    labels = other.pop("labels", {"fleet": "workers"})
    return Workload(DEPLOYMENT, "jobs", name, f"uid-of-{name}", "1", replicas, labels, **other)


def paused(
    name: str = "a", original: int = 3, *, set_to: int = 0, at: float = OPENED_S, owner: Owner = OWNER, **other: Any
) -> Workload:
    """A worker Deployment as we left it when we set it to ``set_to``."""
    if "replicas" in other:
        other["value"] = other.pop("replicas")
    pause = Pause(owner.uid, owner.name, epoch=7, original=original, set_to=set_to, at=at)
    return replace(workload(name, set_to, pause=pause), **other)


def candidates(*found: Workload | Candidate) -> list[Candidate]:
    return [one if isinstance(one, Candidate) else Candidate(one) for one in found]


def snapshot(breaker: Breaker, *, now: float = NOW_S, since: float = 0.0, **upstream: Any) -> ScopeSnapshot:
    """A breaker as just read."""
    record = SharedState(breaker, epoch=7, upstream=Upstream(**upstream))
    return ScopeSnapshot(record, now, is_fresh=True, last_known_at=now, since=since)


def opened(at: float = OPENED_S, *, until: float = 1_020.0, now: float = NOW_S) -> ScopeSnapshot:
    return snapshot(Open("timeout", at, until, failures=5), now=now, since=at)


def half_open(*, now: float = NOW_S) -> ScopeSnapshot:
    return snapshot(HalfOpen("timeout", OPENED_S, failures=5), now=now, since=990.0)


def closed(since: float = NOW_S, *, now: float = NOW_S) -> ScopeSnapshot:
    return snapshot(Closed(since=since), now=now, since=since)


def unknown(last_known_at: float, *, record: SharedState | None = None) -> ScopeSnapshot:
    return ScopeSnapshot(record, NOW_S, is_fresh=False, last_known_at=last_known_at, error="Redis is away")
