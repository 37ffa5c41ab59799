"""Latency histograms that many workers add to, and their percentiles."""

from __future__ import annotations

import itertools
import random
from collections import Counter

import pytest

from openrouter_guard.rules import latency
from openrouter_guard.rules.latency import BOUNDS_MS, FIELDS, SUM, Latency, merged, of_counters


def counted(*took_s: float) -> Latency:
    """What a day's metrics say after calls of these lengths."""
    counters = Counter(latency.FIELDS[latency.index_of(seconds)] for seconds in took_s)
    counters[SUM] = round(sum(took_s) * 1000)
    return of_counters({name: str(count) for name, count in counters.items()})


@pytest.mark.parametrize(
    ("took_s", "field"),
    [
        pytest.param(0.0, "latency_ms_le_10", id="no time at all"),
        pytest.param(0.010, "latency_ms_le_10", id="a bound belongs to what is below it"),
        pytest.param(0.0101, "latency_ms_le_15", id="a little more does not"),
        pytest.param(1.2, "latency_ms_le_1500", id="between two bounds"),
        pytest.param(700.0, "latency_ms_le_700000", id="the last bound"),
        pytest.param(3600.0, "latency_ms_le_inf", id="longer than any"),
    ],
)
def test_a_call_is_counted_under_the_first_bound_that_it_does_not_exceed(took_s: float, field: str) -> None:
    assert latency.FIELDS[latency.index_of(took_s)] == field


def test_the_bounds_are_evenly_spaced_by_their_logarithms() -> None:
    ratios = [upper / lower for lower, upper in itertools.pairwise(BOUNDS_MS)]
    assert all(1.3 < ratio < 1.7 for ratio in ratios)
    assert len(FIELDS) == len(BOUNDS_MS) + 1


@pytest.mark.parametrize("percent", [50, 95, 99])
def test_a_percentile_is_off_by_less_than_the_distance_of_two_bounds(percent: int) -> None:
    lot = random.Random(7)
    took_s = sorted(lot.lognormvariate(1.0, 1.0) for _ in range(5000))
    true_s = took_s[len(took_s) * percent // 100]
    found_s = counted(*took_s).percentile_s(percent)
    assert found_s is not None
    # What is spread smoothly is met far better than the bounds alone could promise.
    assert found_s == pytest.approx(true_s, rel=0.1)


def test_percentiles_never_fall() -> None:
    found = counted(0.004, 0.4, 0.4, 2.5, 90.0, 5000.0)
    values = [found.percentile_s(percent) or 0.0 for percent in range(101)]
    assert values == sorted(values)
    assert values[-1] == 700.0


def test_without_calls_there_is_neither_a_percentile_nor_a_mean() -> None:
    assert Latency().percentile_s(50) is None
    assert Latency().mean_s is None
    assert merged([]) == Latency()


def test_the_mean_is_exact_to_the_millisecond() -> None:
    assert counted(0.1, 0.2, 0.6).mean_s == pytest.approx(0.3)


def test_days_and_workers_add_up() -> None:
    assert merged([counted(0.1, 3.0), counted(0.1), Latency()]) == counted(0.1, 0.1, 3.0)


def test_what_is_no_count_is_no_call() -> None:
    assert of_counters({FIELDS[3]: "many", FIELDS[4]: "-2", FIELDS[5]: 2, "total_calls": "9"}).calls == 2
