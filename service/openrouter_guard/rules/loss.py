"""Restores a state that Redis has lost: by a flush, an expiry, a failover, or a mistake.

A missing state means lost, not closed. Each state that begins in an empty Redis has a number of its own, ``begun``: a
process that knows another number merges the parts that have not ended yet. Merging twice changes nothing, so all
processes may do so, in any order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from . import breaker as breakers
from . import time_in_state
from .breaker import Breaker, Closed, HalfOpen, Open, Policy
from .codec import encode
from .override import Override
from .shared_state import Limit, News, SharedState, Upstream, next_epoch
from .transitions import OVERRIDE_ENDED

__all__ = ["recovered"]

REJOIN_S = 3.0
"""After a loss no permit is given for this long: holders of earlier permits report them meanwhile."""
LOST = "lost/"
"""Placeholder owner of such a permit until then."""


def recovered(known: SharedState, seen: SharedState | None, now: float, policy: Policy) -> SharedState | None:
    """Return the record to commit when Redis lost a known state.

    Returns:
        None if the shared record has all parts that have not ended yet.
    """
    if seen is not None and _came_of(seen, known):
        return None
    if seen is None:
        return _again(known, now, policy) if _lasts(known, now, policy) else None
    joined = _joined(known, seen, now, policy)
    is_behind = seen.epoch < known.epoch
    # Stored times have microseconds, known times may have more: they are the same if they read the same.
    if not is_behind and (joined == seen or encode(joined) == encode(seen)):
        return None
    if seen.begun not in (0, known.begun) and not seen.timed_until:
        # The first merge also adds the time before the loss.
        joined = time_in_state.owing(joined, known, seen.begun / 1000, now)
    if is_behind or joined.breaker != seen.breaker or joined.override != seen.override:
        return replace(joined, epoch=next_epoch(max(known.epoch, seen.epoch), now))
    return joined


def _came_of(seen: SharedState, known: SharedState) -> bool:
    """Return whether *seen* is *known* after a change. Equal does not count: a field may have been damaged since."""
    if seen.begun != known.begun:
        return False
    # Older writers give a new state no number; a state with transitions has one itself.
    goes_on = bool(seen.begun or seen.transitions or not known.transitions)
    return goes_on and (seen.epoch, seen.version) > (known.epoch, known.version)


def _lasts(known: SharedState, now: float, policy: Policy) -> bool:
    """Return whether any part of it has not ended by itself."""
    is_limited = known.upstream.rate_limit_reset_at > now
    return not _is_over(known.breaker, now, policy) or known.standing(now) is not None or is_limited


def _is_over(breaker: Breaker, now: float, policy: Policy) -> bool:
    """A recently closed breaker has a ramp, and opens for longer if it opens again."""
    return isinstance(breaker, Closed) and not (breaker.since and now - breaker.since < policy.stable_s)


def _again(known: SharedState, now: float, policy: Policy) -> SharedState:
    """Return all of it, as the beginning of an empty Redis."""
    breaker = breakers.with_clock(known.breaker, now=now, policy=policy)
    match breaker:
        case Open():
            breaker = replace(breaker, until=max(breaker.until, _rejoin_at(now)))
        case HalfOpen():
            breaker = _with_unknown(breaker, now, policy)
    again = replace(known, breaker=breaker, epoch=next_epoch(known.epoch, now))
    return time_in_state.owing(again, known, now, now)


def _with_unknown(breaker: HalfOpen, now: float, policy: Policy) -> HalfOpen:
    """Return the breaker with its free permits held for workers that have yet to report theirs."""
    rejoin_at = _rejoin_at(now)
    live = {owner: max(ends_at, rejoin_at) for owner, ends_at in _live(breaker.permits, now).items()}
    unknown = {f"{LOST}{number}": rejoin_at for number in range(len(live), policy.permits)}
    return replace(breaker, permits=live | unknown)


def _rejoin_at(now: float) -> float:
    return round(now + REJOIN_S, 6)


def _joined(known: SharedState, seen: SharedState, now: float, policy: Policy) -> SharedState:
    is_ours = _knows_later(known, seen)
    base = known if is_ours else seen
    is_damaged = (seen.begun, seen.epoch, seen.version) == (known.begun, known.epoch, known.version)
    joined = replace(
        base,
        breaker=_breaker(base.breaker, known, seen, now, policy),
        override=_override(known, seen, now),
        begun=seen.begun,
        version=seen.version,
        live_reporters=seen.live_reporters,
        timed_until=max(known.timed_until, seen.timed_until) if is_ours else seen.timed_until,
        legacy_open=None if is_ours else seen.legacy_open,
        legacy_news=News.NOTHING if is_ours else seen.legacy_news,
        older_writer_at=seen.older_writer_at,
    )
    if is_damaged:
        return joined
    return replace(
        joined,
        upstream=_limited(base.upstream, max(seen.upstream, known.upstream, key=_reset_at), now),
        limit=max(seen.limit, known.limit, key=_of_limit),
        check_slot_at=_later(known.check_slot_at, seen.check_slot_at, now),
        check_wanted_at=max(known.check_wanted_at, seen.check_wanted_at),
        doubted_at=max(known.doubted_at, seen.doubted_at),
    )


def _knows_later(known: SharedState, seen: SharedState) -> bool:
    """Return whether the known breaker is of a later transition than the stored one."""
    if seen.begun == known.begun and (seen.epoch < known.epoch or (seen.begun and seen.epoch > known.epoch)):
        return seen.epoch < known.epoch
    if _last(known) != _last(seen):
        return _last(known) > _last(seen)
    return isinstance(seen.breaker, Closed) and not isinstance(known.breaker, Closed)


def _last(record: SharedState) -> int:
    return record.transitions[-1].epoch if record.transitions else 0


def _breaker(base: Breaker, known: SharedState, seen: SharedState, now: float, policy: Policy) -> Breaker:
    """Return the longer-lasting of two of the same kind, with the permits of both."""
    ours = breakers.with_clock(known.breaker, now=now, policy=policy)
    match base, ours, seen.breaker:
        case Open(), Open(), Open() if _last(known) == _last(seen):
            return replace(base, until=max(ours.until, seen.breaker.until))
        case HalfOpen(), HalfOpen(), HalfOpen():
            return replace(base, permits=_permits(ours.permits, seen.breaker.permits, now, policy))
        case HalfOpen(), HalfOpen(), _:
            # Other workers may have had permits since; their results come from the earlier state.
            return _with_unknown(ours, now, policy)
        case Closed(), Closed(), Closed() if ours.since > seen.breaker.since and not _is_over(ours, now, policy):
            # Counts of the meantime stay.
            return replace(
                seen.breaker,
                since=ours.since,
                trips=ours.trips,
                on_probation=ours.on_probation,
                call_s=ours.call_s,
                ramp_from=max(ours.ramp_from, seen.breaker.ramp_from),
                held_until=max(ours.held_until, seen.breaker.held_until),
            )
        case _:
            return base


def _permits(ours: Mapping[str, float], theirs: Mapping[str, float], now: float, policy: Policy) -> dict[str, float]:
    """Merge the permits of both. A reported permit replaces a placeholder."""
    missing = {owner: ends_at for owner, ends_at in _live(ours, now).items() if ends_at > theirs.get(owner, 0.0)}
    if not missing:
        return dict(theirs)
    joined = _live(theirs, now) | missing
    held = {owner: ends_at for owner, ends_at in joined.items() if not owner.startswith(LOST)}
    unknown = [owner for owner in joined if owner.startswith(LOST)][: max(policy.permits - len(held), 0)]
    return held | {owner: joined[owner] for owner in unknown}


def _live(permits: Mapping[str, float], now: float) -> dict[str, float]:
    return {owner: ends_at for owner, ends_at in permits.items() if ends_at > now}


def _override(known: SharedState, seen: SharedState, now: float) -> Override | None:
    ours, theirs = known.standing(now), seen.standing(now)
    if ours is None or theirs == ours:
        return seen.override
    later = [change for change in seen.transitions if change.epoch > _last(known)]
    is_ended = any(change.reason == OVERRIDE_ENDED for change in later)
    is_replaced = theirs is not None and any(change.reason == theirs.kind for change in later)
    if is_ended or is_replaced:
        return seen.override
    # Their order is unknown, so all processes choose the same one.
    return ours if theirs is None else max(ours, theirs, key=_order)


def _order(override: Override) -> tuple[float, str, str, str]:
    return override.until, override.kind, override.who, override.why


def _limited(upstream: Upstream, later: Upstream, now: float) -> Upstream:
    if later.rate_limit_reset_at <= max(now, upstream.rate_limit_reset_at):
        return upstream
    reset_at = later.rate_limit_reset_at
    return replace(upstream, state=later.state, message=later.message, rate_limit_reset_at=reset_at)


def _reset_at(upstream: Upstream) -> float:
    return upstream.rate_limit_reset_at


def _of_limit(limit: Limit) -> tuple[float, float, float, str, str]:
    return limit.until, limit.retest_at, limit.at, limit.by, limit.looker


def _later(ours: float, theirs: float, now: float) -> float:
    return ours if ours > max(now, theirs) else theirs
