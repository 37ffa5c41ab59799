"""Rates over a window, for fleets that ask for them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import pytest

from openrouter_guard import CallNotPermitted, Guard, Settings
from openrouter_guard.rules.breaker import BreakerState, Policy
from tests.waiting import until

SLOW = Policy(slow_rate=0.9, slow_s=1e-9, window_calls=20)


def every_other_call_fails(guard: Guard) -> None:
    for _ in range(10):
        for error in (None, TimeoutError):
            with suppress(TimeoutError, CallNotPermitted), guard.call():
                if error:
                    raise error
    guard.flush()


def every_call_ends_well(guard: Guard) -> None:
    for _ in range(20):
        with suppress(CallNotPermitted), guard.call():
            pass
    guard.flush()


@pytest.mark.parametrize(
    ("policy", "work", "reason"),
    [
        pytest.param(
            Policy(failure_rate=0.5, window_calls=20), every_other_call_fails, "failure_rate", id="of failures"
        ),
        pytest.param(SLOW, every_call_ends_well, "slow_call_rate", id="of slow calls"),
    ],
)
def test_a_high_rate_opens_the_breaker_for_all(
    redis_url: str, policy: Policy, work: Callable[[Guard], None], reason: str
) -> None:
    with Guard(Settings(redis_url, policy=policy)) as guard, Guard(Settings(redis_url)) as other:
        assert other.state.phase is BreakerState.CLOSED
        work(guard)
        until(lambda: other.state.phase is BreakerState.OPEN)
        assert other.state.reason == reason


def test_without_them_neither_does(redis_url: str) -> None:
    with Guard(Settings(redis_url, policy=replace(SLOW, slow_rate=0.0))) as guard:
        every_other_call_fails(guard)
        every_call_ends_well(guard)
        assert guard.state.phase is BreakerState.CLOSED
