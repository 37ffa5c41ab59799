"""Builds the answer of the status request from a snapshot."""

from __future__ import annotations

import json

from openrouter_guard.api.schemas.status import (
    UNKNOWN,
    BreakerAnswer,
    ModelAnswer,
    OverrideAnswer,
    Status,
    StatusAnswer,
)
from openrouter_guard.errors import StoreUnavailable
from openrouter_guard.replica import Snapshot
from openrouter_guard.rules.breaker import Breaker, BreakerState, Closed, HalfOpen, Open
from openrouter_guard.rules.codec import iso
from openrouter_guard.rules.models import cooling
from openrouter_guard.rules.override import Override
from openrouter_guard.rules.parsing import row_of
from openrouter_guard.rules.shared_state import SharedState, Upstream
from openrouter_guard.rules.signals import OpenRouterState
from openrouter_guard.rules.trial_reports import nobody_tries
from openrouter_guard.settings import Settings
from openrouter_guard.upstream import NO_KEY

from .freshness import age_s, is_known, source
from .gate import ramp

__all__ = ["status_answer"]


def status_answer(view: Snapshot, settings: Settings, *, is_live: bool) -> StatusAnswer:
    """Build the answer; ``is_live`` says that the request waited for the check behind it."""
    record, now = view.record or SharedState(), view.now
    upstream, phase = record.upstream, record.phase(now)
    age = age_s(record, now, thresholds=settings.thresholds)
    # Another replica's last check is known here too. If it is old, this process cannot repeat it without a key.
    can_ask = bool(settings.api_key) or (age is not None and age <= settings.thresholds.stale_s)
    status, message = _said(view, can_ask=can_ask)
    was_asked = status is not NO_KEY.state
    return StatusAnswer(
        status=status,
        message=message,
        balance=upstream.balance,
        balance_at=iso(upstream.amounts_at) or None,
        usage_today=upstream.usage_today,
        usage_month=upstream.usage_month,
        last_check=iso(upstream.checked_at) or None if was_asked else None,
        error_details=_details(upstream.error_details),
        consecutive_failures=record.breaker.failures,
        circuit_breaker_open=phase is not BreakerState.CLOSED,
        cache_hit=is_known(view.record) and not is_live,
        circuit_breaker=_breaker(record, phase if view.record or not view.is_degraded else None, view, settings),
        age_seconds=None if age is None or not was_asked else round(age, 3),
        source=source(age, is_live=is_live, thresholds=settings.thresholds),
        degraded=view.is_degraded,
        rate_limit_reset=_limit(upstream, now),
        scope=settings.scope,
        models=_models(view, settings),
    )


def _details(text: str) -> str | None:
    """Workers of an earlier system write a dict as Python prints it, and clients read JSON."""
    row = row_of(text) if text.startswith("{'") else {}
    return json.dumps(row, default=str) if row else text or None


def _models(view: Snapshot, settings: Settings) -> dict[str, ModelAnswer]:
    found = cooling(view.models, now=view.now, policy=settings.policy)
    return {name: ModelAnswer(reason=reason, retry_at=iso(until)) for name, (until, reason) in found.items()}


def _said(view: Snapshot, *, can_ask: bool) -> tuple[Status, str]:
    """Return the state and its message."""
    if view.record is None or not is_known(view.record):
        return (UNKNOWN if view.error is None else OpenRouterState.ERROR), _unknown(view)
    upstream, is_closed = view.record.upstream, isinstance(view.record.breaker, Closed)
    if not can_ask and is_closed:
        return NO_KEY.state, NO_KEY.signal.message
    if is_closed and upstream.state is OpenRouterState.ACTIVE and _limit(upstream, view.now):
        # A call that was under way when the limit came has succeeded since; the limit still stands.
        return OpenRouterState.RATE_LIMITED, "Rate limited"
    return upstream.state, upstream.message


def _unknown(view: Snapshot) -> str:
    if view.error is None:
        return "OpenRouter has not been checked yet"
    away = isinstance(view.error, StoreUnavailable)
    return "Redis is not reachable" if away else "Redis answers, but the shared state cannot be read"


def _breaker(record: SharedState, phase: BreakerState | None, view: Snapshot, settings: Settings) -> BreakerAnswer:
    breaker, override = record.breaker, record.standing(view.now)
    deadline = override if override is not None else breaker
    ends = isinstance(deadline, Open | Override) and phase is BreakerState.OPEN
    return BreakerAnswer(
        state=phase,
        reason=override.kind.value if override else _reason(breaker),
        opened_at=iso(breaker.opened_at) or None,
        retry_at=iso(getattr(deadline, "until", 0.0)) if ends else None,
        epoch=record.epoch,
        override=_override(override),
        nobody_tries=nobody_tries(record, view.now, settings.policy),
        ramp=ramp(view, settings.policy),
    )


def _override(override: Override | None) -> OverrideAnswer | None:
    if override is None:
        return None
    return OverrideAnswer(kind=override.kind, who=override.who, why=override.why, until=iso(override.until))


def _reason(breaker: Breaker) -> str | None:
    return breaker.reason or None if isinstance(breaker, Open | HalfOpen) else None


def _limit(upstream: Upstream, now: float) -> str | None:
    return iso(upstream.limited_until) if upstream.limited_until > now else None
