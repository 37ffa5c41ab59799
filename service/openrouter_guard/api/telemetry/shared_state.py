"""The shared state of each scope for Prometheus, read at the moment of the scrape."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from openrouter_guard.api.stats.figures import Figures
from openrouter_guard.api.status.freshness import age_s, is_known
from openrouter_guard.replica import Snapshot
from openrouter_guard.rules.admission import fleet_refusal
from openrouter_guard.rules.breaker import BreakerState, threshold
from openrouter_guard.rules.latency import BOUNDS_MS
from openrouter_guard.rules.models import cooling
from openrouter_guard.rules.override import OverrideKind
from openrouter_guard.rules.shared_state import SharedState
from openrouter_guard.rules.signals import ErrorType, OpenRouterState
from openrouter_guard.rules.transitions import CHECKS_SUCCEEDED, OVERRIDE_ENDED, REPORTS_SUCCEEDED, TRIAL_SUCCEEDED
from openrouter_guard.settings import Settings

__all__ = ["PREFIX", "SharedStateCollector", "ScopeSource", "reason_label"]

PREFIX = "openrouter_guard"
_REASONS = frozenset(
    {
        *ErrorType,
        *OpenRouterState,
        *OverrideKind,
        *(TRIAL_SUCCEEDED, CHECKS_SUCCEEDED, REPORTS_SUCCEEDED, OVERRIDE_ENDED),
        *("check_succeeded", "reset", "reset_timeout"),
    }
)
_BOUNDS = (*map(floatToGoString, (bound / 1000 for bound in BOUNDS_MS)), "+Inf")


@dataclass(frozen=True, slots=True)
class ScopeSource:
    """The source of one scope's values."""

    settings: Settings
    view: Callable[[], Snapshot]
    figures: Callable[[], Figures | None]
    seconds_to_empty: Callable[[float], float | None] = lambda _now: None

    @property
    def scope(self) -> str:
        return self.settings.scope


class SharedStateCollector(Collector):
    """Metrics that all replicas report alike.

    While the store cannot be read, counters are left out, and gauges are NaN. The values that alerts use are
    exceptions: those of the breaker, the upstream and the balance keep the last known value, beside ``store_up`` 0. A
    value that was never known is NaN.
    """

    def __init__(self) -> None:
        self.sources: list[ScopeSource] = []

    def collect(self) -> Iterator[Metric]:
        seen = [(source, source.view()) for source in self.sources]
        yield _enum(
            "breaker_state", "1 for the state that the breaker is in", BreakerState, [_phase(*each) for each in seen]
        )
        yield _enum(
            "upstream_state", "1 for the state of OpenRouter", OpenRouterState, [_state(*each) for each in seen]
        )
        yield _open_reason(seen)
        yield _overrides(seen)
        for name, about, value in _GAUGES:
            yield _gauge(name, about, [(source.scope, value(source, view)) for source, view in seen])
        known = [(s.scope, found) for s, view in seen if not view.is_degraded and (found := s.figures())]
        yield _calls(known)
        yield _not_permitted(known)
        yield _latency(known)
        yield _workers(known)
        figures = {source.scope: None if view.is_degraded else source.figures() for source, view in seen}
        yield _gauge(
            "error_ratio",
            "Failed calls of the fleet by all in the last 5 minutes",
            [(scope, found.error_rate if found else None) for scope, found in figures.items()],
        )
        yield _availability(figures)


def _if_known(
    value: Callable[[ScopeSource, Snapshot, SharedState], float | None],
) -> Callable[[ScopeSource, Snapshot], float | None]:
    return lambda source, view: None if view.is_degraded else _if_ever_known(value)(source, view)


def _if_ever_known(
    value: Callable[[ScopeSource, Snapshot, SharedState], float | None],
) -> Callable[[ScopeSource, Snapshot], float | None]:
    """Return the last known value: an alert must not end because Redis is away."""
    return lambda source, view: None if view.record is None else value(source, view, view.record)


_GAUGES: Sequence[tuple[str, str, Callable[[ScopeSource, Snapshot], float | None]]] = (
    ("store_up", "Whether Redis can be read", lambda _, view: 0.0 if view.is_degraded else 1.0),
    (
        "state_age_seconds",
        "Since the last health check, by whichever replica",
        lambda source, view: age_s(view.record, view.now, thresholds=source.settings.thresholds),
    ),
    (
        "consecutive_failures",
        "Failures of the fleet in a row",
        _if_known(lambda _s, _v, record: record.breaker.failures),
    ),
    (
        "balance_usd",
        "Remaining credit of the key's limit, or of the account if that is less",
        _if_ever_known(lambda _s, _v, record: record.upstream.balance),
    ),
    (
        "balance_age_seconds",
        "Since the balance was last known",
        _if_ever_known(lambda _s, view, record: _age_s(record.upstream.amounts_at, view.now)),
    ),
    (
        "credit_seconds_to_empty",
        "When the credit runs out at the rate of the last hour; +Inf if nothing is spent",
        _if_ever_known(lambda source, view, _r: source.seconds_to_empty(view.now)),
    ),
    (
        "failure_threshold",
        "Failures in a row that open the breaker, at the present rate of calls",
        _if_known(lambda source, _v, record: threshold(record.calls_per_minute, source.settings.policy)),
    ),
    (
        "permits_out",
        "Trial calls that are under way",
        _if_known(lambda _s, view, record: sum(end > view.now for end in record.breaker.permits.values())),
    ),
    (
        "override_until_timestamp_seconds",
        "End of the override; 0 without one",
        _if_ever_known(lambda _s, view, record: found.until if (found := record.standing(view.now)) else 0.0),
    ),
    ("epoch", "Number of the breaker's current state", _if_known(lambda _s, _v, record: record.epoch)),
    (
        "blocked_seconds",
        "How long calls are still refused, as far as that is known; 0 where they may go",
        _if_ever_known(lambda _s, view, record: (fleet_refusal(record, view.now) or (0.0,))[0]),
    ),
    (
        "live_workers",
        "Workers whose calls were reported in the minute before the last report",
        _if_known(lambda _s, _v, record: record.live_reporters),
    ),
    (
        "models_cooling",
        "Single models whose calls wait",
        _if_known(lambda source, view, _r: len(cooling(view.models, now=view.now, policy=source.settings.policy))),
    ),
)


