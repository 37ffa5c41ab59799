"""The figures of ``outage_cost``, computed from recorded calls; and that they expose a broken guard."""

from __future__ import annotations

import pytest

from benchmarks.outage_cost import measured
from benchmarks.outage_figures import NothingHealthy, figures, medians
from benchmarks.outage_fleet import Size, fleets
from benchmarks.outage_strategies import BROKEN
from benchmarks.outage_upstream import TROUBLES, Call, Plan

PLAN = Plan(TROUBLES["503"], began_at=0, down_s=20, well_s=80, ended_at=140, call_s=5)
WORKERS = 10


def fleet(from_s: float, until: float, workers: int = WORKERS) -> list[Call]:
    """Good calls of five seconds, one after another, the workers spread evenly."""
    firsts = [from_s + 5 * worker / workers for worker in range(workers)]
    return [Call(first + 5 * turn, first + 5 * turn + 5, True) for first in firsts for turn in range(100)
            if first + 5 * turn + 5 <= until + 5 and first + 5 * turn < until]  # fmt: skip


def down(*began_at: float) -> list[Call]:
    return [Call(at, at + 0.25, False) for at in began_at]


def test_a_fleet_that_is_back_at_once_has_lost_nothing() -> None:
    found = figures([*fleet(0, 20), *fleet(80, 140)], 0, PLAN)
    assert found.work_lost_s == pytest.approx(2.25, abs=0.1)  # half a call: they begin one by one
    assert found.back_s == pytest.approx(4, abs=0.5)
    assert found.peak == pytest.approx(1.0, abs=0.01)


def test_one_that_is_back_half_a_minute_later_has_lost_as_much_more() -> None:
    found = figures([*fleet(0, 20), *fleet(110, 140)], 0, PLAN)
    assert found.work_lost_s == pytest.approx(32.25, abs=0.1)
    assert found.back_s == pytest.approx(34, abs=0.5)


def test_one_that_never_is_has_lost_all_there_was() -> None:
    found = figures(fleet(0, 20), 0, PLAN)
    assert (found.work_lost_s, found.back_s, found.peak) == (60, 60, 0)


def test_half_a_fleet_is_not_back() -> None:
    found = figures([*fleet(0, 20), *fleet(80, 140, WORKERS // 2)], 0, PLAN)
    assert found.back_s == 60
    assert found.work_lost_s == pytest.approx(31, abs=0.5)


def test_those_that_come_together_are_a_peak() -> None:
    together = [Call(90 + 0.01 * worker, 95, True) for worker in range(WORKERS)]
    assert figures([*fleet(0, 20), *together], 0, PLAN).peak == WORKERS / 2  # two a second while healthy


def test_calls_count_while_the_upstream_is_down_and_after_its_first_seconds() -> None:
    found = figures([*fleet(0, 20), *down(20, 24.9, 25, 79.9, 80)], 3, PLAN)
    assert (found.calls, found.later, found.lost) == (4, 2, 3)


def test_what_goes_on_in_a_brown_out_is_kept() -> None:
    found = figures([*fleet(0, 20), *fleet(20, 80, WORKERS // 2)], 0, PLAN)
    assert found.kept == pytest.approx(0.5, abs=0.06)


def test_a_fleet_that_never_worked_has_no_figures() -> None:
    with pytest.raises(NothingHealthy):
        figures(down(20), 0, PLAN)


def test_each_figure_has_its_own_median() -> None:
    ends = [
        figures([*fleet(0, 20), *down(*range(20, 20 + calls))], lost, PLAN)
        for calls, lost in ((1, 9), (2, 1), (3, 5))
    ]
    found = medians(ends)
    assert (found.calls, found.lost) == (2, 5)


@pytest.mark.slow
def test_a_broken_guard_shows() -> None:
    """As long an outage as it takes to open, seen by a whole one and by one that never opens."""
    whole = "ours, wait + transport"
    with fleets([whole, BROKEN], Size(processes=2, workers=10)) as fleet:
        found, _ = measured(fleet, "503", runs=1, scale=0.1)
    assert found[BROKEN].later > 20 * found[whole].later + 20
    assert found[BROKEN].lost > 100
    assert found[whole].lost == 0
