"""Long rate limits: one answer to one of many workers must not stop the fleet for hours, and every limit is tested.

A broken proxy, or a wrong unit, says "wait a day" as easily as the platform does. So a wait of more than five minutes
is a claim. Alone it holds the fleet for five minutes; it stands for its whole length once a second reporter makes it
too. While a long limit stands, one call of the whole fleet may test it every few minutes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .breaker import Closed
from .signals import OpenRouterState

if TYPE_CHECKING:
    from .shared_state import SharedState

__all__ = [
    "LONG_S",
    "LOOK_S",
    "Limit",
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


@dataclass(frozen=True, slots=True)
class Limit:
    """The evidence for a long rate limit.

    Attributes:
        by: The reporter of a long wait that is not fully confirmed; empty if there is none.
        at_s: When it reported.
        until_s: End of the wait that it claims.
        look_s: When one call may test the limit; 0 without a long limit.
        looker: Owner of the testing call.
    """

    by: str = ""
    at_s: float = 0.0
    until_s: float = 0.0
    look_s: float = 0.0
    looker: str = ""


def claimed(record: SharedState, wait_s: float, *, by: str, now_s: float) -> SharedState:
    """Return the record after the reporter *by* was told to wait; the later of all times wins.

    A reporter whose claim was followed by others' successes cannot hold the fleet again alone.
    """
    until_s = now_s + wait_s
    if wait_s <= LONG_S:
        return _held(record, until_s, now_s)
    limit, is_disproved = record.limit, _is_disproved(record)
    others_s = 0.0 if limit.by in ("", by) or is_disproved or limit.until_s <= now_s else limit.until_s
    if is_disproved and limit.by == by and limit.until_s > now_s and record.live_reporters > 1:
        return record
    claim = limit if others_s > until_s else replace(limit, by=by, at_s=now_s, until_s=until_s)
    return watched(_held(replace(record, limit=claim), max(now_s + LONG_S, min(until_s, others_s)), now_s), now_s)


def confirmed(record: SharedState, now_s: float) -> SharedState:
    """Return the record after a health check met a rate limit without an end: a worker's claim stands."""
    limit = record.limit
    if not limit.by or limit.until_s <= now_s or _is_disproved(record):
        return record
    return watched(_held(record, limit.until_s, now_s), now_s)


def watched(record: SharedState, now_s: float) -> SharedState:
    """Return the record with the time of the next test, if its limit is long."""
    limit, is_long = record.limit, record.upstream.limited_until_s > now_s + LONG_S
    if not is_long or limit.look_s:
        return record
    return replace(record, limit=replace(limit, look_s=now_s + LOOK_S))


def is_look_due(record: SharedState, now_s: float) -> bool:
    """Return whether one call of the whole fleet may go, under a permit, to test a limit."""
    is_long = 0 < record.limit.look_s <= now_s < record.upstream.limited_until_s
    return is_long and record.override is None


def looked(record: SharedState, owner: str, now_s: float) -> SharedState:
    """Return the record with *owner*'s call as the testing one."""
    return replace(record, limit=replace(record.limit, look_s=now_s + LOOK_S, looker=owner))


def after_look(record: SharedState, owner: str, *, is_success: bool, is_void: bool, now_s: float) -> SharedState:
    """Return the record after *owner*'s test.

    A success ends the limit; after a call that said nothing, another may soon test.
    """
    if not owner or record.limit.looker != owner:
        return record
    if is_success:
        upstream = replace(record.upstream, rate_limit_reset_s=0.0, claimed_reset_s=0.0, last_success_s=now_s)
        if upstream.state is OpenRouterState.RATE_LIMITED:
            upstream = replace(upstream, state=OpenRouterState.ACTIVE, message="Service active", error_details="")
        breaker = record.breaker
        if isinstance(breaker, Closed):
            breaker = replace(breaker, held_until_s=0.0, ramp_from_s=now_s)
        return replace(record, breaker=breaker, upstream=upstream, limit=Limit())
    look_s = now_s + AGAIN_S if is_void else record.limit.look_s
    return replace(record, limit=replace(record.limit, looker="", look_s=look_s))


def wants_check(record: SharedState, now_s: float) -> bool:
    """Return whether a health check may tell more about the limit: about a new claim, and then every few minutes."""
    upstream, limit = record.upstream, record.limit
    if upstream.limited_until_s <= now_s:
        return False
    is_new_claim = limit.until_s > upstream.rate_limit_reset_s and upstream.checked_s < limit.at_s
    return is_new_claim or (limit.look_s > 0 and now_s - upstream.checked_s >= LOOK_S)


def _held(record: SharedState, until_s: float, now_s: float) -> SharedState:
    upstream, limit = record.upstream, record.limit
    if upstream.limited_until_s <= now_s and limit.look_s:
        limit = replace(limit, look_s=0.0, looker="")  # of an expired limit
    held = replace(upstream, rate_limit_reset_s=max(upstream.rate_limit_reset_s, until_s))
    return replace(record, upstream=held, limit=limit)


def _is_disproved(record: SharedState) -> bool:
    """Return whether a call succeeded that probably began after the claim had held the fleet."""
    return record.limit.by != "" and record.upstream.last_success_s > record.limit.at_s + LONG_S
