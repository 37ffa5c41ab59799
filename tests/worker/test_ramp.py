"""A worker's part in the ramp after a recovery: its share of the calls, and which of its tasks begin them."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from itertools import pairwise

import pytest
import redis

from openrouter_guard import AsyncGuard, CallNotPermitted, Guard
from openrouter_guard.rules.breaker import Closed, HalfOpen, Open, Policy
from openrouter_guard.rules.ramp import Ramp
from openrouter_guard.rules.shared_state import SharedState
from openrouter_guard.worker.lane import Lane
from openrouter_guard.worker.reporting import agent
from openrouter_guard.worker.view import View, monotonic_offset
from tests.waiting import until
from tests.worker.guards import fail, half_open, settings

pytestmark = pytest.mark.slow

POLICY = Policy(permits=2, ramp_s=30)
RAMP = Ramp(100.0, 130.0, 2, 60, 5.0, processes=6)


def view(since: float, fleet: int = 20) -> View:
    """A breaker that closed so many seconds ago."""
    now = time.time()
    record = SharedState(Closed(since=now - since, call_s=12), fleet=fleet)
    return View(record, monotonic_offset(now), POLICY)


def test_once_it_is_over_it_costs_nothing() -> None:
    assert view(since=0.0).free_admission is None
    assert view(since=30.1).free_admission
    assert view(since=0.0, fleet=2).free_admission


def test_while_open_the_deadline_counts_and_half_open_the_permits() -> None:
    now = time.time()
    offset_s = monotonic_offset(now)
    refusal = View(SharedState(Open("timeout", now, now + 60), fleet=20), offset_s, POLICY).refusal()
    assert refusal is not None
    assert refusal[1] == "timeout"
    assert View(SharedState(HalfOpen("timeout", now), fleet=20), offset_s, POLICY).refusal() is None


class TestLane:
    def starts(self, lot: random.Random, tasks: int = 10, ramp: Ramp = RAMP) -> Iterator[float]:
        """When the tasks of one process begin a call, each coming back when it was told to."""
        lane, due = Lane(lot.random), [ramp.starts_at] * tasks
        while due:
            due.sort()
            now = due.pop(0)
            if now >= ramp.ends_at:
                yield now
            elif wait_s := lane.enter(ramp, now):
                due.append(now + wait_s)
            else:
                yield now

    @pytest.mark.parametrize("processes", [1, 6, 60])
    def test_together_they_begin_as_many_as_the_whole_fleet_may(self, processes: int) -> None:
        ramp = Ramp(100.0, 130.0, 2, 60, 5.0, processes)
        lots = [random.Random(seed) for seed in range(processes)]
        begun = sorted(start for lot in lots for start in self.starts(lot, 60 // processes, ramp))
        for at in (100.0, 102.0, 105.0):
            so_far = sum(start <= at for start in begun)
            # Each process is at most one call ahead of its share, or behind.
            assert abs(so_far - ramp.begun(at)) <= min(processes, 3 * processes**0.5)
        assert begun[-1] < ramp.ends_at

    def test_on_average_the_first_are_as_many_as_while_half_open(self) -> None:
        lot = random.Random(1)
        first = [Lane(lot.random).enter(RAMP, 100.0) == 0 for _ in range(6_000)]
        assert sum(first) == pytest.approx(2_000, rel=0.1)

    def test_nobody_is_told_the_time_of_another(self) -> None:
        lane = Lane(lambda: 0.0)
        waits = [lane.enter(RAMP, 100.0) for _ in range(8)]
        assert waits == sorted(set(waits))
        assert waits[0] > 0.05

    def test_who_comes_when_it_was_told_to_may_begin(self) -> None:
        lane = Lane(lambda: 0.0)
        for wait_s in [lane.enter(RAMP, 100.0) for _ in range(8)]:
            assert lane.enter(RAMP, 100.0 + wait_s + 0.01) == 0

    def test_a_failure_slows_it_down_for_all_that_follows(self) -> None:
        lane, told = Lane(lambda: 0.0), Lane(lambda: 0.0)
        failing = Ramp(100.0, 130.0, 2, 60, 5.0, 6, failing_since=100.5)
        assert [each.enter(ramp, 106.0) for each, ramp in ((lane, RAMP), (told, failing))] == [0, 0]
        left = [
            sum(each.enter(ramp, 107.0) == 0 for _ in range(20)) for each, ramp in ((lane, RAMP), (told, failing))
        ]
        assert left[0] > 2 * left[1]

    def test_a_new_ramp_begins_anew(self) -> None:
        lane, later = Lane(lambda: 0.0), Ramp(200.0, 230.0, 2, 60, 5.0, processes=6)
        assert lane.enter(RAMP, 111.0) == 0
        assert lane.enter(later, 200.0) > 0


@pytest.fixture
def busy(redis_url: str) -> Iterator[Guard]:
    """A process that makes 160 calls at a time, of eight seconds each, and whose breaker has just closed."""
    with redis.Redis.from_url(redis_url) as client, Guard(settings(redis_url, reset_timeout_s=0.2)) as guard:
        half_open(guard)
        client.hset("openrouter:state", "calls_per_minute", "1200")
        with guard.call():
            pass
        guard.flush()
        client.hset("openrouter:state", "trial_took", "8")
        until(lambda: (ramp := guard._core.view.ramp) and ramp.call_s == 8)
        yield guard


def test_a_call_that_comes_too_early_is_told_when(busy: Guard) -> None:
    told: list[tuple[float, float]] = []  # not before, not after

    def is_told_to_wait() -> bool:
        asked_s = time.monotonic()
        try:
            with busy.call():
                return False
        except CallNotPermitted as refused:
            told.append((asked_s + refused.retry_after_s, time.monotonic() + refused.retry_after_s))
            return refused.reason == "recovering"

    # Starts that have become due before this test began, however long that took, go first.
    until(is_told_to_wait)
    while len(told) < 6:
        is_told_to_wait()
    assert all(earlier <= latest for (earlier, _), (_, latest) in pairwise(told))
    assert told[-1][1] > told[0][0]


def test_who_waits_twice_before_it_calls_takes_one_start(busy: Guard) -> None:
    assert busy.wait(timeout_s=5)
    assert all(busy.wait(timeout_s=0.05) for _ in range(20))
    with busy.call():
        pass
    assert not all(busy.wait(timeout_s=0.01) and _went(busy) for _ in range(20))


def _went(guard: Guard) -> bool:
    with guard.call():
        return True


def test_who_waits_is_let_through_in_its_turn_and_is_not_refused_then(busy: Guard) -> None:
    async def worker(guard: AsyncGuard, started: list[float]) -> None:
        assert await guard.wait(timeout_s=20)
        async with guard.call():
            started.append(time.monotonic())

    async def fleet() -> list[float]:
        started: list[float] = []
        async with AsyncGuard(busy._core._settings) as guard, asyncio.timeout(20):
            await guard.wait()
            await asyncio.gather(*(worker(guard, started) for _ in range(20)))
        return started

    started = asyncio.run(fleet())
    assert len(started) == 20
    assert max(started) - min(started) > 0.5


def test_who_waits_is_counted_among_those_who_share_the_ramp(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent, "SIGN_S", 0.2)
    with Guard(settings(redis_url)) as failing, Guard(settings(redis_url)) as waiting:
        fail(failing, 5)
        until(lambda: waiting.state.phase == "open")
        assert failing._core.view.record.live_reporters == 1
        # It has nothing to report.
        assert not waiting.wait(timeout_s=1.0)
        until(lambda: failing._core.view.record.live_reporters == 2)


def test_a_fleet_that_is_stopped_in_its_first_minute_comes_back_by_the_rate_it_had(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client, Guard(settings(redis_url)) as guard:
        with guard.call():
            pass
        guard.flush()
        client.hset("openrouter:state", mapping={"calls_counted": "200", "calls_since": str(int(time.time()) - 20)})
        fail(guard, 5)
        until(lambda: guard.state.phase == "open")
        until(lambda: 500 < guard._core.view.record.calls_per_minute < 700)
