"""The effect of health checks on the record.

When one is allowed, when one is wanted, and how it changes the state.
"""

from __future__ import annotations

import math
from dataclasses import replace

from . import breaker as breakers
from . import limits
from .admission import fleet_refusal
from .breaker import Breaker, BreakerState, Closed, Open, Policy, needs_person
from .evaluation import CHECK_HOLDS_S, found_lately
from .failure_run import CHECKER_PREFIX
from .shared_state import SharedState, Upstream, fresh
from .signals import OpenRouterState, Signal
from .transitions import CHECKS_SUCCEEDED, KEY_WORKS, now_closed, now_half_open, now_open

__all__ = [
    "CHECKER_PREFIX",
    "after_check",
    "after_update",
    "doubted",
    "is_checks_only",
    "is_recheck_due",
    "wants_check",
    "with_check_slot",
]

SLOT_S = 60.0
"""One health check in this time, for the whole fleet."""
_TROUBLE = frozenset({OpenRouterState.SERVICE_UNAVAILABLE, OpenRouterState.ERROR})
_OF_THE_ACCOUNT = frozenset({OpenRouterState.API_KEY_INVALID, OpenRouterState.CREDITS_EXHAUSTED})


def doubted(record: SharedState, signal: Signal, *, now: float, policy: Policy, by: str) -> SharedState:
    """Return the record after a call reported that the key or the credit is gone.

    One call may be wrong, because valid keys were refused in past incidents. A recent health check confirms it;
    otherwise a check is wanted at once.
    """
    if not signal.doubts_account or signal.error_type is None or not isinstance(record.breaker, Closed):
        return record
    if record.override is not None:
        return record
    if found_lately(record, signal.error_type.state, now):
        return now_open(record, signal.error_type.value, by, now, policy)
    is_asked = record.doubted_at and now - record.check_wanted_at <= policy.confirm_s
    # Without a success since, it is the same doubt.
    doubted_since = record.doubted_at if record.doubted_at > record.upstream.last_success_at else now
    return record if is_asked else replace(record, check_wanted_at=now, doubted_at=doubted_since)


def wants_check(record: SharedState, *, now: float, policy: Policy) -> bool:
    """Return whether a call asked for a health check that was not made yet and would not come too late."""
    is_open_question = record.check_wanted_at > record.upstream.checked_at
    return is_open_question and _is_in_doubt(record, now, policy)


def _is_in_doubt(record: SharedState, now: float, policy: Policy) -> bool:
    return isinstance(record.breaker, Closed) and now - record.check_wanted_at <= policy.confirm_s


def after_check(
    record: SharedState,
    found: Upstream,
    *,
    now: float,
    policy: Policy,
    by: str,
    began_at: float = math.inf,
    reporter: str = "",
) -> SharedState:
    """Return the record after a health check that began at ``began_at``, if known; *reporter* counts it.

    A good check says that the key works, not that calls do: it does not overrule the workers' failures in a breaker
    that is not closed. It may end an open breaker's wait, so that a call tries. Only if no worker is there to try,
    good checks in a row close it, on probation. A bad check changes nothing there, so it never delays the recovery.
    """
    seen, is_good = record.upstream, found.state is OpenRouterState.ACTIVE
    known = replace(
        found,
        last_api_call_at=seen.last_api_call_at,
        last_success_at=seen.last_success_at,
        rate_limit_reset_at=seen.rate_limit_reset_at,
        claimed_reset_at=seen.claimed_reset_at,
    )
    if not is_good and (found.balance, found.usage_today, found.usage_month) == (None, None, None):
        known = _with_amounts(known, seen)
    is_outdated = is_good and began_at < record.doubted_at
    if is_good and _workers_disagree(record):
        known = _as_workers_saw_it(known, seen, is_outdated=is_outdated)
    elif is_good and seen.limited_until > now:
        # The key is not what waits.
        known = replace(known, state=seen.state, message=seen.message, error_details=seen.error_details)
    counts = is_good and record.phase(now) is BreakerState.HALF_OPEN and _tells_of_recovery(record.breaker, found)
    checked = replace(
        record,
        upstream=known,
        check_found=None if is_outdated else found.state,
        good_checks=record.good_checks + 1 if counts else 0,
    )
    if found.state is OpenRouterState.RATE_LIMITED or found.rate_limit_reset_at > now:
        checked = _limited(checked, found, reporter, now)
    if record.override is not None:
        return replace(checked, good_checks=0)
    if found.state in _OF_THE_ACCOUNT and _is_in_doubt(record, now, policy):
        return now_open(checked, found.state.value, by, now, policy)
    if isinstance(record.breaker, Open) and now < record.breaker.until - breakers.try_early_s(policy):
        ends = is_good and not is_outdated and _ends_wait(record, record.breaker, found, began_at)
        return now_half_open(checked, record.breaker, by, now) if ends else checked
    if checked.good_checks < policy.good_checks:
        return checked
    if not breakers.waits_for_trial(record.breaker, now=now, policy=policy):
        return checked
    return now_closed(checked, by, now, reason=CHECKS_SUCCEEDED)


