"""Times for people: how long ago, or how long until."""

from __future__ import annotations

from openrouter_guard.rules.codec import parse_iso

__all__ = ["ago", "clock", "length", "until"]


def length(seconds: float) -> str:
    """Return a length of time in one or two units.

    >>> [length(s) for s in (0.4, 59, 60, 150, 3600, 5400, 90_000)]
    ['0s', '59s', '1m', '2m30s', '1h', '1h30m', '1d1h']
    """
    left = int(max(seconds, 0))
    days, hours, minutes = left // 86_400, left % 86_400 // 3_600, left % 3_600 // 60
    units = ((days, "d"), (hours, "h"), (minutes, "m"), (left % 60, "s"))
    first = next((at for at, (number, _) in enumerate(units) if number), 3)
    return "".join(f"{number}{unit}" for number, unit in units[first : first + 2] if number or first == 3)


def ago(at: str | None, now: float) -> str:
    return f"{length(now - parse_iso(at))} ago" if at else "-"


def until(at: str | None, now: float) -> str:
    """Return the time of day and how far away it is: ``12:30:00 UTC (in 5m)``."""
    left_s = parse_iso(at) - now
    return f"{clock(at)} (in {length(left_s)})" if at and left_s > 0 else clock(at)


def clock(at: str | None) -> str:
    """Return the second of an ISO 8601 time in UTC: ``2026-03-01 12:30:00 UTC``."""
    return f"{at[:10]} {at[11:19]} UTC" if at else "-"
