"""While half-open, a few calls of the whole fleet decide."""

from __future__ import annotations

import subprocess
import time
from contextlib import suppress
from dataclasses import replace

import pytest

from openrouter_guard import CallNotPermitted, Guard
from openrouter_guard.rules.breaker import BreakerState, Policy
from tests.waiting import until
from tests.worker.guards import fail, half_open, settings, start

pytestmark = pytest.mark.slow


def test_a_trial_call_that_succeeds_brings_everybody_back(redis_url: str) -> None:
    with Guard(settings(redis_url, reset_timeout_s=0.3)) as guard, Guard(settings(redis_url)) as other:
        fail(guard, 5)
        until(lambda: {guard.state.phase, other.state.phase} == {BreakerState.HALF_OPEN})
        with guard.call():
            pass
        until(lambda: other.state.phase is BreakerState.CLOSED)
        with other.call():
            pass


def test_a_trial_call_that_fails_opens_again_for_the_first_wait(redis_url: str) -> None:
    with Guard(replace(settings(redis_url), policy=Policy(first_wait_s=2.0))) as guard:
        half_open(guard)
        fail(guard, 1)
        until(lambda: guard.state.phase is BreakerState.OPEN)
        assert 0 < guard.state.retry_after_s <= 2.2, "an outage that has just begun is no reason to wait for longer"


def test_a_trial_call_that_meets_a_rate_limit_makes_all_wait_and_decides_nothing(redis_url: str) -> None:
    with Guard(settings(redis_url, reset_timeout_s=0.3)) as guard, Guard(settings(redis_url)) as other:
        fail(guard, 5)
        until(lambda: {guard.state.phase, other.state.phase} == {BreakerState.HALF_OPEN})
        with guard.call() as call:
            call.answered(429, headers={"Retry-After": "1"})
        until(lambda: other.state.retry_after_s > 0)
        with pytest.raises(CallNotPermitted, match="rate_limited"), other.call():
            pytest.fail("the call was made")
        assert (guard.state.phase, other.state.phase) == (BreakerState.HALF_OPEN, BreakerState.HALF_OPEN)
        assert other.wait(timeout_s=5)
        with other.call():
            pass
        until(lambda: guard.state.phase is BreakerState.CLOSED)


def test_while_half_open_only_a_few_calls_are_out(redis_url: str) -> None:
    with Guard(settings(redis_url, reset_timeout_s=0.2)) as guard:
        half_open(guard)
        with guard.call(), guard.call(), pytest.raises(CallNotPermitted), guard.call():
            pytest.fail("a third call was made")
        until(lambda: guard.state.phase is BreakerState.CLOSED)


@pytest.mark.parametrize("next_trial_s", [2.0, 4.0])
def test_the_second_one_goes_once_the_first_has_been_out_for_a_while(redis_url: str, next_trial_s: float) -> None:
    staggered = settings(redis_url, reset_timeout_s=0.2, next_trial_s=next_trial_s)
    with Guard(staggered) as guard, Guard(staggered) as other:
        half_open(guard)
        until(lambda: other.state.phase is BreakerState.HALF_OPEN)
        began_at = time.monotonic()
        with guard.call():
            assert other.wait(timeout_s=60)
            assert time.monotonic() - began_at >= next_trial_s
            with other.call():
                pass
        until(lambda: guard.state.phase is BreakerState.CLOSED)


def test_the_next_one_goes_at_once_where_the_first_has_said_nothing(redis_url: str) -> None:
    staggered = settings(redis_url, reset_timeout_s=0.2, next_trial_s=600)
    with Guard(staggered) as guard, Guard(staggered) as other:
        half_open(guard)
        with suppress(KeyError), guard.call():
            raise KeyError("a bug in the worker")
        guard.flush()
        assert other.wait(timeout_s=60)
        with other.call():
            pass
        until(lambda: guard.state.phase is BreakerState.CLOSED)


@pytest.mark.parametrize("is_up", [False, True])
def test_a_permit_is_worth_nothing_once_the_verdict_has_fallen(redis_url: str, is_up: bool) -> None:
    with Guard(settings(redis_url, reset_timeout_s=0.3)) as slow, Guard(settings(redis_url)) as other:
        half_open(slow)
        until(lambda: other.state.phase is BreakerState.HALF_OPEN)
        claim = slow._core.claim()
        assert slow._core.ask(claim).result(5)
        if is_up:
            with other.call():
                pass
            until(lambda: slow.state.phase is BreakerState.CLOSED)
            assert slow._core.with_permit(claim, granted=True) == (slow.state.epoch, "")
        else:
            fail(other, 1)
            until(lambda: slow.state.phase is BreakerState.OPEN)
            with pytest.raises(CallNotPermitted, match="timeout"):
                slow._core.with_permit(claim, granted=True)


def test_the_permit_of_a_killed_worker_comes_back(redis_url: str) -> None:
    quick = settings(redis_url, reset_timeout_s=0.2, permit_lease_s=0.5)
    with Guard(quick) as guard:
        half_open(guard)
        holders = [_hold_a_permit(redis_url) for _ in range(2)]
        with pytest.raises(CallNotPermitted), guard.call():
            pytest.fail("no permit was left")
        for holder in holders:
            holder.kill()
            holder.communicate()

        def goes_through() -> bool:
            with suppress(CallNotPermitted), guard.call():
                return True
            return False

        until(goes_through)


def test_a_call_that_takes_longer_than_a_lease_keeps_its_permit(redis_url: str) -> None:
    with Guard(settings(redis_url, reset_timeout_s=0.2, permit_lease_s=0.6)) as guard:
        half_open(guard)
        with guard.call(), guard.call():
            ends_s = time.monotonic() + 3 * 0.6
            while time.monotonic() < ends_s:
                with pytest.raises(CallNotPermitted), guard.call():
                    pytest.fail("a third call was made")


def _hold_a_permit(redis_url: str) -> subprocess.Popen[str]:
    holder = start(_HOLDS_A_PERMIT, redis_url)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    return holder


_HOLDS_A_PERMIT = """
import sys
from openrouter_guard import Guard, Settings
from openrouter_guard.rules.breaker import Policy

guard = Guard(Settings(sys.argv[1], policy=Policy(permit_lease_s=0.5, next_trial_s=0.0)))
with guard.call():
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_workers_that_share_a_name_still_share_the_permits(redis_url: str) -> None:
    named = replace(settings(redis_url, reset_timeout_s=0.2), worker_id="worker")
    with Guard(named) as guard, Guard(named) as twin, Guard(named) as third:
        fail(guard, 5)
        until(lambda: {each.state.phase for each in (guard, twin, third)} == {BreakerState.HALF_OPEN})
        with guard.call(), twin.call(), pytest.raises(CallNotPermitted), third.call():
            pytest.fail("a third call was made")


def test_the_verdict_of_a_worker_that_ends_at_once_is_not_lost(redis_url: str) -> None:
    with Guard(settings(redis_url, reset_timeout_s=0.2)) as guard:
        half_open(guard)
        with Guard(settings(redis_url)) as brief, brief.call():
            pass
        until(lambda: guard.state.phase is BreakerState.CLOSED)


def test_a_callers_own_mistake_is_no_failure_and_gives_the_permit_back(redis_url: str) -> None:
    with Guard(settings(redis_url, reset_timeout_s=0.2)) as guard:
        half_open(guard)
        for _ in range(5):
            with suppress(KeyError), guard.call():
                raise KeyError("a bug in the worker")
            guard.flush()
        assert guard.state.phase is BreakerState.HALF_OPEN
