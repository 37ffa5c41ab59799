"""Reports of calls without a permit while half-open: if no worker can make a trial call, they may close the breaker.

A worker without support for permits makes calls anyway, perhaps one a minute. Without an API key no health check can
close the breaker, and without a permit no call does: the fleet would stay paused for ever over a healthy upstream. So
two successes with some time in between close it, on probation.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from . import breaker as breakers
from .breaker import Breaker, BreakerState, Closed, HalfOpen, Open, Policy
from .evaluation import CHECK_HOLDS_S
from .shared_state import SharedState
from .transitions import REPORTS_SUCCEEDED, now_closed

__all__ = ["SPACED_S", "Told", "nobody_tries", "reported"]

SPACED_S = 5.0
"""Two successes within less time may come from one good moment of the upstream."""


@dataclass(frozen=True, slots=True)
class Told:
    """A reported result.

    Attributes:
        is_success: Otherwise a failure of the upstream; neutral results are not passed at all.
        epoch: Epoch in which the call began; 0 if unknown.
        began_at: When it began, if known; else when it was reported.
    """

    is_success: bool
    epoch: int
    began_at: float


def reported(record: SharedState, results: Iterable[Told], *, now: float, policy: Policy, by: str) -> SharedState:
    """Return the record after a report by *by*.

    Only calls count that began after it became half-open, and after the last trial. A failure among them resets the
    count. While a trial call is out, it alone decides. As long as some worker may make one, two successes close
    nothing.
    """
    breaker = record.breaker
    if isinstance(breaker, Closed) or not _is_undecided(record, now):
        return record
    since = _since(breaker)
    told = {each.is_success for each in results if each.epoch in (0, record.epoch) and each.began_at >= since}
    if told != {True}:
        return replace(record, good_report_at=0.0) if told and record.good_report_at else record
    # A value of an earlier outage may be stored, if a worker of an earlier version changed the state since.
    if not since <= record.good_report_at <= now:
        return replace(record, good_report_at=now)
    if now - record.good_report_at < SPACED_S:
        return record
    if not breakers.waits_for_trial(breaker, now=now, policy=policy):
        return record
    return now_closed(record, by, now, reason=REPORTS_SUCCEEDED)


def nobody_tries(record: SharedState, now: float, policy: Policy) -> bool:
    """Return whether a half-open breaker waits in vain: no worker asks for a permit, and no service checks."""
    if not _is_undecided(record, now) or record.good_checks:
        return False
    is_checked = now - record.upstream.checked_at <= 2 * CHECK_HOLDS_S
    return not is_checked and breakers.waits_for_trial(record.breaker, now=now, policy=policy)


def _is_undecided(record: SharedState, now: float) -> bool:
    """Return whether it is half-open by itself, with nothing in progress that decides it."""
    if record.override is not None or record.upstream.limited_until > now:
        return False
    is_trial_out = any(ends_at > now for ends_at in record.breaker.permits.values())
    return record.phase(now) is BreakerState.HALF_OPEN and not is_trial_out


def _since(breaker: Breaker) -> float:
    match breaker:
        case Open():
            return breaker.until
        case HalfOpen():
            return breaker.tried_at
        case _:
            return 0.0