def _with_amounts(found: Upstream, seen: Upstream) -> Upstream:
    """Return the last known account data, with its age: a failed check says nothing new about it."""
    return replace(
        found,
        balance=seen.balance,
        usage_today=seen.usage_today,
        usage_month=seen.usage_month,
        amounts_at=seen.amounts_at,
    )


def _limited(record: SharedState, found: Upstream, reporter: str, now: float) -> SharedState:
    """Return the record after the check met a rate limit, as a worker may have before."""
    if found.rate_limit_reset_at <= now:
        return limits.confirmed(record, now)
    return limits.claimed(record, found.rate_limit_reset_at - now, by=reporter, now=now)


def after_update(record: SharedState, told: Upstream, *, now: float, policy: Policy, by: str) -> SharedState:
    """Return the record after a check by an application that maintains the state itself.

    It is a health check, but not the service's: it makes no balance younger, and settles no doubt.
    """
    seen = record.upstream
    found = replace(
        told,
        balance=seen.balance if told.balance is None else told.balance,
        usage_today=seen.usage_today if told.usage_today is None else told.usage_today,
        usage_month=seen.usage_month if told.usage_month is None else told.usage_month,
        error_details=told.error_details or seen.error_details,
        last_check_at=now,
        checked_at=seen.checked_at,
    )
    after = after_check(record, found, now=now, policy=policy, by=by, reporter=by)
    return replace(after, check_found=record.check_found)


def _as_workers_saw_it(found: Upstream, seen: Upstream, *, is_outdated: bool) -> Upstream:
    """The workers' findings about the service stand; for the key, the check knows better.

    Unless the check began before they saw it.
    """
    if seen.state is OpenRouterState.API_KEY_INVALID and not is_outdated:
        return replace(found, state=OpenRouterState.SERVICE_UNAVAILABLE, message=KEY_WORKS, error_details="")
    return replace(found, state=seen.state, message=seen.message, error_details=seen.error_details)


def _tells_of_recovery(breaker: Breaker, found: Upstream) -> bool:
    """A working key says nothing about an account that was empty, unless the check also returns the balance."""
    was_empty = breaker.reason == OpenRouterState.CREDITS_EXHAUSTED
    return not was_empty or (found.balance is not None and found.balance > 0)


def _workers_disagree(record: SharedState) -> bool:
    breaker = record.breaker
    if isinstance(breaker, Closed):
        return breaker.failures > 0 and not is_checks_only(breaker)
    return True


def is_checks_only(breaker: Closed) -> bool:
    """Return whether no worker contributed to the counted failures: then a good check may end them.

    Older workers leave no name in the run.
    """
    return bool(breaker.run) and all(reporter.startswith(CHECKER_PREFIX) for reporter in breaker.run)


def _ends_wait(record: SharedState, breaker: Open, found: Upstream, began_at: float) -> bool:
    """Return whether a good check, which began at ``began_at``, allows a trial call now.

    If only calls fail, a check of the key mostly works all the while and says nothing. It does say something if it
    failed before and now works. About the key and the account, nothing knows more than a check. A check from before a
    change by other means says nothing.
    """
    if not math.isfinite(began_at) or not _tells_of_recovery(breaker, found):
        return False
    if needs_person(breaker.reason):
        return began_at >= breaker.opened_at
    checked_at = record.upstream.checked_at
    return record.check_found in _TROUBLE and breaker.opened_at - CHECK_HOLDS_S <= checked_at <= began_at


def is_recheck_due(record: SharedState, *, now: float, policy: Policy, slot_s: float = SLOT_S) -> bool:
    """Return whether to check an open breaker: as often as the fleet's slot allows, or as the policy does."""
    breaker = record.breaker
    if not isinstance(breaker, Open) or record.override is not None or record.upstream.limited_until > now:
        return False
    sooner_s = max(slot_s - policy.recheck_s, 0.0)
    return now < breaker.until and record.check_slot_at - sooner_s <= now


def with_check_slot(record: SharedState | None, *, now: float, slot_s: float, policy: Policy) -> SharedState | None:
    """Return the record with the check slot taken, None if another process has it.

    No check is made while calls wait for a known rate limit, because it would change nothing, except those that watch
    a long one. Nor while an override keeps them waiting.
    """
    known = record or fresh(now)
    taken = replace(known, check_slot_at=now + slot_s)
    if is_recheck_due(known, now=now, policy=policy, slot_s=slot_s):
        return taken
    is_refused = fleet_refusal(known, now) is not None
    if known.check_slot_at > now or (is_refused and not limits.wants_check(known, now)):
        return None
    return taken
