"""Why the threshold grows with the fleet, and why the fleet is asked: a small part of the simulation."""

from __future__ import annotations

from dataclasses import replace
from statistics import median

import pytest

from benchmarks.false_trips import STARTS, Start, false_trips, notice_s, opened, steady
from benchmarks.simulated_fleet import Breaker, Fleet, Outage, constant, judged, mixed
from openrouter_guard.rules.question import ANSWER_S

pytestmark = pytest.mark.slow

OUTAGE = Outage(120.0)


def test_five_failures_in_a_row_stop_a_large_healthy_fleet_and_ours_do_not() -> None:
    ours, plain = false_trips(Fleet(1000, 0.1, seed=2), hours=0.7)
    assert ours == 0
    assert plain >= 1


def test_in_a_small_fleet_nothing_opens_by_chance() -> None:
    assert false_trips(steady(10, 0.1), hours=24) == (0, 0)


@pytest.mark.parametrize("start", STARTS, ids=lambda start: f"{start.name} {start.workers} {start.error_rate:.0%}")
def test_a_fleet_that_starts_or_comes_back_is_not_opened_by_chance(start: Start) -> None:
    ours, plain = opened(start, 6)
    # Retries at once are calls that fail together: that is eased, not cured.
    assert ours <= (4 if start.retries and start.error_rate > 0.05 else 0)
    assert plain >= ours


def test_without_the_question_it_would_be() -> None:
    assert opened(Start("cold start", "cold", 200, 0.1), 6)[1] == 6
    assert opened(Start("ramp", "ramp", 200, 0.1, rate=500), 6)[1] == 6


@pytest.mark.parametrize("outage", [Outage(5, 0.1), Outage(5, 1.0), Outage(5, 10.0), Outage(5, 1.0, 0.05)])
@pytest.mark.parametrize("workers", [1, 3, 50, 1000])
def test_a_total_outage_is_noticed_as_soon_as_by_a_run_alone_and_a_question_more(
    workers: int, outage: Outage
) -> None:
    ours, plain = notice_s(Fleet(workers, 0.02, mixed(15, 30), outage=outage))
    # A single worker has nobody to wait for. A fleet may be sooner: calls from before the outage do not hide it.
    assert ours - plain <= (ANSWER_S if workers > 1 else 0.0) + 0.1


@pytest.mark.parametrize("idle", [1, 2, 30])
def test_idle_workers_delay_it_by_some_seconds(idle: int) -> None:
    fleet = Fleet(1 + idle, 0.0, constant(5.0), idle=idle, outage=Outage(20.0, 0.1))
    opened_s = judged(Breaker(fleet), 60)
    assert opened_s is not None
    # A call of before the outage ends well 5 s after its start. Each failure takes 0.1 s.
    assert opened_s - 25.0 < 5.0 + 0.2 + ANSWER_S


@pytest.mark.parametrize("workers", [2, 3, 20])
@pytest.mark.parametrize("good_s", [0.5, 15.0, 120.0])
def test_one_worker_that_loops_stops_nobody_who_works(workers: int, good_s: float) -> None:
    assert judged(Breaker(Fleet(workers, 0.0, constant(good_s), loops=True, failed=constant(0.2))), 600) is None


def test_successes_that_began_before_the_outage_do_not_hide_it() -> None:
    """60 workers with calls of 5 s; without the rule it takes 1.3 s and 48 calls."""
    found = [notice_s(Fleet(60, 0.0, mixed(4, 6), outage=Outage(20, 0.25), seed=seed))[0] for seed in range(9)]
    assert median(found) < 1.1


def test_nor_do_they_open_it_in_a_brown_out() -> None:
    fleets = [Fleet(60, 0.3, mixed(4, 6), constant(0.25), seed=seed) for seed in range(10)]
    assert [judged(Breaker(fleet, rate=700.0), 60) for fleet in fleets] == [None] * 10


def test_also_where_calls_break_one_by_one() -> None:
    ours, plain = notice_s(Fleet(1000, 0.02, mixed(15, 30), outage=Outage(5, 1.0, 2.0)))
    assert ours - plain <= 1.0


@pytest.mark.parametrize("took_s", [0.1, 1.0, 10.0])
def test_at_a_cold_start_too(took_s: float) -> None:
    found = judged(Breaker(Fleet(200, 0.02, constant(30), starts="cold", outage=Outage(0, took_s))), 60)
    assert found == pytest.approx(took_s + ANSWER_S, abs=0.3)


@pytest.mark.parametrize("at", [5, 15, 25])
def test_and_in_the_ramp(at: float) -> None:
    fleet = Fleet(200, 0.02, mixed(15, 30), starts="ramp", outage=Outage(at))
    ours = judged(Breaker(fleet, rate=500), 60)
    plain = judged(Breaker(replace(fleet), asks=False, rate=500), 60)
    assert ours is not None
    assert plain is not None
    assert ours - plain <= 2


@pytest.mark.parametrize("workers", [50, 200])
def test_one_worker_that_loops_opens_nothing(workers: int) -> None:
    for seed in range(2):
        fleet = Fleet(workers, 0.02, constant(30), loops=True, seed=seed)
        assert judged(Breaker(fleet, rate=2.0 * workers), 1800) is None


def test_where_half_of_the_workers_cannot_answer_the_others_do() -> None:
    found = [judged(Breaker(Start("", "cold", 200, 0.05).fleet(seed), answers=0.5), 60) for seed in range(10)]
    assert found == [None] * 10


def test_every_run_finds_the_same() -> None:
    fleet = replace(steady(50, 0.1), seed=3, outage=OUTAGE)
    assert notice_s(fleet) == notice_s(fleet)
