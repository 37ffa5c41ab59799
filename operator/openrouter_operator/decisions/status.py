"""Builds the status: pure functions of the snapshot and of the current changes.

Conditions follow the conventions of Kubernetes: ``reason`` is a word that programs may rely on, ``message`` is for
people who run ``kubectl describe``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from openrouter_guard.rules.breaker import BreakerState, Closed, HalfOpen, Open
from openrouter_guard.rules.codec import iso, parse_iso
from openrouter_guard.rules.shared_state import SharedState
from openrouter_operator.resource.overrides import ACTIONS

from .conditions import conditions
from .goal import FLAPPING, Step
from .result import ReconcileResult, cause, second
from .snapshot import ScopeSnapshot
from .summary import PROBLEMS_SHOWN
from .targets import ROLLOUT

__all__ = [
    "UNKNOWN",
    "differs",
    "is_true",
    "status",
    "unknown_since",
]

COUNTERS_S = 120.0
"""Changed counters alone are written at most this often."""
UPSTREAM_S = 15.0
"""So is the text of single answers, which differs from call to call while only some of them fail."""
UNKNOWN = "unknown"
_ACTIONS = {kind: action for action, kind in ACTIONS.items()}


def status(old: Mapping[str, Any], result: ReconcileResult) -> dict[str, Any]:
    """Return the status after *old*."""
    before = {entry["type"]: entry for entry in old.get("conditions") or ()}
    at = second(result.snapshot.now if result.dated_at is None else result.dated_at)
    written = {
        "observedGeneration": result.generation,
        "upstream": _upstream(result.snapshot),
        "breaker": _breaker(result.snapshot),
        "targets": _targets(result),
        "problems": [problem._asdict() for problem in result.summary.problems],
        "conditions": conditions(result, before, generation=result.generation, at=at),
    }
    if sum(result.summary.reasons.values()) > PROBLEMS_SHOWN:
        written["problemCounts"] = dict(sorted(result.summary.reasons.items()))
    if result.spec.dry_run:
        written["wouldChange"] = list(result.would[:PROBLEMS_SHOWN])
    if result.summary.is_paused:
        written["progress"] = _progress(result)
    if override := _override(result):
        written["override"] = override
    return written | _spans(old, result)


def differs(old: Mapping[str, Any], new: Mapping[str, Any], *, since_write_s: float) -> bool:
    """Return whether to write it: at once, except for parts that change all the time."""
    return _weighed(old, since_write_s) != _weighed(new, since_write_s)


def _weighed(status: Mapping[str, Any], since_write_s: float) -> dict[str, Any]:
    """Return the part of the status that justifies a write now."""
    weighed = dict(status)
    if since_write_s < COUNTERS_S:
        weighed["breaker"] = {k: v for k, v in (status.get("breaker") or {}).items() if k != "failures"}
    if since_write_s < UPSTREAM_S:
        weighed.pop("upstream", None)
        weighed["conditions"] = [_without_upstream(entry) for entry in status.get("conditions") or ()]
    return weighed


def _without_upstream(entry: Mapping[str, Any]) -> dict[str, Any]:
    quotes = entry["type"] == "UpstreamAvailable"
    return {name: value for name, value in entry.items() if not (quotes and name == "message")}


def _upstream(snapshot: ScopeSnapshot) -> dict[str, Any]:
    if snapshot.record is None:
        return {"state": UNKNOWN}
    upstream = snapshot.record.upstream
    limited = upstream.limited_until > snapshot.now
    reset = {"rateLimitReset": iso(upstream.limited_until)} if limited else {}
    return {"state": upstream.state.value, "message": upstream.message} | reset


def _breaker(snapshot: ScopeSnapshot) -> dict[str, Any]:
    record = snapshot.record
    if record is None or snapshot.phase is None:
        return {"state": UNKNOWN}
    shown = {
        "state": snapshot.phase.value if snapshot.is_fresh else UNKNOWN,
        "failures": record.breaker.failures,
        "since": second(snapshot.since),
        "epoch": record.epoch,
        **_outage(record, snapshot),
    }
    return {name: value for name, value in shown.items() if value != ""}


def _outage(record: SharedState, snapshot: ScopeSnapshot) -> dict[str, Any]:
    forced = snapshot.override
    if forced is not None:
        since = {"openedAt": second(snapshot.since), "retryAt": second(forced.until)} if forced.is_open else {}
        return {"reason": forced.kind.value} | since
    match record.breaker:
        case Closed():
            return {}
        case Open(reason=reason, opened_at=opened_at, until=until):
            retry = {"retryAt": second(until)} if snapshot.phase is BreakerState.OPEN else {}
            return {"reason": reason, "openedAt": second(opened_at)} | retry
        case HalfOpen(reason=reason, opened_at=opened_at):
            return {"reason": reason, "openedAt": second(opened_at)}


def _override(result: ReconcileResult) -> dict[str, Any]:
    """Return the override that stands, and the generation of the spec that was applied."""
    shown: dict[str, Any] = {}
    standing = result.snapshot.override
    if standing is not None:
        action = _ACTIONS[standing.kind]
        until = second(standing.until)
        shown = {"action": action.value, "by": standing.who, "reason": standing.why, "until": until}
    return shown | ({"appliedGeneration": result.override.generation} if result.override.generation else {})


def _progress(result: ReconcileResult) -> dict[str, Any]:
    """Return the progress of a pause or its end, in pods."""
    next_at = {} if result.goal.next_at is None else {"nextAt": second(result.goal.next_at)}
    shown = {"step": result.goal.step.value, "reason": result.goal.reason}
    return shown | {"pods": result.summary.pods, "originalPods": result.summary.original_pods} | next_at


def _targets(result: ReconcileResult) -> dict[str, Any]:
    summary = result.summary
    words = [FLAPPING] if result.goal.reason == FLAPPING else []
    words += [ROLLOUT] if summary.reasons.get(ROLLOUT) else []
    return {
        "matched": summary.matched,
        "paused": summary.paused,
        "resuming": summary.resuming,
        "skipped": summary.matched - summary.able,
        "failed": summary.failed,
        "summary": " ".join((f"{summary.paused}/{summary.able}", *words)),
    } | ({"contested": len(summary.contested)} if summary.contested else {})


def _spans(old: Mapping[str, Any], result: ReconcileResult) -> dict[str, Any]:
    """Return ``lastPause`` and ``lastResume``: start, reason and duration of the last ones."""
    was_paused = is_true(old, "Paused")
    now, counts = result.snapshot.now, result.summary
    pause, resume = dict(old.get("lastPause") or {}), dict(old.get("lastResume") or {})
    if counts.is_paused and not was_paused:
        pause = {"startedAt": second(now), "reason": cause(result)}
    if (
        counts.is_paused
        and result.goal.step is Step.RESUME
        and resume.get("startedAt", "") < pause.get("startedAt", "")
    ):
        resume = {"startedAt": second(now), "reason": result.goal.reason}
    if counts.paused and counts.paused == counts.able and "durationSeconds" not in pause:
        pause["durationSeconds"] = _lasted_s(pause, result.ended_at)
    if was_paused and not counts.is_paused:
        if "durationSeconds" in resume or not resume:
            resume = {"startedAt": second(now), "reason": result.goal.reason}
        resume["durationSeconds"] = _lasted_s(resume, result.ended_at)
    return {name: span for name, span in (("lastPause", pause), ("lastResume", resume)) if span}


def _lasted_s(span: Mapping[str, Any], now: float) -> float:
    return round(max(now - parse_iso(span.get("startedAt")), 0.0), 1)


def unknown_since(status: Mapping[str, Any]) -> float | None:
    """Return since when the state cannot be read, as stored by an earlier round; None if it could be read then."""
    for condition in status.get("conditions") or ():
        if condition["type"] == "StateFresh" and condition["status"] == "False":
            return parse_iso(condition["lastTransitionTime"])
    return None


_TEXTS: Mapping[str, Sequence[str]] = {
    "conditions": ("type", "status", "reason", "message", "lastTransitionTime"),
    "problems": ("target", "reason", "message"),
}
_NESTED = frozenset(("upstream", "breaker", "targets", "progress", "problemCounts", "override"))
_SPANS = frozenset(("lastPause", "lastResume"))


def sound(resource: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the resource with the valid part of its status: an older schema may have accepted anything."""
    status = resource.get("status")
    known = status if isinstance(status, Mapping) else {}
    kept = {name: value for name, value in known.items() if name not in _NESTED or isinstance(value, Mapping)}
    kept = {name: value for name, value in kept.items() if name not in _SPANS or _is_span(value)}
    return {**resource, "status": kept | {name: _with_texts(known.get(name), _TEXTS[name]) for name in _TEXTS}}


def _is_span(found: Any) -> bool:
    return isinstance(found, Mapping) and isinstance(found.get("startedAt"), str)


def _with_texts(found: Any, names: Sequence[str]) -> list[Mapping[str, Any]]:
    items = found if isinstance(found, list) else []
    return [i for i in items if isinstance(i, Mapping) and all(isinstance(i.get(name), str) for name in names)]


def rolling(status: Mapping[str, Any]) -> frozenset[str]:
    """Return the targets that an earlier round left alone because of a rollout."""
    problems = status.get("problems") or ()
    return frozenset(each["target"] for each in problems if each["reason"] == ROLLOUT)


def is_true(status: Mapping[str, Any], kind: str) -> bool:
    return any(c["type"] == kind and c["status"] == "True" for c in status.get("conditions") or ())
