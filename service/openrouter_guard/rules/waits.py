"""Reads how long an answer asks to wait, in all known formats; more than 25 hours are cut.

A wait of zero, or one in the past, is no information. Times count from the answer's own ``Date``, else from the clock
that the caller passes in: two readings of one clock differ by the wait, whatever that clock shows.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from datetime import UTC
from typing import Any

from .parsing import number, parse_moment, text_of
from .units import DAY_S, HOUR_S, MINUTE_S

__all__ = ["DATE", "MAX_WAIT_S", "RESET", "TOLD", "answered_at", "has_reset", "told", "wait_s"]

MAX_WAIT_S = 25 * 3600.0
"""No upstream limit lasts longer than a day; a later time means a wrong clock or unit."""
RESET, DATE = "x-ratelimit-reset", "date"
TOLD = ("retry-after", "retry-after-ms", RESET, DATE)
"""The headers about times."""
_DURATION_MOST_S = 1e8
"""A larger number is not a duration but a time since 1970."""
_NUMBER_MOST = 1e20
_UNITS = ((1e17, 1e-9), (1e14, 1e-6), (1e11, 1e-3), (0.0, 1.0))
"""Smallest numbers that count since 1970, with their part of a second."""
_HEADER_MOST = 100
_VALUE_LENGTH = 400
_TIMES_MOST = 8
_UNIT_S: Mapping[str, float] = {"s": 1, "m": MINUTE_S, "h": HOUR_S, "d": DAY_S}
_UNIT = r"(ms(?:ecs?)?|milliseconds?|s(?:ecs?|econds?)?|m(?:ins?|inutes?)?|h(?:rs?|ours?)?|d(?:ays?)?)"
_PART = rf"([0-9]{{1,15}}(?:\.[0-9]{{0,9}})?)\s?{_UNIT}\.?[\s,]{{0,2}}"
_PARTS = re.compile(_PART, re.IGNORECASE)
_DURATION = re.compile(rf"(?:P?T?{_PART}){{1,5}}", re.IGNORECASE)
"""``30s``, ``1m30s``, ``250 ms``, ``5 minutes``, ``PT30S``."""
_NEXT = re.compile(r"(?<!mon)(?<!tue)(?<!wed)(?<!thu)(?<!fri)(?<!sat)(?<!sun)(?<!day)\s{0,4}[,;]", re.IGNORECASE)
"""Separates two values; not the comma after the day of a date."""


def told(headers: Mapping[str, Any], metadata: Mapping[str, Any]) -> dict[str, str]:
    """Return the headers about times: those of the answer, and below them those that its body repeats.

    Args:
        headers: Headers of the answer, with lower-case names.
        metadata: Metadata of the error in its body.
    """
    repeated = metadata.get("headers")
    named = list(repeated.items())[:_HEADER_MOST] if isinstance(repeated, Mapping) else ()
    found = {text_of(name, 64).strip().lower(): _line(value) for name, value in named}
    found.pop(DATE, None)
    own = {name: _line(headers.get(name)) for name in TOLD}
    return {name: value for name, value in {**found, **{k: v for k, v in own.items() if v}}.items() if name in TOLD}


def answered_at(headers: Mapping[str, str], now: float) -> float:
    """Return the time of the answer, in Unix seconds: its own, if within a day of *now*."""
    at = _parse_http_date(headers.get(DATE, ""))
    return at if at is not None and abs(at - now) <= MAX_WAIT_S else now


def wait_s(headers: Mapping[str, str], metadata: Mapping[str, Any], now: float) -> float | None:
    """Return the longest requested wait, in seconds, at most 25 h; None without one.

    Of several values in one header, the longest counts too.

    Args:
        headers: As returned by :func:`told`.
        metadata: Metadata of the error in the body.
        now: Time of the answer, see :func:`answered_at`.
    """
    milliseconds = (number(each, 0, _NUMBER_MOST) for each in _values(headers.get("retry-after-ms")))
    after = [*_values(headers.get("retry-after")), *_values(metadata.get("retry_after_seconds"))]
    asked = (
        *(each / 1000 for each in milliseconds if each is not None),
        *(_ahead_s(each, now) for each in after),
        _reset_s(headers, now),
    )
    ahead = [each for each in asked if each is not None and each > 0]
    return min(max(ahead), MAX_WAIT_S) if ahead else None


def has_reset(headers: Mapping[str, str], now: float) -> bool:
    """Return whether the answer names a limit with an end in the future."""
    return (_reset_s(headers, now) or 0.0) > 0


def _reset_s(headers: Mapping[str, str], now: float) -> float | None:
    """Return the wait until the end of a limit.

    The end is a time, so a small number is long past, and not a duration.
    """
    times = (each for each in _values(headers.get(RESET)) if number(each, 0, _DURATION_MOST_S) is None)
    return max((ahead for each in times if (ahead := _ahead_s(each, now)) is not None), default=None)


def _line(raw: object) -> str:
    """Return the values of a header as one text, joined if it is repeated."""
    values = raw[:_TIMES_MOST] if isinstance(raw, list | tuple) else (raw,)
    return ", ".join(text for value in values if (text := text_of(value, 100).strip()))[:_VALUE_LENGTH]


def _values(raw: object) -> Iterator[object]:
    """Return each value in a header; a number is one value."""
    if isinstance(raw, int | float):
        yield raw
    else:
        yield from (each.strip(" \t\"'") for each in _NEXT.split(_line(raw), _TIMES_MOST) if each.strip(" \t\"'"))


def _ahead_s(raw: object, now: float) -> float | None:
    """Return a duration, or a time in any unit or format, as seconds from now; negative if it is over."""
    found = number(raw, 0, _NUMBER_MOST)
    if found is None:
        if (duration_s := _duration_s(text_of(raw, 64))) is not None:
            return duration_s
        at = _parse_iso_or_http(raw, now)
        return at - now if at else None
    if found < _DURATION_MOST_S:
        return found
    # Upstreams and gateways differ, but seconds are not milliseconds for the next 3,000 years.
    return found * next(unit for least, unit in _UNITS if found >= least) - now


def _duration_s(text: str) -> float | None:
    if _DURATION.fullmatch(text) is None:
        return None
    return sum(float(amount) * _unit_s(unit.lower()) for amount, unit in _PARTS.findall(text))


def _unit_s(unit: str) -> float:
    return 1e-3 if unit.startswith(("ms", "mil")) else _UNIT_S[unit[0]]


def _parse_iso_or_http(raw: object, now: float) -> float | None:
    text = text_of(raw, 64)
    return (parse_moment(raw, now, math.inf) if ":" in text else None) or _parse_http_date(raw)


def _parse_http_date(raw: object) -> float | None:
    text = text_of(raw, 64)
    if ":" not in text:
        return None
    # Rare, so a probe that starts every few seconds should not pay for it.
    from email.utils import parsedate_to_datetime

    try:
        at = parsedate_to_datetime(text)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError, LookupError):
        return None
