"""The choice of an answer depends only on the known state."""

from __future__ import annotations

import pytest

from openrouter_guard.api.schemas.status import Source
from openrouter_guard.api.status.freshness import (
    CheckAvailability,
    FleetHealth,
    Plan,
    adapted,
    age_s,
    check_availability,
    fleet_health,
    is_due,
    plan,
    source,
)
from openrouter_guard.rules.breaker import BreakerState, Closed, HalfOpen, Open
from openrouter_guard.rules.shared_state import SharedState, Upstream
from openrouter_guard.settings import Thresholds

T = Thresholds(fresh_s=60, stale_s=300, check_slot_s=60, check_timeout_s=10)
NOW_S = 10_000.0
FREE, OUT, NONE = CheckAvailability.FREE, CheckAvailability.OUT, CheckAvailability.NONE
CACHED, REVALIDATE, WAIT = Plan.CACHED, Plan.REVALIDATE, Plan.WAIT


@pytest.mark.parametrize(
    ("age", "chances"),
    [
        #                     FREE        OUT     NONE
        pytest.param(0.0, (CACHED, CACHED, CACHED), id="just checked"),
        pytest.param(59.9, (CACHED, CACHED, CACHED), id="fresh"),
        pytest.param(60.0, (REVALIDATE, CACHED, CACHED), id="no longer fresh"),
        pytest.param(300.0, (REVALIDATE, CACHED, CACHED), id="nearly stale"),
        pytest.param(300.1, (WAIT, WAIT, CACHED), id="stale"),
        pytest.param(None, (WAIT, WAIT, CACHED), id="never checked"),
    ],
)
def test_plan(age: float | None, chances: tuple[Plan, Plan, Plan]) -> None:
    found = tuple(
        plan(age, check_availability, force=False, thresholds=T) for check_availability in (FREE, OUT, NONE)
    )
    assert found == chances


@pytest.mark.parametrize("age", [0.0, 59.9, 60.0, 300.1, None])
def test_a_forced_request_waits_wherever_there_is_something_to_wait_for(age: float | None) -> None:
    found = tuple(plan(age, check_availability, force=True, thresholds=T) for check_availability in (FREE, OUT, NONE))
    assert found == (WAIT, WAIT, CACHED)


def record(**known: float) -> SharedState:
    """A record whose check began and ended so many seconds ago."""
    slot_s = NOW_S - known["began"] + T.check_slot_s if "began" in known else 0.0
    ended_at = NOW_S - known["ended"] if "ended" in known else 0.0
    return SharedState(upstream=Upstream(checked_at=ended_at), check_slot_at=slot_s)


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        pytest.param(None, FREE, id="nothing is known"),
        pytest.param(SharedState(), FREE, id="nobody ever checked"),
        pytest.param(record(began=1), OUT, id="the first check is out"),
        pytest.param(record(began=1, ended=200), OUT, id="another check is out"),
        pytest.param(record(began=30, ended=29), NONE, id="this minute's check was made"),
        pytest.param(record(began=61, ended=60), FREE, id="a minute has passed"),
        pytest.param(record(began=13), NONE, id="who checked died"),
        pytest.param(record(began=61), FREE, id="who checked died a minute ago"),
        pytest.param(record(began=-240), NONE, id="by a replica with a longer slot"),
        pytest.param(SharedState(breaker=Open("error", 1.0, NOW_S + 1)), NONE, id="open"),
        pytest.param(SharedState(breaker=Open("error", 1.0, NOW_S - 1)), FREE, id="half-open by time"),
        pytest.param(SharedState(breaker=HalfOpen("error", 1.0)), FREE, id="half-open"),
        pytest.param(SharedState(upstream=Upstream(rate_limit_reset_at=NOW_S + 1)), NONE, id="rate limited"),
        pytest.param(SharedState(breaker=Closed(4)), FREE, id="failures alone block nothing"),
    ],
)
def test_chance(known: SharedState | None, expected: CheckAvailability) -> None:
    assert check_availability(known, NOW_S, is_away=False, thresholds=T) is expected
    assert check_availability(known, NOW_S, is_away=True, thresholds=T) is NONE


@pytest.mark.parametrize(
    ("checked_at", "age"),
    [
        pytest.param(0.0, None, id="never"),
        pytest.param(NOW_S - 7, 7.0, id="in the past"),
        pytest.param(NOW_S + 5, 0.0, id="by a clock that is a little ahead"),
        pytest.param(NOW_S + 3600, None, id="by a clock that is wrong"),
    ],
)
def test_age(checked_at: float, age: float | None) -> None:
    assert age_s(SharedState(upstream=Upstream(checked_at=checked_at)), NOW_S, thresholds=T) == age


