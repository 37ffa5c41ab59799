"""``guard.wait()``: a queue consumer sleeps until calls may go."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import redis

from openrouter_guard import AsyncGuard, CallNotPermitted, Guard, reset_circuit_breaker
from openrouter_guard.rules.breaker import BreakerState
from openrouter_guard.worker import watchers
from openrouter_guard.worker.reporting import agent
from tests.waiting import until
from tests.worker.guards import fail, half_open, settings

pytestmark = pytest.mark.slow


def took_s(work: Callable[[], Any]) -> float:
    began_at = time.monotonic()
    work()
    return time.monotonic() - began_at


def test_while_calls_may_go_nobody_waits(guard: Guard) -> None:
    assert guard.wait()
    assert took_s(guard.wait) < 0.5


def test_a_new_process_learns_first_that_calls_are_paused(guard: Guard, redis_url: str) -> None:
    fail(guard, 5)
    with Guard(settings(redis_url)) as new:
        assert not new.wait(timeout_s=0.4)


def test_it_gives_up_in_time(guard: Guard) -> None:
    fail(guard, 5)
    assert 0.1 <= took_s(lambda: guard.wait(timeout_s=0.1)) < 1


def test_it_ends_when_the_time_of_the_open_breaker_has_passed(redis_url: str) -> None:
    with Guard(settings(redis_url, reset_timeout_s=0.5)) as guard:
        fail(guard, 5)
        left_s = guard.state.retry_after_s
        assert left_s > 0
        assert left_s - 0.05 < took_s(guard.wait) < left_s + 0.5
        assert guard.state.phase is BreakerState.HALF_OPEN


def test_so_it_does_when_redis_is_not_there_to_tell() -> None:
    with Guard(settings("redis://127.0.0.1:1/0", reset_timeout_s=0.5)) as guard:
        with guard.call():
            pass
        for _ in range(6):
            with suppress(TimeoutError, CallNotPermitted), guard.call():
                raise TimeoutError
        until(lambda: guard.state.phase is BreakerState.OPEN)
        assert guard.wait(timeout_s=5)


def test_it_ends_when_a_rate_limit_does(guard: Guard) -> None:
    with guard.call() as call:
        call.answered(429, headers={"retry-after-ms": "400"})
    until(lambda: guard.state.retry_after_s > 0)
    assert took_s(guard.wait) < 1
    assert guard.state.retry_after_s == 0


def test_a_recovery_elsewhere_wakes_it_at_once(guard: Guard, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent, "POLL_S", (60.0, 60.0))
    fail(guard, 5)
    waiting = Waiting(guard)
    reset_circuit_breaker(redis_url)
    # The next look without a push is a minute away.
    assert waiting.result(within_s=4)


def test_after_a_refused_trial_call_it_does_not_spin(redis_url: str) -> None:
    with Guard(settings(redis_url, reset_timeout_s=0.2)) as guard:
        half_open(guard)
        assert guard.wait()
        with guard.call(), guard.call():
            with suppress(CallNotPermitted), guard.call():
                raise AssertionError("a third call was made")
            assert not guard.wait(timeout_s=0.2)
        # Their success closes the breaker, and that ends the waiting.
        assert took_s(guard.wait) < 0.7


def test_half_open_as_many_go_as_there_are_permits_and_none_of_them_is_refused(redis_url: str) -> None:
    with Guard(settings(redis_url, reset_timeout_s=0.2)) as guard, Guard(settings(redis_url)) as other:
        half_open(guard)
        until(lambda: other.state.phase is BreakerState.HALF_OPEN)
        go, trials = threading.Event(), [Trial(each) for each in (guard, other) for _ in range(5)]
        for trial in trials:
            trial.start(go)
        until(lambda: sum(trial.is_under_way for trial in trials) == 2)
        time.sleep(2 * watchers.TURN_S)
        assert sum(trial.is_under_way for trial in trials) == 2
        # Their success closes the breaker.
        go.set()
        until(lambda: all(trial.is_done for trial in trials))
        assert not any(trial.is_refused for trial in trials)


def test_a_permit_for_which_no_call_comes_is_given_to_others(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchers, "HELD_S", 1.0)
    with Guard(settings(redis_url, reset_timeout_s=0.2)) as guard, Guard(settings(redis_url)) as other:
        half_open(guard)
        until(lambda: other.state.phase is BreakerState.HALF_OPEN)
        idle = [Waiting(guard) for _ in range(2)]
        assert all(each.result(within_s=5) for each in idle)
        with pytest.raises(CallNotPermitted), other.call():
            pytest.fail("both permits are held")
        assert other.wait(timeout_s=10)
        with other.call():
            pass
        until(lambda: guard.state.phase is BreakerState.CLOSED)


def test_the_call_may_be_made_by_another_thread_than_the_one_that_waited(redis_url: str) -> None:
    with Guard(settings(redis_url, reset_timeout_s=0.2)) as guard:
        half_open(guard)
        waiting = [Waiting(guard) for _ in range(2)]
        assert all(each.result(within_s=5) for each in waiting)
        with guard.call(), guard.call():
            assert guard.state.phase is BreakerState.HALF_OPEN
        until(lambda: guard.state.phase is BreakerState.CLOSED)


def test_who_gives_up_while_it_asks_leaves_no_permit_taken(redis_url: str) -> None:
    with Guard(settings(redis_url, reset_timeout_s=0.2)) as guard, Guard(settings(redis_url)) as other:
        half_open(guard)
        until(lambda: other.state.phase is BreakerState.HALF_OPEN)
        for _ in range(20):
            guard.wait(timeout_s=0.0)
        # What was held lapses; what was on its way went back.
        until(lambda: not permits_held(redis_url), seconds=15)


def permits_held(redis_url: str) -> bool:
    with redis.Redis.from_url(redis_url) as client:
        return bool(json.loads(client.hget("openrouter:state", "permits") or "{}"))


def test_closing_the_guard_ends_it(redis_url: str) -> None:
    guard = Guard(settings(redis_url))
    fail(guard, 5)
    waiting = Waiting(guard)
    guard.close()
    assert not waiting.result(within_s=3)


class Trial:
    """A thread that waits for the guard and then makes a call, which takes until all may go on."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self.is_under_way = self.is_done = self.is_refused = False

    def start(self, go: threading.Event) -> None:
        threading.Thread(target=self._run, args=(go,), daemon=True).start()

    def _run(self, go: threading.Event) -> None:
        try:
            if self._guard.wait(timeout_s=30):
                with self._guard.call():
                    self.is_under_way = True
                    go.wait(30)
        except CallNotPermitted:
            self.is_refused = True
        self.is_done = True


