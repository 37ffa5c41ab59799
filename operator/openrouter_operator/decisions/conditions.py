"""The conditions of the status: whether it is ready, why not, and since when; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from openrouter_guard.rules.breaker import BreakerState

from .goal import FLAPPING, Step
from .result import ReconcileResult, cause, second
from .snapshot import ScopeSnapshot
from .summary import Problem
from .targets import DAMAGED

__all__ = ["conditions", "statuses"]

_Said = tuple[str, str, str]
"""Status, reason and message."""


def _ready(result: ReconcileResult) -> _Said:
    if result.invalid:
        return "False", "InvalidSpec", result.invalid
    if result.summary.failed:
        first = next((p for p in result.summary.problems), None)
        return "False", "TargetsFailed", f"{_workloads(result.summary.failed)} could not be changed; {_line(first)}"
    if result.summary.damaged:
        return "False", DAMAGED, _line(result.summary.damaged[0])
    if result.override.failure:
        return "False", result.override.failure.reason, result.override.failure.message
    if result.summary.unwatched:
        return "False", result.summary.unwatched[0].reason, _line(result.summary.unwatched[0])
    if result.summary.unmatched:
        return "False", "NoMatch", _line(result.summary.unmatched[0])
    if result.summary.contested:
        return "False", "Contested", _line(result.summary.contested[0])
    if not result.snapshot.is_fresh:
        return "Unknown", "StateUnknown", _stale(result.snapshot)
    if result.spec.dry_run:
        return "True", "DryRun", _would(result.would)
    if result.spec.suspend:
        return "True", "Suspended", "spec.suspend is true: the state is shown and nothing is changed"
    if not result.spec.targets:
        return "True", "CarriedOut", "The state is shown; the spec names no workloads"
    if not result.summary.matched:
        return "True", "NoTargets", "No workload in this namespace matches spec.targets"
    return "True", "CarriedOut", _going_on(result)


def _would(changes: Sequence[str]) -> str:
    such = f", such as {changes[0]}" if changes else ""
    return f"spec.dryRun is true: {_workloads(len(changes))} would be changed now{such}"


def _workloads(count: int) -> str:
    return "1 workload" if count == 1 else f"{count} workloads"


def _left_alone(count: int) -> str:
    return "the matching workload is left alone" if count == 1 else f"all {count} matching workloads are left alone"


def _line(problem: Problem | None) -> str:
    return f"{problem.target}: {problem.message}" if problem else "see problems"


def _reconciling(result: ReconcileResult) -> _Said:
    under_way = not result.is_settled or result.summary.resuming > 0
    return ("True", "InProgress", _going_on(result)) if under_way else ("False", "Done", "Nothing is under way")


def _stalled(result: ReconcileResult) -> _Said:
    if result.invalid:
        return "True", "InvalidSpec", result.invalid
    return "False", "Progressing", "The spec can be carried out"


def _upstream_available(result: ReconcileResult) -> _Said:
    snapshot = result.snapshot
    if not snapshot.is_fresh or snapshot.record is None:
        return "Unknown", "StateUnknown", _stale(snapshot)
    upstream = snapshot.record.upstream
    if snapshot.phase is not BreakerState.CLOSED:
        reason = "BreakerOpen" if snapshot.phase is BreakerState.OPEN else "BreakerHalfOpen"
        return "False", reason, f"{cause(result)}: {upstream.message}"
    if upstream.limited_until > snapshot.now:
        return "False", "RateLimited", f"Calls are not permitted before {second(upstream.limited_until)}"
    return "True", "BreakerClosed", "Calls go through"


def _paused(result: ReconcileResult) -> _Said:
    if result.summary.is_paused:
        return "True", result.goal.reason, _going_on(result)
    return "False", result.goal.reason, "No workload is paused"


def _state_fresh(result: ReconcileResult) -> _Said:
    if result.snapshot.is_fresh:
        return "True", "Read", f"The state of scope {result.spec.scope!r} is read from Redis"
    return "False", "NotReported" if not result.snapshot.error else "Unreadable", _stale(result.snapshot)


def _stale(snapshot: ScopeSnapshot) -> str:
    if snapshot.error:
        return snapshot.error
    return (
        "No worker has reported to this scope yet: check OPENROUTER_GUARD_SCOPE and REDIS_URL of workers and service"
    )


def _going_on(result: ReconcileResult) -> str:
    counts = result.summary
    match result.goal.step:
        case Step.PAUSE if counts.able:
            return f"{counts.paused} of {_workloads(counts.able)} paused"
        case Step.CANARY if result.goal.reason == FLAPPING:
            return (
                f"{_workloads(counts.paused)} still paused: the breaker closed too often in vain; to go on now, write"
                " override ForceClosed (docs/operator.md)"
            )
        case Step.CANARY:
            return f"{_workloads(counts.paused)} paused, {counts.resuming} with one pod that tests the upstream"
        case Step.RESUME if counts.is_paused:
            return (
                f"{_workloads(counts.paused + counts.resuming)} coming back, at {result.goal.share:.0%} of their pods"
            )
        case Step.KEEP if counts.is_paused:
            return f"{_workloads(counts.paused + counts.resuming)} still paused ({result.goal.reason})"
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


def statuses(now: ReconcileResult) -> Mapping[str, str]:
    """Return the status of each condition by its type: ``True``, ``False`` or ``Unknown``."""
    return {kind: check(now)[0] for kind, check in _CONDITIONS.items()}


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
    result: ReconcileResult, before: Mapping[str, Mapping[str, Any]], *, generation: int, at: str
) -> list[dict[str, Any]]:
    """Return all conditions; one that stays the same keeps its time."""
    return [
        _condition(kind, *check(result), before=before.get(kind), generation=generation, at=at)
        for kind, check in _CONDITIONS.items()
    ]
