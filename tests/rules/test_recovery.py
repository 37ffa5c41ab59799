"""The time to recovery, simulated with the product's rules; see benchmarks/recovery.py."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.measuring import QUICK
from benchmarks.recovery import Outage, Service, recovery
from benchmarks.waits import cost
from openrouter_guard.rules.breaker import Policy
from openrouter_guard.rules.signals import ErrorType, OpenRouterState

pytestmark = pytest.mark.slow

POLICY = Policy(jitter=0)
DOWN, GOOD = OpenRouterState.SERVICE_UNAVAILABLE, OpenRouterState.ACTIVE
DOCUMENT = (Path(__file__).parents[2] / "docs" / "breaker.md").read_text()
COSTS = re.findall(
    r"^\| (\d+) s \| (\d+), (\d+), (\d+) \| (\d+), (\d+), (\d+) s, (\d+) s \|$", DOCUMENT, re.MULTILINE
)

outages = st.builds(
    Outage,
    lasts_s=st.floats(0, 1_500),
    fails_in_s=st.floats(0.1, 4.9),
    succeeds_in_s=st.floats(0.1, 60),
    error_type=st.sampled_from([ErrorType.TIMEOUT, ErrorType.SERVICE_UNAVAILABLE, ErrorType.CREDITS_EXHAUSTED]),
)
flips = st.lists(st.floats(-90, 1_500), max_size=8).map(sorted)
policies = st.builds(
    lambda first_s, more_s, recheck_s: replace(
        POLICY, first_wait_s=first_s, longest_wait_s=first_s + more_s, recheck_s=recheck_s
    ),
    st.floats(10, 30),
    st.floats(0, 60),
    st.sampled_from([60.0, 20.0, 5.0]),
)


def service(flips_s: list[float], bad: OpenRouterState, last_check_at: float) -> Service:
    """One whose checks are good at first, and another time after each of these."""

    def finds(at: float) -> OpenRouterState:
        return bad if sum(flip_s <= at for flip_s in flips_s) % 2 else GOOD

    return Service(finds, last_check_at)


@settings(deadline=None)
@given(outages, policies, flips, st.sampled_from(OpenRouterState), st.floats(-60, -1))
def test_it_is_never_later_with_a_service_than_without_whatever_its_checks_find(
    outage: Outage, policy: Policy, flips_s: list[float], bad: OpenRouterState, last_check_at: float
) -> None:
    beside = service(flips_s, bad, last_check_at)
    alone = recovery(outage, policy)
    assert recovery(outage, policy, beside).closed_s <= alone.closed_s + 1e-3


def test_a_service_whose_checks_fail_and_then_do_not_has_calls_try_sooner() -> None:
    outage = Outage(lasts_s=600, error_type=ErrorType.CREDITS_EXHAUSTED)
    spent = Service(lambda at: OpenRouterState.CREDITS_EXHAUSTED if at < 600 else GOOD)
    assert recovery(outage, POLICY).tried_at > 100
    assert recovery(outage, POLICY, spent).tried_at <= 60
    often = replace(POLICY, recheck_s=5)
    assert recovery(outage, often, spent).tried_at <= 6


@pytest.mark.parametrize("lasts_s", [45.0, 100.0, 610.0, 3_599.0])
def test_by_default_a_trial_goes_within_a_quarter_of_a_minute_and_a_tenth_of_the_return(lasts_s: float) -> None:
    for seed in range(20):
        assert recovery(Outage(lasts_s, seed=seed), Policy()).tried_at <= 16.5 + 1


@pytest.mark.parametrize("row", COSTS)
def test_what_the_documentation_says_a_longest_wait_costs(row: tuple[str, ...]) -> None:
    longest_s, *figures, most_s = map(float, row)
    found = [cost(longest_s, lasts_s, runs=QUICK.simulated_outages) for lasts_s in (60, 600, 3600)]
    assert [round(each[0]) for each in found] == figures[:3]
    assert [round(each[1]) for each in found] == figures[3:]
    assert round(max(each[2] for each in found)) == most_s


def test_no_cost_was_lost() -> None:
    assert [row[0] for row in COSTS] == ["10", "15", "30"]
