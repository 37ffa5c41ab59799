"""Decides on admission: how long calls must wait, and how many go while the fleet comes back."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from .breaker import BreakerState, Closed, Open, Policy
from .override import OverrideKind
from .ramp import CALL_S, LONG_CALL_S, UNKNOWN_CALL_S, Ramp
from .refusal import Refusal
from .shared_state import SharedState
from .signals import OpenRouterState

__all__ = [
    "admitted_share",
    "fleet_refusal",
    "kept_visible",
    "model_ramp",
    "ramp",
    "ramp_most_s",
]


def fleet_refusal(record: SharedState, now: float) -> Refusal | None:
    """Return the refusal of all calls; None if they may go (half-open: with a permit)."""
    standing = record.standing(now)
    if standing is not None and standing.is_open:
        return Refusal(standing.until - now, standing.kind)
    if standing is not None and standing.kind is OverrideKind.DISABLED:
        return None
    match record.breaker:
        case Open() as breaker if breaker.until > now and standing is None:
            return Refusal(breaker.until - now, breaker.reason)
        case _ if (until := record.upstream.limited_until) > now:
            return Refusal(until - now, OpenRouterState.RATE_LIMITED)
        case _:
            return None


def ramp(record: SharedState, *, now: float, policy: Policy) -> Ramp | None:
    """Return the fleet's current ramp; None if all calls may go, or none.

    It begins when the breaker closes. After health checks closed it on probation, and after a rate limit, no call has
    shown yet that calls work: then it begins with the first success. Without a reported success it ends after the
    longest time of a ramp; on probation it waits for one.
    """
    breaker = record.breaker
    if not isinstance(breaker, Closed) or record.standing(now) is not None or fleet_refusal(record, now):
        return None
    found = _ramp(breaker, record, now, policy)
    return found if found and found.calls > found.first and now < found.ends_at else None


def model_ramp(record: SharedState, since: float, *, is_held: bool, now: float, policy: Policy) -> Ramp | None:
    """Return the ramp of one model after its wait; None if all calls may go.

    Args:
        record: The fleet's record.
        since: End of the wait.
        is_held: True if no call to it has succeeded since.
        now: The time.
        policy: The settings of the rules.
    """
    if record.standing(now) is not None:
        return None
    starts_at = since + policy.ramp_s if is_held and now >= since + policy.ramp_s else since
    found = _of_fleet(record, 0.0, policy)(
        starts_at, starts_at + policy.ramp_s, is_held=is_held and starts_at == since
    )
    return found if found.calls > found.first and now < found.ends_at else None


def _ramp(breaker: Closed, record: SharedState, now: float, policy: Policy) -> Ramp | None:
    starts_at, held_until = max(breaker.since, breaker.ramp_from), breaker.held_until
    most_s = ramp_most_s(breaker, record, policy)
    is_held = breaker.on_probation
    until = math.inf if is_held else starts_at + most_s
    if held_until and not is_held:
        is_held = now < held_until + policy.ramp_s
        starts_at = held_until if is_held else held_until + policy.ramp_s
        until = starts_at + most_s
    failing_since = (breaker.evidence.since or starts_at) if breaker.failures else math.inf
    made = _of_fleet(record, breaker.call_s, policy)
    return made(starts_at, until, failing_since=failing_since, is_held=is_held) if starts_at else None


def ramp_most_s(breaker: Closed, record: SharedState, policy: Policy) -> float:
    """Return how long a ramp may last, in seconds; in proportion longer where calls are long."""
    return policy.ramp_s * max(_call_s(record, breaker.call_s) / LONG_CALL_S, 1.0)


def _of_fleet(record: SharedState, call_s: float, policy: Policy) -> Callable[..., Ramp]:
    """Return a ramp for the fleet's number of calls; ``call_s`` is the duration of a call, 0 if unknown."""
    processes, call_s = max(record.live_reporters, 1), _call_s(record, call_s)
    calls = max(processes, record.fleet, record.calls_per_minute / 60 * call_s)
    return partial(Ramp, first=policy.permits, calls=calls, call_s=call_s, processes=processes)


def _call_s(record: SharedState, told_s: float) -> float:
    """Return how long a call takes, in seconds; *told_s* is the duration of the trial call, 0 if unknown."""
    call_s = max(CALL_S[0], min(told_s or UNKNOWN_CALL_S, CALL_S[1]))
    if not record.calls_per_minute:
        return call_s
    # The trial may have been a short one: at the healthy rate, calls of a fleet that is busy last longer.
    return max(call_s, min(60 * max(record.live_reporters, 1) / record.calls_per_minute, UNKNOWN_CALL_S))


def admitted_share(record: SharedState, *, now: float, policy: Policy) -> float:
    """Return the share of the fleet's calls that may be in progress while it comes back.

    From 0 to 1; 1 at all other times.
    """
    found = ramp(record, now=now, policy=policy)
    return found.share(now) if found else 1.0


def kept_visible(record: SharedState, now: float) -> SharedState:
    """Return the record that keeps an open state visible to earlier systems while calls must wait.

    They ignore a state whose ``last_check`` is older than five minutes, and let their calls go.
    """
    if record.phase(now) is BreakerState.CLOSED and fleet_refusal(record, now) is None:
        return record
    return replace(record, upstream=replace(record.upstream, last_check_at=now))
