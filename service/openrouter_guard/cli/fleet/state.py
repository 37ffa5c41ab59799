"""The state of a scope as JSON; pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from openrouter_guard.rules.admission import admitted_share, fleet_refusal
from openrouter_guard.rules.breaker import BreakerState, Closed, HalfOpen, Open, threshold
from openrouter_guard.rules.codec import iso
from openrouter_guard.rules.evaluation import evaluate
from openrouter_guard.rules.models import cooling
from openrouter_guard.rules.override import Override
from openrouter_guard.rules.parsing import row_of
from openrouter_guard.rules.shared_state import SharedState, Transition
from openrouter_guard.settings import Settings
from openrouter_guard.store import Seen
from openrouter_guard.store.presence import Presence

from .scopes import BY

__all__ = ["paused_of", "state_of"]

UNKNOWN = "unknown"


def state_of(seen: Seen, settings: Settings) -> dict[str, Any]:
    """Return the state; ``unknown`` if there is none, because no process reports."""
    known = seen.record is not None
    now, policy = seen.now, settings.policy
    record = evaluate(seen.record or SharedState(), now=now, policy=policy, by=BY)
    phase, refusal, change = record.phase(now), fleet_refusal(record, now), _last_change(record, now)
    return {
        "scope": settings.scope,
        "state": phase.value if known else UNKNOWN,
        "since": iso(_since(record, change, now)) or None,
        "reason": _reason(record, now),
        "by": change.by if change and change.by != BY else None,
        "retry_at": iso(now + refusal.retry_after_s) if refusal else None,
        "epoch": record.epoch,
        "failures": record.breaker.failures,
        "failure_threshold": threshold(record.calls_per_minute, policy),
        "share_admitted": 0.0 if refusal else round(admitted_share(record, now=now, policy=policy), 3),
        "override": _override(record.standing(now)),
        "upstream": _upstream(record, now) if known else None,
        "credit": _credit(record) if record.upstream.amounts_at else None,
        "models_cooling": len(cooling(seen.models, now=now, policy=policy)),
        "now": iso(now),
    }


def _last_change(record: SharedState, now: float) -> Transition | None:
    """Return the change that led to the present state; None if it is not known, or was by time alone."""
    last = record.transitions[-1] if record.transitions else None
    return last if last and last.after is record.phase(now) else None


def _since(record: SharedState, change: Transition | None, now: float) -> float:
    match record.breaker:
        case _ if change:
            return change.at
        case Open(until=until) if record.phase(now) is BreakerState.HALF_OPEN:
            return until
        case Closed(since=since) if record.phase(now) is BreakerState.CLOSED:
            return since
        case _:
            return 0.0


def _reason(record: SharedState, now: float) -> str | None:
    refusal, standing = fleet_refusal(record, now), record.standing(now)
    if refusal:
        return str(refusal.reason)
    if standing:
        return standing.kind.value
    return record.breaker.reason or None if isinstance(record.breaker, Open | HalfOpen) else None


def _override(standing: Override | None) -> dict[str, Any] | None:
    if standing is None:
        return None
    return {"kind": standing.kind.value, "who": standing.who, "why": standing.why, "until": iso(standing.until)}


def _upstream(record: SharedState, now: float) -> dict[str, Any]:
    upstream = record.upstream
    return {
        "state": upstream.state.value,
        "message": upstream.message,
        "error": _error(upstream.error_details),
        "checked_at": iso(upstream.checked_at) or None,
        "last_success": iso(upstream.last_success_at) or None,
        "rate_limit_reset": iso(upstream.limited_until) if upstream.limited_until > now else None,
    }


def _error(details: str) -> Any:
    """Return what was stored about the last error: an object if it is one, else the text."""
    row = row_of(details)
    return json.loads(json.dumps(row, default=str)) if row else details or None


def _credit(record: SharedState) -> dict[str, Any]:
    upstream = record.upstream
    return {
        "balance": upstream.balance,
        "usage_today": upstream.usage_today,
        "usage_month": upstream.usage_month,
        "at": iso(upstream.amounts_at),
    }


def paused_of(clusters: Mapping[str, Presence]) -> list[dict[str, Any]]:
    """Return the reports of operators about paused workloads."""
    return [
        {
            "cluster": name,
            "resource": _text(about.get("resource")),
            "paused": about.get("paused") if isinstance(about.get("paused"), int) else 0,
            "workloads": [_text(each) for each in _list(about.get("workloads"))],
            "last_seen": _text(about.get("last_seen")) or None,
        }
        for name, about in clusters.items()
    ]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
