"""Decides how a status request is answered, also while Redis is away: pure functions of a snapshot."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum

from openrouter_guard.api.schemas.status import Source
from openrouter_guard.rules.admission import fleet_refusal
from openrouter_guard.rules.breaker import BreakerState, Closed
from openrouter_guard.rules.limits import wants_check
from openrouter_guard.rules.shared_state import SharedState, Upstream
from openrouter_guard.settings import Thresholds

__all__ = [
    "CheckAvailability",
    "FleetHealth",
    "Plan",
    "adapted",
    "age_s",
    "check_availability",
    "is_due",
    "is_known",
    "fleet_health",
    "plan",
    "source",
    "told_age_s",
]

WELL_ERROR_RATE = 0.01
GRACE_S = 2.0
"""Time that the round trips to Redis may add to a check before it counts as lost."""


class FleetHealth(StrEnum):
    """The health of the calls, which decides how long an answer counts as fresh."""

    WELL = "well"
    PLAIN = "plain"
    TROUBLED = "troubled"


class Plan(StrEnum):
    """How to answer a request."""

    CACHED = "cached"
    REVALIDATE = "revalidate"
    """The cached answer at once, and a check in the background."""
    WAIT = "wait"
    """Make a check, or wait for the running one, within a time limit."""


class CheckAvailability(StrEnum):
    """Whether a new check is possible."""

    FREE = "free"
    """By a check of this process."""
    OUT = "out"
    """A check is running, here or in another replica."""
    NONE = "none"
    """No: calls are refused, this minute's check was made, or Redis is away."""


def plan(
    age_s: float | None,
    check_availability: CheckAvailability,
    *,
    force: bool,
    thresholds: Thresholds,
    told_age_s: float | None = None,
) -> Plan:
    """Return how to answer when the last check is ``age_s`` old (None: there was none).

    A report of an earlier system, ``told_age_s`` old, is shown while the first check runs.
    """
    if age_s is None and told_age_s is not None and told_age_s <= thresholds.stale_s:
        age_s = thresholds.stale_s
    if force or age_s is None or age_s > thresholds.stale_s:
        return Plan.CACHED if check_availability is CheckAvailability.NONE else Plan.WAIT
    if age_s >= thresholds.fresh_s and check_availability is CheckAvailability.FREE:
        return Plan.REVALIDATE
    return Plan.CACHED


def fleet_health(failures: int, calls: int, failed: int, *, thresholds: Thresholds) -> FleetHealth:
    """Return the health of the fleet's calls, from the failures in a row and the counters of the last minutes."""
    if failures or failed > calls * thresholds.alert_error_rate / 2:
        return FleetHealth.TROUBLED
    if calls >= thresholds.alert_calls and failed <= calls * WELL_ERROR_RATE:
        return FleetHealth.WELL
    return FleetHealth.PLAIN


def adapted(fleet_health: FleetHealth, *, thresholds: Thresholds) -> Thresholds:
    """Return the thresholds with the fresh time for this health: never longer than the stale one."""
    match fleet_health:
        case FleetHealth.TROUBLED:
            fresh_s = min(thresholds.min_fresh_s or thresholds.fresh_s / 2, thresholds.fresh_s)
        case FleetHealth.WELL:
            longest_s = thresholds.max_fresh_s or thresholds.fresh_s * 2
            fresh_s = max(min(longest_s, thresholds.stale_s), thresholds.fresh_s)
        case _:
            return thresholds
    return replace(thresholds, fresh_s=fresh_s)


def check_availability(
    record: SharedState | None, now: float, *, is_away: bool, thresholds: Thresholds
) -> CheckAvailability:
    """Return whether a check is possible or running; *record* is None if there is none yet."""
    if is_away:
        return CheckAvailability.NONE
    if record is None:
        return CheckAvailability.FREE
    if fleet_refusal(record, now) is not None and not wants_check(record, now):
        return CheckAvailability.NONE
    if _is_out(record, now, thresholds):
        return CheckAvailability.OUT
    return CheckAvailability.FREE if record.check_slot_at <= now else CheckAvailability.NONE


def _is_out(record: SharedState, now: float, thresholds: Thresholds) -> bool:
    """Return whether a check has begun that may still end."""
    began_at = record.check_slot_at - thresholds.check_slot_s
    # A slot that begins in the future belongs to a replica with other settings: the time of its check is unknown.
    has_begun = record.upstream.checked_at < began_at < now + GRACE_S
    return has_begun and now < began_at + thresholds.check_timeout_s + GRACE_S


def age_s(record: SharedState | None, now: float, *, thresholds: Thresholds) -> float | None:
    """Seconds since the last health check of ours; None if there was none."""
    return _age_s(record.upstream.checked_at if record else 0.0, now, thresholds)


def told_age_s(record: SharedState | None, now: float, *, thresholds: Thresholds) -> float | None:
    """Seconds since the last report of any process, including an earlier system's; None if there was none."""
    return _age_s(record.upstream.last_check_at if record else 0.0, now, thresholds)


def _age_s(at: float, now: float, thresholds: Thresholds) -> float | None:
    # Another writer's clock may be ahead. If it is far ahead, its time would prevent all further checks.
    if not at or at > now + thresholds.fresh_s:
        return None
    return max(now - at, 0.0)


def source(age_s: float | None, *, is_live: bool, thresholds: Thresholds) -> Source:
    if is_live:
        return Source.LIVE
    return Source.CACHE if age_s is not None and age_s < thresholds.fresh_s else Source.STALE


def is_due(
    age_s: float | None, phase: BreakerState, *, thresholds: Thresholds, fleet_health: FleetHealth = FleetHealth.PLAIN
) -> bool:
    """Return whether to check without a request: at once, if OpenRouter was never asked.

    Always while half-open: without a worker for a trial call, only checks can close the breaker. During trouble, as
    soon as the last check is no longer fresh: then a new check matters in any case.
    """
    limit_s = thresholds.fresh_s if fleet_health is FleetHealth.TROUBLED else thresholds.stale_s
    return age_s is None or phase is BreakerState.HALF_OPEN or age_s >= limit_s


def is_known(record: SharedState | None) -> bool:
    """Return whether the upstream was ever seen: a reserved check alone says nothing yet."""
    if record is None:
        return False
    return (replace(record.upstream, last_check_at=0.0), record.breaker) != (Upstream(), Closed())
