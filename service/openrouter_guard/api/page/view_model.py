"""The content of the status page, computed by pure functions so that tests can check every word.

All times are Unix seconds of Redis' clock unless a name says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from openrouter_guard.api.schemas.status import StatusAnswer
from openrouter_guard.api.stats.figures import COUNTER_MOST, WINDOWS, availability
from openrouter_guard.rules.breaker import BreakerState
from openrouter_guard.rules.latency import of_counters
from openrouter_guard.rules.override import OverrideKind
from openrouter_guard.rules.parsing import whole
from openrouter_guard.rules.signals import OpenRouterState
from openrouter_guard.rules.units import DAY_S

__all__ = [
    "DAYS",
    "Availability",
    "Beside",
    "PageModel",
    "Day",
    "Headline",
    "Segment",
    "Tone",
    "days_of",
    "duration",
    "headline",
    "segments_of",
    "series_of",
    "utc",
]

DAYS = 30
TIMELINE_S = DAY_S
_VISIBLE_PERCENT = 0.4
_BAD_DAY_PERCENT = 5.0
"""A day with this error rate or more is marked even though the breaker stayed closed."""


class Tone(StrEnum):
    """Colour of a value; never the only indication of its meaning."""

    GOOD = "good"
    WARN = "warn"
    BAD = "bad"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Headline:
    """The current state as text."""

    tone: Tone
    words: str
    detail: str


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment of the breaker's timeline; ``start`` and ``width`` are per cent of the whole.

    Minimum width of a segment, so that an outage of a minute is visible on the timeline of a day.
    """

    state: str
    tone: Tone
    start: float
    width: float
    begins: str
    ends: str

    @property
    def drawn_width(self) -> float:
        return max(self.width, _VISIBLE_PERCENT)

    @property
    def drawn_start(self) -> float:
        return min(self.start, 100 - self.drawn_width)


@dataclass(frozen=True, slots=True)
class Day:
    """One UTC day.

    Attributes:
        in_state: Seconds that the breaker was in each state; empty if not recorded.
        percentiles_ms: p50, p95 and p99 of the calls' latency; None without calls.
    """

    date: str
    calls: int
    failed: int
    in_state: Mapping[BreakerState, float]
    percentiles_ms: tuple[int | None, int | None, int | None]

    @property
    def open_s(self) -> float | None:
        """Seconds for which calls were refused; None if not recorded."""
        return self.in_state.get(BreakerState.OPEN, 0.0) if self.in_state else None

    @property
    def error_rate(self) -> float | None:
        """Error rate in per cent; None without calls."""
        return round(100 * self.failed / self.calls, 2) if self.calls else None

    @property
    def tone(self) -> Tone:
        if self.open_s:
            return Tone.BAD
        if (self.error_rate or 0) >= _BAD_DAY_PERCENT:
            return Tone.WARN
        return Tone.GOOD if self.calls or self.in_state else Tone.UNKNOWN

    @property
    def words(self) -> str:
        if self.tone is Tone.UNKNOWN:
            return "nothing recorded"
        said = f"{self.calls:,} calls, {self.failed:,} failed"
        return f"{said}, calls paused for {duration(self.open_s)}" if self.open_s else said


@dataclass(frozen=True, slots=True)
class Availability:
    """Share of the time in which calls were not refused, per cent; None if not recorded."""

    days: int
    percent: float | None


@dataclass(frozen=True, slots=True)
class Beside:
    """A scope of this service, and its state as text."""

    name: str
    headline: Headline


@dataclass(frozen=True, slots=True)
class PageModel:
    """Everything on the page; None stands for a value that could not be read."""

    status: StatusAnswer
    now: float
    headline: Headline
    segments: Sequence[Segment]
    days: Sequence[Day]
    history: Sequence[Mapping[str, Any]] | None
    workers: Mapping[str, Mapping[str, Any]] | None
    paused: Mapping[str, Mapping[str, Any]] | None

    @property
    def availability(self) -> list[Availability]:
        shares = {days: availability(day.in_state for day in self.days[-days:]) for days in WINDOWS}
        return [Availability(days, None if share is None else 100 * share) for days, share in shares.items()]

    @property
    def series(self) -> dict[str, Any]:
        return series_of(self.days)


_CAUSES: Mapping[str, str] = {
    OpenRouterState.CREDITS_EXHAUSTED: "the account is out of credit",
    OpenRouterState.API_KEY_INVALID: "the API key is refused",
    OpenRouterState.API_KEY_MISSING: "there is no API key",
    OpenRouterState.RATE_LIMITED: "OpenRouter limits the rate",
    OpenRouterState.SERVICE_UNAVAILABLE: "OpenRouter is not available",
}
_FORCED = {
    OverrideKind.FORCED_OPEN: (Tone.BAD, "Calls are stopped by a person"),
    OverrideKind.FORCED_CLOSED: (Tone.WARN, "Calls go, because a person says so"),
    OverrideKind.DISABLED: (Tone.WARN, "The breaker is switched off by a person"),
}
_PHASES = {BreakerState.OPEN: Tone.BAD, BreakerState.HALF_OPEN: Tone.WARN, BreakerState.CLOSED: Tone.GOOD}


