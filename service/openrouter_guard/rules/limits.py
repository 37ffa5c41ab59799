"""Long rate limits: one answer to one of many workers must not stop the fleet for hours, and every limit is tested.

A broken proxy, or a wrong unit, says "wait a day" as easily as the platform does. So a wait of more than five minutes
is a claim. Alone it holds the fleet for five minutes; it stands for its whole length once a second reporter makes it
too. While a long limit stands, one call of the whole fleet may test it every few minutes.
"""

from __future__ import annotations

from dataclasses import replace

from .breaker import Closed
from .shared_state import Limit, SharedState
from .signals import OpenRouterState

__all__ = [
    "LONG_S",
    "LOOK_S",
    "after_look",
    "claimed",
    "confirmed",
    "is_look_due",
    "looked",
    "wants_check",
    "watched",
]

LONG_S = 300.0
"""A longer wait is a claim; alone, it holds for this long."""
LOOK_S = 300.0
"""How often one call may test a long limit, and one health check is made."""
AGAIN_S = 10.0
"""When another call may test, if the last one said nothing."""


def claimed(record: SharedState, wait_s: float, *, by: str, now: float) -> SharedState:
    """Return the record after the reporter *by* was told to wait; the later of all times wins.

    A reporter whose claim was followed by others' successes cannot hold the fleet again alone.
    """
    until = now + wait_s
    if wait_s <= LONG_S:
        return _held(record, until, now)
    limit, is_disproved = record.limit, _is_disproved(record)
    others_until = 0.0 if limit.by in ("", by) or is_disproved or limit.until <= now else limit.until
    if is_disproved and limit.by == by and limit.until > now and record.live_reporters > 1:
        return record
    claim = limit if others_until > until else replace(limit, by=by, at=now, until=until)
    return watched(_held(replace(record, limit=claim), max(now + LONG_S, min(until, others_until)), now), now)


def confirmed(record: SharedState, now: float) -> SharedState:
    """Return the record after a health check met a rate limit without an end: a worker's claim stands."""
    limit = record.limit
    if not limit.by or limit.until <= now or _is_disproved(record):
        return record
    return watched(_held(record, limit.until, now), now)


def watched(record: SharedState, now: float) -> SharedState:
    """Return the record with the time of the next test, if its limit is long."""
    limit, is_long = record.limit, record.upstream.limited_until > now + LONG_S
    if not is_long or limit.retest_at:
        return record
    return replace(record, limit=replace(limit, retest_at=now + LOOK_S))


def is_look_due(record: SharedState, now: float) -> bool:
    """Return whether one call of the whole fleet may go, under a permit, to test a limit."""
    is_long = 0 < record.limit.retest_at <= now < record.upstream.limited_until
    return is_long and record.override is None


def looked(record: SharedState, owner: str, now: float) -> SharedState:
    """Return the record with *owner*'s call as the testing one."""
    return replace(record, limit=replace(record.limit, retest_at=now + LOOK_S, looker=owner))


def after_look(record: SharedState, owner: str, *, is_success: bool, is_void: bool, now: float) -> SharedState:
    """Return the record after *owner*'s test.

    A success ends the limit; after a call that said nothing, another may soon test.
    """
    if not owner or record.limit.looker != owner:
        return record
    if is_success:
        upstream = replace(record.upstream, rate_limit_reset_at=0.0, claimed_reset_at=0.0, last_success_at=now)
        if upstream.state is OpenRouterState.RATE_LIMITED:
            upstream = replace(upstream, state=OpenRouterState.ACTIVE, message="Service active", error_details="")
        breaker = record.breaker
        if isinstance(breaker, Closed):
            breaker = replace(breaker, held_until=0.0, ramp_from=now)
        return replace(record, breaker=breaker, upstream=upstream, limit=Limit())
    retest_at = now + AGAIN_S if is_void else record.limit.retest_at
    return replace(record, limit=replace(record.limit, looker="", retest_at=retest_at))


def wants_check(record: SharedState, now: float) -> bool:
    """Return whether a health check may tell more about the limit: about a new claim, and then every few minutes."""
    upstream, limit = record.upstream, record.limit
    if upstream.limited_until <= now:
        return False
    is_new_claim = limit.until > upstream.rate_limit_reset_at and upstream.checked_at < limit.at
    return is_new_claim or (limit.retest_at > 0 and now - upstream.checked_at >= LOOK_S)


def _held(record: SharedState, until: float, now: float) -> SharedState:
    upstream, limit = record.upstream, record.limit
    if upstream.limited_until <= now and limit.retest_at:
        limit = replace(limit, retest_at=0.0, looker="")  # of an expired limit
    held = replace(upstream, rate_limit_reset_at=max(upstream.rate_limit_reset_at, until))
    return replace(record, upstream=held, limit=limit)


def _is_disproved(record: SharedState) -> bool:
    """Return whether a call succeeded that probably began after the claim had held the fleet."""
    return record.limit.by != "" and record.upstream.last_success_at > record.limit.at + LONG_S
