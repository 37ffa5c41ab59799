"""A rate over the last minute opens the breaker if failures are scattered, or if all calls are slow."""

from __future__ import annotations

from dataclasses import replace

import pytest

from openrouter_guard.rules import evaluation, transitions
from openrouter_guard.rules.breaker import BreakerState, Closed, Open, Policy
from openrouter_guard.rules.shared_state import SharedState
from openrouter_guard.rules.signals import OpenRouterState
from openrouter_guard.rules.window import StepCounts, Window, parse, text_of

NOW_S = 1_000.0
POLICY = Policy(failure_rate=0.5, slow_rate=0.8, window_s=60, window_calls=20)
THREE = ("wa", "wb", "wc")


def evaluate(window: Window, policy: Policy = POLICY, *, live: int = 3) -> SharedState:
    record = SharedState(Closed(window=window), epoch=1, live_reporters=live)
    return evaluation.evaluate(record, now=NOW_S, policy=policy, by="me")


@pytest.mark.parametrize(
    ("window", "reason"),
    [
        pytest.param((StepCounts(990, 20, 10, 0, THREE),), "failure_rate", id="half of the calls failed"),
        pytest.param((StepCounts(990, 20, 9, 0, THREE),), None, id="fewer did"),
        pytest.param((StepCounts(990, 20, 0, 16, THREE),), "slow_call_rate", id="four in five were slow"),
        pytest.param((StepCounts(990, 20, 0, 15, THREE),), None, id="fewer were"),
        pytest.param((StepCounts(990, 20, 20, 20, THREE),), "failure_rate", id="failures say more than slowness"),
        pytest.param((StepCounts(990, 19, 19, 0, THREE),), None, id="too few calls mean nothing"),
        pytest.param(
            (StepCounts(950, 10, 5, 0, THREE), StepCounts(990, 10, 5, 0, THREE)),
            "failure_rate",
            id="the steps add up",
        ),
        pytest.param(
            (StepCounts(940, 80, 80, 0, THREE), StepCounts(990, 20, 0, 0)), None, id="what is too long ago is over"
        ),
        pytest.param((StepCounts(990, 20, 20, 0, ("wa",)),), None, id="one worker stops nobody"),
        pytest.param(
            (StepCounts(980, 10, 10, 0, ("wa",)), StepCounts(990, 10, 10, 0, ("wb", "wc"))),
            "failure_rate",
            id="three of all do",
        ),
        pytest.param((), None, id="no calls, no rate"),
    ],
)
def test_what_a_window_opens(window: Window, reason: str | None) -> None:
    after = evaluate(window)
    assert after.phase(NOW_S) is (BreakerState.OPEN if reason else BreakerState.CLOSED)
    assert after.breaker.reason == (reason or "")


def test_where_one_worker_is_alone_it_is_enough() -> None:
    assert evaluate((StepCounts(990, 20, 20, 0, ("wa",)),), live=1).phase(NOW_S) is BreakerState.OPEN


def test_no_rate_opens_anything_unless_it_is_asked_for() -> None:
    assert evaluate((StepCounts(990, 100, 100, 100, THREE),), Policy()).phase(NOW_S) is BreakerState.CLOSED


def test_one_rate_can_be_asked_for_alone() -> None:
    only_slow = replace(POLICY, failure_rate=0.0)
    assert evaluate((StepCounts(990, 20, 20, 0, THREE),), only_slow).phase(NOW_S) is BreakerState.CLOSED


def test_who_looks_is_told_what_was_wrong_though_the_last_call_was_a_good_one() -> None:
    upstream = evaluate((StepCounts(990, 40, 30, 0, THREE),)).upstream
    assert upstream.state is OpenRouterState.SERVICE_UNAVAILABLE
    assert upstream.message == "30 of 40 calls in the last 60 s failed"


def test_the_window_begins_anew_once_it_has_opened_the_breaker() -> None:
    opened = evaluate((StepCounts(990, 40, 40, 0, THREE),))
    assert isinstance(opened.breaker, Open)
    closed = transitions.now_closed(opened, "wa", NOW_S + 200)
    assert isinstance(closed.breaker, Closed)
    assert closed.breaker.window == ()


def test_it_is_the_same_once_written_and_read() -> None:
    window = (StepCounts(980, 1), StepCounts(990, 20, 3, 2, ("wa", "wb")))
    assert parse(text_of(window)) == window
    assert parse("nonsense 980:1:0:0: 1:2:3") == (StepCounts(980, 1),)