def test_age_of_nothing() -> None:
    assert age_s(None, NOW_S, thresholds=T) is None


@pytest.mark.parametrize(
    ("age", "is_live", "expected"),
    [
        (1.0, True, Source.LIVE),
        (1.0, False, Source.CACHE),
        (60.0, False, Source.STALE),
        (None, False, Source.STALE),
    ],
)
def test_source(age: float | None, is_live: bool, expected: Source) -> None:
    assert source(age, is_live=is_live, thresholds=T) is expected


@pytest.mark.parametrize(
    ("age", "due"),
    [
        pytest.param(299.0, False, id="not yet"),
        pytest.param(300.0, True, id="stale"),
        pytest.param(None, True, id="nobody ever asked"),
    ],
)
def test_is_due(age: float | None, due: bool) -> None:
    assert is_due(age, BreakerState.CLOSED, thresholds=T) is due


@pytest.mark.parametrize(
    ("failures", "calls", "failed", "expected"),
    [
        pytest.param(0, 0, 0, FleetHealth.PLAIN, id="nobody calls"),
        pytest.param(0, 19, 0, FleetHealth.PLAIN, id="few calls say little"),
        pytest.param(0, 100, 1, FleetHealth.WELL, id="calls succeed"),
        pytest.param(0, 100, 5, FleetHealth.PLAIN, id="some fail"),
        pytest.param(0, 100, 13, FleetHealth.TROUBLED, id="errors are frequent"),
        pytest.param(1, 100, 0, FleetHealth.TROUBLED, id="the last call failed"),
    ],
)
def test_mood(failures: int, calls: int, failed: int, expected: FleetHealth) -> None:
    assert fleet_health(failures, calls, failed, thresholds=T) is expected


@pytest.mark.parametrize(
    ("fleet_health", "fresh_s"),
    [(FleetHealth.TROUBLED, 30.0), (FleetHealth.PLAIN, 60.0), (FleetHealth.WELL, 120.0)],
    ids=str,
)
def test_an_answer_is_fresh_for_longer_the_better_calls_fare(fleet_health: FleetHealth, fresh_s: float) -> None:
    assert adapted(fleet_health, thresholds=T).fresh_s == fresh_s
    assert adapted(fleet_health, thresholds=T).stale_s == T.stale_s


def test_fresh_never_outlasts_stale_and_what_is_set_stands() -> None:
    assert adapted(FleetHealth.WELL, thresholds=Thresholds(max_fresh_s=900)).fresh_s == 300
    assert adapted(FleetHealth.WELL, thresholds=Thresholds(fresh_s=200, max_fresh_s=100)).fresh_s == 200
    assert adapted(FleetHealth.TROUBLED, thresholds=Thresholds(fresh_s=5, min_fresh_s=10)).fresh_s == 5
    assert adapted(FleetHealth.WELL, thresholds=Thresholds(max_fresh_s=90)).fresh_s == 90
    assert adapted(FleetHealth.TROUBLED, thresholds=Thresholds(min_fresh_s=45)).fresh_s == 45


def test_what_is_not_set_follows_from_the_usual_time() -> None:
    assert adapted(FleetHealth.WELL, thresholds=Thresholds(fresh_s=10)).fresh_s == 20
    assert adapted(FleetHealth.TROUBLED, thresholds=Thresholds(fresh_s=10)).fresh_s == 5


def test_in_trouble_a_check_is_due_as_soon_as_the_last_is_not_fresh() -> None:
    assert is_due(60.0, BreakerState.CLOSED, thresholds=T, fleet_health=FleetHealth.TROUBLED)
    assert not is_due(59.0, BreakerState.CLOSED, thresholds=T, fleet_health=FleetHealth.TROUBLED)


@pytest.mark.parametrize("fleet_health", FleetHealth)
def test_where_nobody_ever_asked_a_check_is_due_at_once(fleet_health: FleetHealth) -> None:
    assert is_due(None, BreakerState.CLOSED, thresholds=T, fleet_health=fleet_health)


def test_half_open_a_check_is_always_due() -> None:
    assert is_due(0.0, BreakerState.HALF_OPEN, thresholds=T)
