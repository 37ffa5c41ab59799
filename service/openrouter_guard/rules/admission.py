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


def fleet_refusal(record: SharedState, now_s: float) -> Refusal | None:
    """Return the refusal of all calls; None if they may go (half-open: with a permit)."""
    standing = record.standing(now_s)
    if standing is not None and standing.is_open:
        return Refusal(standing.until_s - now_s, standing.kind)
    if standing is not None and standing.kind is OverrideKind.DISABLED:
        return None
    match record.breaker:
        case Open() as breaker if breaker.until_s > now_s and standing is None:
            return Refusal(breaker.until_s - now_s, breaker.reason)
        case _ if (until_s := record.upstream.limited_until_s) > now_s:
            return Refusal(until_s - now_s, OpenRouterState.RATE_LIMITED)
        case _:
            return None


def ramp(record: SharedState, *, now_s: float, policy: Policy) -> Ramp | None:
    """Return the fleet's current ramp; None if all calls may go, or none.

    It begins when the breaker closes. After health checks closed it on probation, and after a rate limit, no call has
    shown yet that calls work: then it begins with the first success. Without a reported success it ends after the
    longest time of a ramp; on probation it waits for one.
    """
    breaker = record.breaker
    if not isinstance(breaker, Closed) or record.standing(now_s) is not None or fleet_refusal(record, now_s):
        return None
    found = _ramp(breaker, record, now_s, policy)
    return found if found and found.calls > found.first and now_s < found.ends_s else None


def model_ramp(record: SharedState, since_s: float, *, is_held: bool, now_s: float, policy: Policy) -> Ramp | None:
    """Return the ramp of one model after its wait; None if all calls may go.

    Args:
        record: The fleet's record.
        since_s: End of the wait.
        is_held: True if no call to it has succeeded since.
        now_s: The time.
        policy: The settings of the rules.
    """
    if record.standing(now_s) is not None:
        return None
    from_s = since_s + policy.ramp_s if is_held and now_s >= since_s + policy.ramp_s else since_s
    found = _of_fleet(record, 0.0, policy)(from_s, from_s + policy.ramp_s, is_held=is_held and from_s == since_s)
    return found if found.calls > found.first and now_s < found.ends_s else None


def _ramp(breaker: Closed, record: SharedState, now_s: float, policy: Policy) -> Ramp | None:
    from_s, held_s = max(breaker.since_s, breaker.ramp_from_s), breaker.held_until_s
    most_s = ramp_most_s(breaker, record, policy)
    is_held = breaker.on_probation
    until_s = math.inf if is_held else from_s + most_s
    if held_s and not is_held:
        is_held = now_s < held_s + policy.ramp_s
        from_s = held_s if is_held else held_s + policy.ramp_s
        until_s = from_s + most_s
    failing_s = (breaker.evidence.since_s or from_s) if breaker.failures else math.inf
    made = _of_fleet(record, breaker.call_s, policy)
    return made(from_s, until_s, failing_s=failing_s, is_held=is_held) if from_s else None


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


def admitted_share(record: SharedState, *, now_s: float, policy: Policy) -> float:
    """Return the share of the fleet's calls that may be in progress while it comes back.

    From 0 to 1; 1 at all other times.
    """
    found = ramp(record, now_s=now_s, policy=policy)
    return found.share(now_s) if found else 1.0


def kept_visible(record: SharedState, now_s: float) -> SharedState:
    """Return the record that keeps an open state visible to earlier systems while calls must wait.

    They ignore a state whose ``last_check`` is older than five minutes, and let their calls go.
    """
    if record.phase(now_s) is BreakerState.CLOSED and fleet_refusal(record, now_s) is None:
        return record
    return replace(record, upstream=replace(record.upstream, last_check_s=now_s))