def headline(status: StatusAnswer) -> Headline:
    """The state as a sentence, and its consequence for the workers."""
    breaker = status.circuit_breaker
    cause = _CAUSES.get(status.status, "calls to OpenRouter fail")
    if breaker.override is not None:
        tone, words = _FORCED[breaker.override.kind]
        return Headline(tone, words, f"{breaker.override.who}: {breaker.override.why}")
    match breaker.state:
        case None:
            return Headline(Tone.UNKNOWN, "Nothing is known yet", status.message)
        case BreakerState.OPEN:
            return Headline(Tone.BAD, f"Calls are paused: {cause}", status.message)
        case BreakerState.HALF_OPEN:
            return Headline(Tone.WARN, "Trial calls decide whether OpenRouter is back", status.message)
    if status.rate_limit_reset:
        return Headline(Tone.WARN, "Calls wait: OpenRouter limits the rate", status.message)
    if status.status is OpenRouterState.ACTIVE:
        detail = "Some models wait, see below" if status.models else status.message
        return Headline(Tone.GOOD, "Calls go through", detail)
    nobody_asked = status.last_check is None and not status.consecutive_failures
    if nobody_asked and status.status is not OpenRouterState.API_KEY_MISSING:  # workers may have asked it
        return Headline(Tone.UNKNOWN, "Nothing is known yet", status.message)
    return Headline(Tone.WARN, f"Calls go, but {cause}", status.message)


def segments_of(
    history: Sequence[Mapping[str, Any]], state: str | None, now: float, span_s: float = TIMELINE_S
) -> list[Segment]:
    """Return the breaker's states over the last *span_s*, oldest first.

    Args:
        history: Transitions, newest first, each with ``at`` (ISO 8601), ``from`` and ``to``.
        state: The current state; None if unknown.
        now: The end of the timeline.
        span_s: Length of the timeline.
    """
    starts_at, ends_at, after = now - span_s, now, state or "unknown"
    found = []
    for change in history:
        at = max(parse_moment(change["at"]), starts_at)
        found.append(_segment(after, at, ends_at, starts_at, span_s))
        ends_at, after = at, str(change["from"])
        if at <= starts_at:
            break
    else:
        found.append(_segment(after, starts_at, ends_at, starts_at, span_s))
    return [segment for segment in reversed(found) if segment.width > 0]


def _segment(state: str, starts: float, ends: float, starts_at: float, span_s: float) -> Segment:
    start, end = (100 * (at - starts_at) / span_s for at in (starts, ends))
    tone = {phase.value: tone for phase, tone in _PHASES.items()}.get(state, Tone.UNKNOWN)
    return Segment(state, tone, round(start, 3), round(end - start, 3), utc(starts), utc(ends))


def days_of(
    metrics: Mapping[str, Mapping[str, Any]],
    times: Mapping[str, Mapping[BreakerState, float]],
    now: float,
    days: int = DAYS,
) -> list[Day]:
    """Return the last *days* UTC days, oldest first, including days without data.

    Args:
        metrics: Counters by date.
        times: Seconds in each state of the breaker, by date.
        now: Time on the last day.
        days: Number of days.
    """
    dates = [utc(now - DAY_S * back)[:10] for back in reversed(range(days))]
    return [_day(date, metrics.get(date, {}), times.get(date, {})) for date in dates]


def _day(date: str, counters: Mapping[str, Any], times: Mapping[BreakerState, float]) -> Day:
    calls, failed = (whole(counters.get(name), COUNTER_MOST) for name in ("total_calls", "failed_calls"))
    latency = of_counters(counters)
    p50, p95, p99 = (_ms(latency.percentile_s(percent)) for percent in (50, 95, 99))
    return Day(
        date=date,
        calls=calls,
        failed=failed,
        in_state=times,
        percentiles_ms=(p50, p95, p99),
    )


def _ms(seconds: float | None) -> int | None:
    return None if seconds is None else round(1000 * seconds)


def series_of(days: Sequence[Day]) -> dict[str, Any]:
    """The plots by name: their lines, their values, and the Unix seconds."""
    at = [int(datetime.fromisoformat(day.date).replace(tzinfo=UTC).timestamp()) for day in days]
    percentiles = zip(*(day.percentiles_ms for day in days), strict=True)
    return {
        "errors": {"at": at, "unit": "%", "lines": ["Failed calls"], "values": [[day.error_rate for day in days]]},
        "latency": {"at": at, "unit": "ms", "lines": ["p50", "p95", "p99"], "values": [list(p) for p in percentiles]},
    }


def parse_moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def utc(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")


def duration(seconds: float | None) -> str:
    """Format a duration with at most two numbers: ``42 s``, ``7 min``, ``3 h 20 min``."""
    left = round(seconds or 0)
    if left < 60:
        return f"{left} s"
    if left < 3600:
        return f"{round(left / 60)} min"
    hours, minutes = divmod(round(left / 60), 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"
