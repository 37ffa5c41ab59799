"""Why the threshold grows with the fleet: a small part of the simulation."""

from __future__ import annotations

import pytest

from benchmarks.false_trips import Fleet, false_trips, notice_s


def test_five_failures_in_a_row_stop_a_large_healthy_fleet_and_the_scaled_threshold_does_not() -> None:
    ours, plain = false_trips(Fleet(1000, error_rate=0.1), hours=0.7)
    assert ours == 0
    assert plain >= 1


def test_in_a_small_fleet_both_are_the_same() -> None:
    assert false_trips(Fleet(10, error_rate=0.1), hours=24) == (0, 0)
    ours, plain = notice_s(Fleet(1, error_rate=0.02))
    assert ours == pytest.approx(plain)


@pytest.mark.parametrize(("workers", "within_s"), [(50, 10), (1000, 4)])
def test_a_total_outage_is_noticed_within_seconds_all_the_same(workers: int, within_s: float) -> None:
    ours, plain = notice_s(Fleet(workers, error_rate=0.02))
    assert plain <= ours <= within_s


def test_every_run_finds_the_same() -> None:
    assert notice_s(Fleet(50, 0.1, seed=3)) == notice_s(Fleet(50, 0.1, seed=3))
