"""The time until the credit runs out, at the rate of the last hour."""

from __future__ import annotations

import math

import pytest

from openrouter_guard.api.stats.spending import SHORTEST_S, WINDOW_S, Spending

NOW_S = 1_772_366_400.0


def seen(*balances: float | None, every_s: float = SHORTEST_S) -> Spending:
    spending = Spending()
    for number, balance in enumerate(balances):
        spending.saw(balance, NOW_S + number * every_s)
    return spending


@pytest.mark.parametrize(
    ("balances", "seconds"),
    [
        pytest.param([10.0, 9.0, 8.0], 8 * SHORTEST_S, id="a dollar each ten minutes"),
        pytest.param([10.0, 10.0], math.inf, id="nothing is spent"),
        pytest.param([2.0, 1.0, 11.0, 10.0], 15 * SHORTEST_S, id="a top-up is no negative spending"),
        pytest.param([1.0, 0.0], 0.0, id="it is empty"),
        pytest.param([1.0, -1.0], 0.0, id="overdrawn"),
    ],
)
def test_the_rate_tells_when_it_is_empty(balances: list[float | None], seconds: float) -> None:
    last_s = NOW_S + (len(balances) - 1) * SHORTEST_S
    assert seen(*balances).seconds_to_empty(last_s) == pytest.approx(seconds)


def test_the_time_since_the_last_check_is_taken_off() -> None:
    assert seen(10.0, 9.0).seconds_to_empty(NOW_S + SHORTEST_S + 60) == pytest.approx(9 * SHORTEST_S - 60)


@pytest.mark.parametrize(
    "balances", [[], [5.0], [None], [5.0, None], [5.0, None, 4.0]], ids=["never", "once", "none", "no more", "again"]
)
def test_too_little_is_no_rate(balances: list[float | None]) -> None:
    assert seen(*balances).seconds_to_empty(NOW_S + 7200) is None


def test_a_few_minutes_are_too_short() -> None:
    assert seen(10.0, 5.0, every_s=SHORTEST_S - 1).seconds_to_empty(NOW_S) is None


def test_what_was_before_the_last_hour_does_not_count() -> None:
    spending = Spending()
    spending.saw(1000.0, NOW_S - 1000)
    for minute in range(0, int(WINDOW_S) + 1, 60):
        spending.saw(100.0 - minute / 60, NOW_S + minute)
    assert spending.seconds_to_empty(NOW_S + WINDOW_S) == pytest.approx(40 * 60)


def test_a_clock_that_was_set_back_begins_anew() -> None:
    spending = seen(10.0, 9.0)
    spending.saw(8.0, NOW_S - 86_400)
    spending.saw(7.0, NOW_S - 86_400 + SHORTEST_S)
    assert spending.seconds_to_empty(NOW_S - 86_400 + SHORTEST_S) == pytest.approx(7 * SHORTEST_S)
