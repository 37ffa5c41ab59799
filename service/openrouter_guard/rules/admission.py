"""Who may call: for how long calls must wait, and how many go while the fleet comes back."""

from __future__ import annotations

from dataclasses import replace

from .breaker import Closed, Open, Phase, Policy
from .override import OverrideKind
from .shared_state import Record
from .signals import OpenRouterState

__all__ = [
    "admitted_share",
    "block_s",
    "kept_visible",
]


def block_s(record: Record, now_s: float) -> tuple[float, str] | None:
    """How long calls must wait and why, None where they may go (half-open: with a permit)."""
    standing = record.standing(now_s)
    if standing is not None and standing.is_open:
        return standing.until_s - now_s, standing.kind
    if standing is not None and standing.kind is OverrideKind.DISABLED:
        return None
    match record.breaker:
        case Open() as breaker if breaker.until_s > now_s and standing is None:
            return breaker.until_s - now_s, breaker.reason
        case _ if (until_s := record.upstream.limited_until_s) > now_s:
            return until_s - now_s, OpenRouterState.RATE_LIMITED
        case _:
            return None


def admitted_share(record: Record, *, now_s: float, policy: Policy) -> float:
    """Which share of the calls may go, from 0 to 1, while the breaker is closed.

    Just closed, as many as half-open; within the ramp it grows to all. While the last result is a failure it is back
    at its beginning: what fails is not met by more and more calls. Where health checks closed it on probation, no
    call has shown yet that it works: the ramp begins with the first success.
    """
    breaker = record.breaker
    if not isinstance(breaker, Closed) or not breaker.since_s or record.standing(now_s):
        return 1.0
    first = min(policy.permits / max(record.fleet, 1), 1.0)
    passed_s = now_s - breaker.since_s
    if breaker.on_probation or (breaker.failures and passed_s < policy.ramp_s):
        return first
    return min(first + (1 - first) * max(passed_s, 0.0) / policy.ramp_s, 1.0)


def kept_visible(record: Record, now_s: float) -> Record:
    """The record that earlier systems go on to see while calls must wait.

    They take a state whose ``last_check`` is older than five minutes for none at all, and let their calls go.
    """
    if record.phase(now_s) is Phase.CLOSED and block_s(record, now_s) is None:
        return record
    return replace(record, upstream=replace(record.upstream, last_check_s=now_s))
