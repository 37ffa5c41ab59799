"""The trial calls of a half-open breaker: the permits for them, and the effect of their results."""

from __future__ import annotations

from dataclasses import replace

from . import breaker as breakers
from . import limits
from .breaker import Closed, HalfOpen, Policy
from .shared_state import SharedState
from .signals import Effect, OpenRouterState, Signal
from .transitions import now_closed, now_open, with_breaker

__all__ = [
    "after_trial",
    "half_open_since",
    "holds_permit",
    "limited",
    "with_permit",
    "without_permit",
]


def with_permit(record: SharedState, owner: str, *, now: float, policy: Policy) -> SharedState | None:
    """Return the record with a permit for *owner*, None if it cannot have one.

    During a rate limit no permit is given: the call would be refused and say nothing. But a holder may renew it, and
    during a long limit one call tests it every few minutes.
    """
    if record.override is not None:
        return None
    is_look = limits.is_look_due(record, now)
    if is_look and isinstance(record.breaker, Closed):
        return limits.looked(record, owner, now)
    since = half_open_since(record)
    breaker = breakers.with_permit(record.breaker, owner, now=now, policy=policy, since=since)
    if breaker is None:
        return None
    is_held = isinstance(record.breaker, HalfOpen) and owner in record.breaker.permits
    if record.upstream.limited_until > now and not is_held and not is_look:
        return None
    if is_look and not is_held:
        record = limits.looked(record, owner, now)
    if isinstance(record.breaker, HalfOpen):
        return replace(record, breaker=breaker)
    return with_breaker(record, breaker, "reset_timeout", owner, now)


def half_open_since(record: SharedState) -> float:
    """When the breaker became half-open, if it is stored as that: with its last transition; 0 if nobody knows."""
    return record.transitions[-1].at if record.transitions and isinstance(record.breaker, HalfOpen) else 0.0


def holds_permit(record: SharedState, owner: str) -> bool:
    """Return whether *owner* may make a trial call."""
    return owner == record.limit.looker or owner in record.breaker.permits


def without_permit(record: SharedState, owner: str) -> SharedState:
    return replace(record, breaker=breakers.without_permit(record.breaker, owner))


def after_trial(
    record: SharedState, signal: Signal, owner: str, *, now: float, policy: Policy, took_s: float = 0.0
) -> SharedState:
    """Return the record after the trial call of *owner* ended; a call whose permit is gone decides nothing.

    Nor does one that met a rate limit: it was answered, but the question is open. Its permit is returned, and calls
    wait until the limit is over. A success during a long limit ends that too.

    Args:
        record: The record before it.
        signal: The call's signal.
        owner: Owner of the permit.
        now: The time.
        policy: The settings of the rules.
        took_s: Duration of the call; 0 if unknown.
    """
    is_success, is_void = signal.effect is Effect.SUCCESS, signal.effect in (Effect.NEUTRAL, Effect.MODEL)
    record = limits.after_look(record, owner, is_success=is_success, is_void=is_void, now=now)
    if not isinstance(record.breaker, HalfOpen) or owner not in record.breaker.permits:
        return record
    match signal.effect:
        case _ if record.override is not None:
            return without_permit(record, owner)
        case Effect.SUCCESS:
            return now_closed(record, owner, now, call_s=took_s)
        case Effect.NEUTRAL | Effect.MODEL | Effect.RATE_LIMIT:
            return without_permit(record, owner)
        case _:
            reason = signal.reported.value if signal.reported else OpenRouterState.ERROR.value
            return now_open(record, reason, owner, now, policy)


def limited(record: SharedState, signal: Signal, now: float, *, by: str = "") -> SharedState:
    """Return the record after the platform told the reporter *by* how long to wait; the later time wins."""
    upstream = replace(record.upstream, state=OpenRouterState.RATE_LIMITED, message=signal.message)
    after = limits.claimed(record, signal.wait_s or 0.0, by=by, now=now)
    if after is record:
        return record  # no call is held for it
    reset_at = after.upstream.rate_limit_reset_at
    breaker = after.breaker
    if isinstance(breaker, Closed) and reset_at > now:
        breaker = replace(breaker, held_until=reset_at)
    return replace(after, breaker=breaker, upstream=replace(upstream, rate_limit_reset_at=reset_at))