class Waiting:
    """A thread that waits for the guard."""

    def __init__(self, guard: Guard) -> None:
        self._answer: bool | None = None
        self._guard = guard
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        time.sleep(0.05)

    def result(self, *, within_s: float) -> bool | None:
        self._thread.join(within_s)
        return self._answer

    def _run(self) -> None:
        self._answer = self._guard.wait(timeout_s=20)


class TestAsync:
    async def test_it_waits_without_holding_up_the_loop(self, redis_url: str) -> None:
        async with AsyncGuard(settings(redis_url, reset_timeout_s=0.4)) as guard:
            assert await guard.wait()
            for _ in range(5):
                with suppress(TimeoutError):
                    async with guard.call():
                        raise TimeoutError
            await guard.flush()
            assert not await guard.wait(timeout_s=0.05)
            ticks = 0
            waiting = asyncio.create_task(guard.wait())
            while not waiting.done():
                await asyncio.sleep(0.01)
                ticks += 1
            assert await waiting
            assert ticks > 5

    async def test_a_cancelled_one_is_cancelled(self, redis_url: str) -> None:
        async with AsyncGuard(settings(redis_url)) as guard:
            for _ in range(5):
                with suppress(TimeoutError):
                    async with guard.call():
                        raise TimeoutError
            await guard.flush()
            waiting = asyncio.create_task(guard.wait())
            await asyncio.sleep(0.05)
            waiting.cancel()
            with suppress(asyncio.CancelledError):
                await waiting
            assert waiting.cancelled()
