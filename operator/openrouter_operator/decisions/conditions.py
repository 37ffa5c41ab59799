"""The conditions of the status: whether it is ready, why not, and since when; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from openrouter_guard.rules.breaker import BreakerState

from .goal import FLAPPING, Step
from .result import ReconcileResult, cause, second
from .snapshot import ScopeSnapshot
from .summary import Problem

__all__ = ["conditions"]

_Said = tuple[str, str, str]
"""Status, reason and message."""


def _ready(now: ReconcileResult) -> _Said:
    if now.invalid:
        return "False", "InvalidSpec", now.invalid
    if now.summary.failed:
        first = next((p for p in now.summary.problems), None)
        return "False", "TargetsFailed", f"{_workloads(now.summary.failed)} could not be changed; {_line(first)}"
    if now.override.failure:
        return "False", now.override.failure.reason, now.override.failure.message
    if now.summary.unwatched:
        return "False", now.summary.unwatched[0].reason, _line(now.summary.unwatched[0])
    if now.summary.unmatched:
        return "False", "NoMatch", _line(now.summary.unmatched[0])
    if now.summary.contested:
        return "False", "Contested", _line(now.summary.contested[0])
    if not now.snapshot.is_fresh:
        return "Unknown", "StateUnknown", _stale(now.snapshot)
    if now.spec.dry_run:
        return "True", "DryRun", _would(now.would)
    if now.spec.suspend:
        return "True", "Suspended", "spec.suspend is true: the state is shown and nothing is changed"
    if not now.spec.targets:
        return "True", "CarriedOut", "The state is shown; the spec names no workloads"
    if not now.summary.matched:
        return "True", "NoTargets", "No workload in this namespace matches spec.targets"
    return "True", "CarriedOut", _going_on(now)


def _would(changes: Sequence[str]) -> str:
    such = f", such as {changes[0]}" if changes else ""
    return f"spec.dryRun is true: {_workloads(len(changes))} would be changed now{such}"


def _workloads(count: int) -> str:
    return "1 workload" if count == 1 else f"{count} workloads"


def _left_alone(count: int) -> str:
    return "the matching workload is left alone" if count == 1 else f"all {count} matching workloads are left alone"


def _line(problem: Problem | None) -> str:
    return f"{problem.target}: {problem.message}" if problem else "see problems"


def _reconciling(now: ReconcileResult) -> _Said:
    under_way = not now.is_settled or now.summary.resuming > 0
    return ("True", "InProgress", _going_on(now)) if under_way else ("False", "Done", "Nothing is under way")


def _stalled(now: ReconcileResult) -> _Said:
    if now.invalid:
        return "True", "InvalidSpec", now.invalid
    return "False", "Progressing", "The spec can be carried out"


def _upstream_available(now: ReconcileResult) -> _Said:
    snapshot = now.snapshot
    if not snapshot.is_fresh or snapshot.record is None:
        return "Unknown", "StateUnknown", _stale(snapshot)
    upstream = snapshot.record.upstream
    if snapshot.phase is not BreakerState.CLOSED:
        reason = "BreakerOpen" if snapshot.phase is BreakerState.OPEN else "BreakerHalfOpen"
        return "False", reason, f"{cause(now)}: {upstream.message}"
    if upstream.limited_until_s > snapshot.now_s:
        return "False", "RateLimited", f"Calls are not permitted before {second(upstream.limited_until_s)}"
    return "True", "BreakerClosed", "Calls go through"


def _paused(now: ReconcileResult) -> _Said:
    if now.summary.is_paused:
        return "True", now.goal.reason, _going_on(now)
    return "False", now.goal.reason, "No workload is paused"


def _state_fresh(now: ReconcileResult) -> _Said:
    if now.snapshot.is_fresh:
        return "True", "Read", f"The state of scope {now.spec.scope!r} is read from Redis"
    return "False", "NotReported" if not now.snapshot.error else "Unreadable", _stale(now.snapshot)


def _stale(snapshot: ScopeSnapshot) -> str:
    if snapshot.error:
        return snapshot.error
    return (
        "No worker has reported to this scope yet: check OPENROUTER_GUARD_SCOPE and REDIS_URL of workers and service"
    )


def _going_on(now: ReconcileResult) -> str:
    counts = now.summary
    match now.goal.step:
        case Step.PAUSE if counts.able:
            return f"{counts.paused} of {_workloads(counts.able)} paused"
        case Step.CANARY if now.goal.reason == FLAPPING:
            return (
                f"{_workloads(counts.paused)} still paused: the breaker closed too often in vain; to go on now, write"
                " override ForceClosed (docs/operator.md)"
            )
        case Step.CANARY:
            return f"{_workloads(counts.paused)} paused, {counts.resuming} with one pod that tests the upstream"
        case Step.RESUME if counts.is_paused:
            return f"{_workloads(counts.paused + counts.resuming)} coming back, at {now.goal.share:.0%} of their pods"
        case Step.KEEP if counts.is_paused:
            return f"{_workloads(counts.paused + counts.resuming)} still paused ({now.goal.reason})"
        case _ if counts.matched and not counts.able:
            return "Nothing to pause: " + _left_alone(counts.matched)
        case _:
            return f"{_workloads(counts.able)} running as before"


_CONDITIONS = {
    "Ready": _ready,
    "Reconciling": _reconciling,
    "Stalled": _stalled,
    "UpstreamAvailable": _upstream_available,
    "Paused": _paused,
    "StateFresh": _state_fresh,
}


def _condition(
    kind: str, state: str, reason: str, message: str, *, before: Mapping[str, Any] | None, generation: int, at: str
) -> dict[str, Any]:
    same = before is not None and before["status"] == state
    return {
        "type": kind,
        "status": state,
        "reason": reason,
        "message": message,
        "lastTransitionTime": before["lastTransitionTime"] if same and before else at,
        "observedGeneration": generation,
    }


def conditions(
    now: ReconcileResult, before: Mapping[str, Mapping[str, Any]], *, generation: int, at: str
) -> list[dict[str, Any]]:
    """Return all conditions; one that stays the same keeps its time."""
    return [
        _condition(kind, *check(now), before=before.get(kind), generation=generation, at=at)
        for kind, check in _CONDITIONS.items()
    ]
