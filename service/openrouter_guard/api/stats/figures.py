"""Statistics from the fleet's counters: rates, percentiles and availability, as pure functions."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast

from openrouter_guard.api.schemas.status import DayMetrics, LatencyPercentiles, MetricsAnswer
from openrouter_guard.rules import latency, parsing
from openrouter_guard.rules.breaker import BreakerState
from openrouter_guard.rules.codec import iso, parse_iso
from openrouter_guard.rules.latency import Latency
from openrouter_guard.rules.units import DAY_S
from openrouter_guard.store.presence import WORKER_LIVE_S

__all__ = [
    "PERCENTILES",
    "WINDOWS",
    "Figures",
    "Totals",
    "availability",
    "by_version",
    "day_of",
    "errors_by_worker",
    "metrics_answer",
    "news",
    "number",
    "since",
    "totals",
]

WINDOWS = (1, 7, 30)
"""Numbers of days for which the availability is reported."""
PERCENTILES = (50, 95, 99)
WORKERS_TOLD = 20
VERSIONS_TOLD = 20
OTHER = "other"
_VERSION = re.compile(r"[0-9A-Za-z.+-]{1,40}")
_FINGERPRINT = re.compile(r"[0-9a-f]{8}")
COUNTER_MOST = 10**15
TEXT_MOST = 100
_OF_TIME = frozenset((*(f"seconds_{phase.value}" for phase in BreakerState), "availability"))
_OURS = frozenset(DayMetrics.__annotations__)
_RAW_LATENCY = frozenset((*latency.FIELDS, latency.SUM))

Counters: TypeAlias = Mapping[str, str]
InState: TypeAlias = Mapping[BreakerState, float]
"""Seconds that the breaker was in each state."""
Totals: TypeAlias = Mapping[str, tuple[int, int]]
"""Calls and failed calls so far, by UTC date."""


@dataclass(frozen=True, slots=True)
class Figures:
    """The statistics at the last read of the counters.

    Attributes:
        today: Calls and failed calls of this UTC day.
        latency: Latency of this UTC day's calls.
        availability: Availability by number of days; None if nothing was recorded.
        calls: Calls of the last minutes, and the failed ones among them.
        not_permitted: Calls that guards refused on this UTC day.
        workers: Number of live workers of the library, by its version and the fingerprint of their settings.
    """

    today: tuple[int, int]
    latency: Latency
    availability: Mapping[int, float | None]
    calls: int = 0
    failed: int = 0
    not_permitted: int = 0
    workers: Mapping[tuple[str, str], int] = field(default_factory=dict)

    @property
    def error_rate(self) -> float | None:
        """Error rate of the last minutes, 0 to 1; None without calls."""
        return self.failed / self.calls if self.calls else None


def by_version(beats: Iterable[Mapping[str, Any]], now: float) -> Mapping[tuple[str, str], int]:
    """Return the number of live workers of the library, by its version and the fingerprint of their settings.

    Workers in other languages have versions of their own, and no such fingerprint: they are left out. Values that are
    none of ours, and rare ones if there are many, count as ``other``: each one makes a series.
    """
    live = [about for about in beats if now - parse_iso(str(about.get("last_seen"))) <= WORKER_LIVE_S]
    found = Counter(
        (_label(about.get("version"), _VERSION), _label(about["settings"], _FINGERPRINT))
        for about in live
        if "settings" in about
    )
    frequent = dict(found.most_common(VERSIONS_TOLD))
    rest = found.total() - sum(frequent.values())
    return {**frequent, (OTHER, OTHER): frequent.get((OTHER, OTHER), 0) + rest} if rest else frequent


def _label(value: object, known: re.Pattern[str]) -> str:
    return value if isinstance(value, str) and known.fullmatch(value) else OTHER


def day_of(counters: Counters, in_state: InState) -> DayMetrics:
    """Return the metrics of one day: the counters, and the values computed from them.

    Our counters are left out if they are not numbers; foreign fields are returned unchanged.
    """
    told: dict[str, Any] = {name: number(text) for name, text in counters.items() if name not in _RAW_LATENCY}
    told = {name: value for name, value in told.items() if isinstance(value, int) or name not in _OURS}
    calls, failed = _calls(counters)
    if calls:
        told["error_rate"] = round(failed / calls, 6)
    took = latency.of_counters(counters)
    if took.calls:
        told |= {f"latency_p{percent}_ms": _ms(took, percent) for percent in PERCENTILES}
    if in_state:
        told |= {f"seconds_{phase.value}": round(in_state.get(phase, 0.0), 3) for phase in BreakerState}
        told["availability"] = availability([in_state])
    return cast("DayMetrics", told)


def availability(days: Iterable[InState]) -> float | None:
    """Return the share of the recorded time in which calls were not refused, 0 to 1; None if nothing was recorded."""
    known_s = open_s = 0.0
    for in_state in days:
        known_s += sum(in_state.values())
        open_s += in_state.get(BreakerState.OPEN, 0.0)
    return round(1 - open_s / known_s, 6) if known_s else None


def errors_by_worker(errors: Iterable[Mapping[str, Any]], *, days: int, now: float) -> dict[str, int]:
    """Return the number of recorded errors by worker in the last *days*; the highest first, and limited."""
    begins_at = now - days * DAY_S
    recent = (row for row in errors if parse_iso(str(row.get("timestamp", ""))) >= begins_at)
    return dict(Counter(str(row.get("worker_id") or "unknown") for row in recent).most_common(WORKERS_TOLD))


def metrics_answer(
    counters: Mapping[str, Counters],
    in_state: Mapping[str, InState],
    errors: Iterable[Mapping[str, Any]],
    *,
    days: int,
    now: float,
) -> MetricsAnswer:
    """Return the metrics of the last *days*; the times in each state may reach further back."""
    dates = sorted(counters.keys() | set(_newest(in_state, days)), reverse=True)
    took = latency.merged(latency.of_counters(each) for each in counters.values())
    return MetricsAnswer(
        metrics={date: day_of(counters.get(date, {}), in_state.get(date, {})) for date in dates},
        days=days,
        availability={str(window): availability(_newest(in_state, window).values()) for window in WINDOWS},
        latency_ms=_percentiles(took),
        errors_by_worker=errors_by_worker(errors, days=days, now=now),
        generated_at=iso(now),
    )


def _percentiles(took: Latency) -> LatencyPercentiles:
    p50, p95, p99 = (_ms(took, percent) if took.calls else None for percent in PERCENTILES)
    return LatencyPercentiles(p50=p50, p95=p95, p99=p99)


def news(answer: MetricsAnswer) -> str:
    """Return the part of the answer that makes a new version: not the time of the answer."""
    counted = {
        date: {name: value for name, value in day.items() if name not in _OF_TIME}
        for date, day in answer.metrics.items()
    }
    return json.dumps([answer.days, counted, answer.errors_by_worker])


def totals(days: Mapping[str, Counters]) -> Totals:
    return {date: _calls(counters) for date, counters in days.items()}


def since(before: Totals, after: Totals) -> tuple[int, int]:
    """Return the calls, and the failed ones, between two reads of the counters, also across midnight.

    A new day has begun since; counters lost in between count as nothing.
    """
    first = max(before, default="")
    grown = [
        (calls - before.get(date, (0, 0))[0], failed - before.get(date, (0, 0))[1])
        for date, (calls, failed) in after.items()
        if date in before or date > first
    ]
    return sum(max(calls, 0) for calls, _ in grown), sum(max(failed, 0) for _, failed in grown)


def number(text: str) -> int | str:
    """Return a counter as a number, and other text unchanged."""
    found = parsing.number(text, -COUNTER_MOST, COUNTER_MOST)
    return int(found) if found is not None and found.is_integer() else parsing.text_of(text, TEXT_MOST)


def _newest(in_state: Mapping[str, InState], days: int) -> dict[str, InState]:
    return {date: in_state[date] for date in sorted(in_state, reverse=True)[:days]}


def _calls(counters: Counters) -> tuple[int, int]:
    calls, failed = (number(counters.get(name, "0")) for name in ("total_calls", "failed_calls"))
    return (calls, failed) if isinstance(calls, int) and isinstance(failed, int) else (0, 0)


def _ms(took: Latency, percent: float) -> int:
    return round(1000 * (took.percentile_s(percent) or 0.0))
