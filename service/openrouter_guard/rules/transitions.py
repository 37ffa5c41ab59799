"""Transitions of the shared state, and their entries in the history.

Every function takes the record as it was read and returns its successor; the store commits it only if no other
process changed it in between. A record that needs no change is returned unchanged.
"""

from __future__ import annotations

from dataclasses import replace

from . import breaker as breakers
from . import failure_run as runs
from . import older_writers
from .breaker import Breaker, BreakerState, Closed, HalfOpen, Open, Policy
from .override import Override
from .shared_state import KEPT_TRANSITIONS, News, SharedState, Transition, next_epoch
from .signals import OpenRouterState

__all__ = [
    "CHECKS_SUCCEEDED",
    "OVERRIDE_ENDED",
    "REPORTS_SUCCEEDED",
    "TRIAL_SUCCEEDED",
    "with_breaker",
    "now_closed",
    "now_half_open",
    "now_open",
    "overridden",
    "released",
    "reset",
    "append_transition",
]

KEY_WORKS = "Calls were refused as if the API key were invalid, but the key works"
OVERRIDE_ENDED = "override_ended"
TRIAL_SUCCEEDED, CHECKS_SUCCEEDED, REPORTS_SUCCEEDED = "trial_succeeded", "checks_succeeded", "reports_succeeded"
_WELL = {
    TRIAL_SUCCEEDED: "Service active",
    CHECKS_SUCCEEDED: "Health checks succeed",
    REPORTS_SUCCEEDED: "Reported calls succeed",
}


def overridden(record: SharedState, override: Override, now: float) -> SharedState:
    """Return the record with a new override, which replaces an earlier one."""
    fleet = record.live_reporters if isinstance(record.breaker, Closed) else record.fleet
    after = replace(record, override=override, fleet=fleet, legacy_open=None)
    return append_transition(after, record.phase(now), after.phase(now), override.kind, override.who, now)


def released(record: SharedState, *, by: str, now: float) -> SharedState:
    """Return the record without an override: the breaker is as before, with a ramp if calls were refused."""
    if record.override is None:
        return record
    breaker = record.breaker
    if record.override.is_open and isinstance(breaker, Closed):
        breaker = Closed(trips=breaker.trips, since=now, on_probation=breaker.on_probation)
    before = BreakerState.OPEN if record.override.is_open else BreakerState.CLOSED
    after = replace(record, breaker=breaker, override=None, legacy_open=None)
    return append_transition(after, before, after.phase(now), OVERRIDE_ENDED, by, now)


def reset(record: SharedState, *, by: str, now: float) -> SharedState:
    """Return the record after a person closed the breaker and ended the override; a rate limit stands."""
    record = released(record, by=by, now=now)
    if isinstance(record.breaker, Closed):
        return replace(record, breaker=runs.without(record.breaker))
    breaker = Closed(trips=record.breaker.trips, since=now)
    upstream = replace(record.upstream, state=OpenRouterState.ACTIVE, message=f"Reset by {by}", error_details="")
    return with_breaker(replace(record, upstream=upstream), breaker, "reset", by, now)


def now_open(record: SharedState, reason: str, by: str, now: float, policy: Policy) -> SharedState:
    share = _share(record.epoch)
    breaker = breakers.opened(record.breaker, reason=reason, now=now, policy=policy, share=share)
    if isinstance(record.breaker, Closed):
        record = replace(record, fleet=record.live_reporters)
    seen = record.upstream
    if seen.state is OpenRouterState.API_KEY_INVALID and reason == OpenRouterState.SERVICE_UNAVAILABLE:
        seen = replace(seen, state=OpenRouterState.SERVICE_UNAVAILABLE, message=KEY_WORKS)
    record = replace(record, upstream=older_writers.unwell(seen, reason))
    return with_breaker(record, breaker, reason, by, now)


def now_half_open(record: SharedState, breaker: Open, by: str, now: float) -> SharedState:
    """Return the record whose open breaker may be tried early, after a good health check."""
    after = HalfOpen(breaker.reason, breaker.opened_at, breaker.trips, breaker.failures, {}, now, until=breaker.until)
    return with_breaker(record, after, "check_succeeded", by, now)


def _share(number: int) -> float:
    """Return a pseudo-random number from 0 up to 1, the same for all processes that decide on the same record."""
    return number * 0x9E3779B1 % 2**32 / 2**32


def now_closed(
    record: SharedState, by: str, now: float, *, reason: str = TRIAL_SUCCEEDED, call_s: float = 0.0
) -> SharedState:
    """Return the record after recovery: a trial call that took *call_s* succeeded (0: unknown).

    With another *reason*, such as good health checks, it is on probation.
    """
    # The wait reported to one trial call stands, though another succeeded.
    reset_at = record.upstream.rate_limit_reset_at if record.upstream.rate_limit_reset_at > now else 0.0
    trips = record.breaker.trips
    on_probation = reason != TRIAL_SUCCEEDED
    # As stored.
    call_s = round(call_s, 3)
    breaker = Closed(trips=trips, since=now, on_probation=on_probation, call_s=call_s, held_until=reset_at)
    upstream = replace(
        record.upstream,
        state=OpenRouterState.ACTIVE,
        message=_WELL[reason],
        error_details="",
        last_success_at=record.upstream.last_success_at if on_probation else now,
        rate_limit_reset_at=reset_at,
    )
    return with_breaker(replace(record, upstream=upstream), breaker, reason, by, now)


def with_breaker(record: SharedState, breaker: Breaker, reason: str, by: str, now: float) -> SharedState:
    # The state that readers saw: an open breaker whose time has passed was half-open already, but not stored as such.
    before = BreakerState.OPEN if isinstance(record.breaker, Open) else record.phase(now)
    after = replace(
        record,
        breaker=breaker,
        legacy_open=None,
        legacy_news=News.NOTHING,
        good_checks=0,
        good_report_at=0.0,
    )
    return append_transition(after, before, breakers.phase(breaker, now), reason, by, now)


def append_transition(
    record: SharedState, before: BreakerState, after: BreakerState, reason: str, by: str, now: float
) -> SharedState:
    """Return the record with one more transition, in a new epoch."""
    # Incremented, so that all processes that decide on the same record get the same number, even only to show it.
    epoch = record.epoch + 1 if record.epoch else next_epoch(0, now)
    change = Transition(epoch, before, after, reason, by, now)
    upstream = replace(record.upstream, last_check_at=now)
    kept = (*record.transitions, change)[-KEPT_TRANSITIONS:]
    return replace(record, epoch=epoch, transitions=kept, upstream=upstream)