def _phase(source: ScopeSource, view: Snapshot) -> tuple[str, str | None]:
    return source.scope, None if view.record is None else view.record.phase(view.now).value


def _state(source: ScopeSource, view: Snapshot) -> tuple[str, str | None]:
    found = view.record.upstream.state.value if view.record is not None and is_known(view.record) else None
    return source.scope, found


def _age_s(at: float, now: float) -> float | None:
    return max(now - at, 0.0) if at else None


def reason_label(reason: str) -> str:
    """Return the reason of a change as a label: foreign writers must not make up series without end."""
    return reason if reason in _REASONS else "other"


def _open_reason(seen: Sequence[tuple[ScopeSource, Snapshot]]) -> Metric:
    about = "1 with the reason of a breaker that is not closed"
    family = GaugeMetricFamily(f"{PREFIX}_open_reason", about, labels=["scope", "reason"])
    for source, view in seen:
        record = view.record
        if record is not None and record.phase(view.now) is not BreakerState.CLOSED:
            override = record.standing(view.now)
            reason = override.kind.value if override else record.breaker.reason
            family.add_metric([source.scope, reason_label(reason)], 1.0)
    return family


def _overrides(seen: Sequence[tuple[ScopeSource, Snapshot]]) -> Metric:
    about = "1 for the override that stands"
    family = GaugeMetricFamily(f"{PREFIX}_override_active", about, labels=["scope", "kind"])
    for source, view in seen:
        standing = view.record.standing(view.now) if view.record else None
        for kind in OverrideKind:
            is_active = float(standing is not None and standing.kind is kind)
            family.add_metric([source.scope, kind.value], math.nan if view.record is None else is_active)
    return family


def _enum(
    name: str,
    about: str,
    states: type[BreakerState] | type[OpenRouterState],
    current: Sequence[tuple[str, str | None]],
) -> Metric:
    family = GaugeMetricFamily(f"{PREFIX}_{name}", about, labels=["scope", "state"])
    for scope, found in current:
        for state in states:
            family.add_metric([scope, state.value], math.nan if found is None else float(state.value == found))
    return family


def _gauge(name: str, about: str, values: Sequence[tuple[str, float | None]]) -> Metric:
    family = GaugeMetricFamily(f"{PREFIX}_{name}", about, labels=["scope"])
    for scope, value in values:
        family.add_metric([scope], math.nan if value is None else value)
    return family


def _calls(known: Sequence[tuple[str, Figures]]) -> Metric:
    about = "Calls of the fleet; starts again at midnight UTC"
    family = CounterMetricFamily(f"{PREFIX}_calls", about, labels=["scope", "result"])
    for scope, figures in known:
        calls, failed = figures.today
        family.add_metric([scope, "success"], calls - failed)
        family.add_metric([scope, "failure"], failed)
    return family


def _not_permitted(known: Sequence[tuple[str, Figures]]) -> Metric:
    about = "Calls that guards refused; starts again at midnight UTC"
    family = CounterMetricFamily(f"{PREFIX}_not_permitted_calls", about, labels=["scope"])
    for scope, figures in known:
        family.add_metric([scope], figures.not_permitted)
    return family


def _workers(known: Sequence[tuple[str, Figures]]) -> Metric:
    about = "Live workers by the library's version, and the fingerprint of their breaker's settings"
    family = GaugeMetricFamily(f"{PREFIX}_workers", about, labels=["scope", "version", "settings"])
    for scope, figures in known:
        for (version, settings), workers in figures.workers.items():
            family.add_metric([scope, version, settings], workers)
    return family


def _latency(known: Sequence[tuple[str, Figures]]) -> Metric:
    about = "How long calls of the fleet took; starts again at midnight UTC"
    family = HistogramMetricFamily(f"{PREFIX}_upstream_latency_seconds", about, labels=["scope"])
    for scope, figures in known:
        found = figures.latency
        family.add_metric([scope], list(zip(_BOUNDS, accumulate(found.counts), strict=True)), found.sum_s)
    return family


def _availability(figures: dict[str, Figures | None]) -> Metric:
    about = "Share of the days in which calls were not refused"
    family = GaugeMetricFamily(f"{PREFIX}_availability_ratio", about, labels=["scope", "days"])
    for scope, found in figures.items():
        for days, ratio in (found.availability if found else {}).items():
            family.add_metric([scope, str(days)], math.nan if ratio is None else ratio)
    return family
