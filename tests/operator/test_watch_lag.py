"""A stalled watch is detected through the operator's own writes."""

from __future__ import annotations

import pytest

from openrouter_operator.controller.kopf_settings import configure
from openrouter_operator.kubernetes.watch_lag import LAG_S, WatchLag
from tests.operator.samples import Clock


@pytest.fixture
def watch_lag(clock: Clock) -> WatchLag:
    return WatchLag(clock)


def test_where_nothing_happens_nothing_is_late(watch_lag: WatchLag, clock: Clock) -> None:
    watch_lag.saw("deployments", "jobs", "10")
    clock.now += 10 * LAG_S
    assert (watch_lag.lag_s(), watch_lag.stalled()) == (0.0, [])
    assert watch_lag.ages_s() == {"deployments": 10 * LAG_S}


def test_a_write_that_is_not_shown_is_late_from_its_answer_on(watch_lag: WatchLag, clock: Clock) -> None:
    watch_lag.wrote("deployments", "jobs", "11")
    clock.now += 5
    watch_lag.wrote("deployments", "jobs", "12")
    clock.now += 5
    assert watch_lag.lag_s() == 10


@pytest.mark.parametrize("shown", ["12", "13"], ids=["itself", "or anything later"])
def test_it_is_late_no_more_once_the_watch_has_come_as_far(watch_lag: WatchLag, clock: Clock, shown: str) -> None:
    watch_lag.wrote("deployments", "jobs", "12")
    watch_lag.wrote("deployments", "jobs", "11")
    clock.now += 5
    watch_lag.saw("deployments", "jobs", shown)
    assert watch_lag.lag_s() == 0


def test_a_write_that_was_shown_before_its_answer_is_not_waited_for(watch_lag: WatchLag, clock: Clock) -> None:
    watch_lag.saw("deployments", "jobs", "12")
    watch_lag.wrote("deployments", "jobs", "12")
    clock.now += 5
    assert watch_lag.lag_s() == 0


@pytest.mark.parametrize(("plural", "namespace"), [("deployments", "others"), ("jobs", "jobs")])
def test_what_another_watch_shows_says_nothing_of_this_one(
    watch_lag: WatchLag, clock: Clock, plural: str, namespace: str
) -> None:
    watch_lag.wrote("deployments", "jobs", "11")
    clock.now += 5
    watch_lag.saw(plural, namespace, "20")
    assert watch_lag.lag_s() == 5


def test_a_silent_watch_is_begun_anew_before_anybody_calls_it_dead() -> None:
    watching = configure().watching
    assert watching.inactivity_timeout < LAG_S / 2
    assert watching.connect_timeout
    assert watching.connect_timeout < watching.inactivity_timeout


def test_a_watch_that_does_not_heal_is_named(watch_lag: WatchLag, clock: Clock) -> None:
    watch_lag.wrote("deployments", "jobs", "11")
    clock.now += LAG_S
    assert watch_lag.stalled() == []
    clock.now += 1
    assert watch_lag.stalled() == ["the watch of deployments/jobs"]
