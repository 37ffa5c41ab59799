"""Time of the breaker in each state, by UTC day, to the millisecond.

The time is recorded with every transition and about twice a minute in between. The time since then is a function of
the record: an open breaker becomes half-open, and an override ends, by time alone, with no process running.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from typing import TypeAlias

from .admission import kept_visible
from .breaker import BreakerState, Open
from .shared_state import SharedState
from .units import DAY_S

__all__ = ["KEPT_DAYS", "Times", "is_due", "kept", "owing", "passed", "put_down", "timed_until"]

KEPT_DAYS = 30
EVERY_S = 30.0
"""How often the time is recorded without a change.

At most this much is lost of a closed state that all processes left.
"""

Times: TypeAlias = Mapping[float, Mapping[BreakerState, int]]
"""Milliseconds in each state, by the beginning of the UTC day (Unix seconds)."""


def timed_until(record: SharedState) -> float:
    """Return until when the time in each state is recorded; 0 if unknown."""
    if record.timed_until:
        return record.timed_until
    # An unchanged state began with its epoch, which was the time in milliseconds.
    return record.transitions[-1].at if record.transitions else record.epoch / 1000


def passed(record: SharedState, now: float) -> Times:
    """Return the time since it was last recorded."""
    since = timed_until(record)
    return _times(record, max(since, now - KEPT_DAYS * DAY_S), now) if since else {}


def is_due(record: SharedState, now: float, every_s: float = EVERY_S) -> bool:
    """Return whether to record the time without a change."""
    return 0 < timed_until(record) <= now - every_s


def put_down(record: SharedState, now: float) -> SharedState:
    """Return the record whose time is to be recorded, if enough time has passed.

    Not if an older writer wrote over it: its effects come first.
    """
    if record.legacy_open is not None or not is_due(record, now):
        return record
    return replace(kept_visible(record, now), timed_until=now)


def kept(old: SharedState | None, new: SharedState, now: float) -> tuple[SharedState, Times]:
    """Return the record to commit in place of *old*, and the time to record with it, none of it twice.

    If Redis lost the state, the restored record itself contains until when its time was recorded, and the missing
    time before.
    """
    new, owed = replace(new, owed={}), new.owed
    if _is_moved(old, new):
        # Never earlier than it was: after a failover the server's clock may be behind.
        new = replace(new, timed_until=max(now, timed_until(old) if old else 0.0))
    if old is None or timed_until(new) <= timed_until(old):
        return new, owed
    return new, _sum(owed, passed(old, min(timed_until(new), now)))


def owing(record: SharedState, known: SharedState, until: float, now: float) -> SharedState:
    """Return the record to commit if Redis lost *known*, which lasted until *until*, with its time."""
    return replace(record, timed_until=max(now, known.timed_until), owed=passed(known, until))


def _is_moved(old: SharedState | None, new: SharedState) -> bool:
    is_new = old is None or old.epoch != new.epoch
    return is_new and bool(new.transitions) and new.transitions[-1].epoch == new.epoch


def _sum(times: Times, more: Times) -> Times:
    days = {*times, *more}
    return {
        day: {p: times.get(day, {}).get(p, 0) + more.get(day, {}).get(p, 0) for p in BreakerState} for day in days
    }


def _times(record: SharedState, starts_at: float, ends_at: float) -> Times:
    found: dict[float, dict[BreakerState, int]] = defaultdict(lambda: dict.fromkeys(BreakerState, 0))
    for at, next_at in pairwise(_edges(record, starts_at, ends_at)):
        found[at // DAY_S * DAY_S][record.phase(at)] += _ms(next_at) - _ms(at)
    return found


def _edges(record: SharedState, starts_at: float, ends_at: float) -> Iterable[float]:
    """Yield the moments between which the state and the day are the same, in order."""
    inside = {at for at in (*_turns(record), *_midnights(starts_at, ends_at)) if starts_at < at < ends_at}
    return (starts_at, *sorted(inside), ends_at) if starts_at < ends_at else ()


def _turns(record: SharedState) -> Iterator[float]:
    if isinstance(record.breaker, Open):
        yield record.breaker.until
    if record.override is not None:
        yield record.override.until


def _midnights(starts_at: float, ends_at: float) -> Iterator[float]:
    return (float(day * DAY_S) for day in range(int(starts_at // DAY_S) + 1, int(ends_at // DAY_S) + 1))


def _ms(at: float) -> int:
    return round(at * 1000)
