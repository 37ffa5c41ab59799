"""Workers answer the fleet's question before the breaker opens: real guards on one Valkey."""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing import get_context

import pytest
import redis

from benchmarks.cold_starts import opens
from openrouter_guard import CallNotPermitted, Guard, StoreError
from openrouter_guard.clocks import MonotonicTime, ServerTime
from openrouter_guard.rules.breaker import BreakerState
from openrouter_guard.rules.question import Question
from openrouter_guard.rules.signals import SUCCESS
from openrouter_guard.worker.reporting.calls_in_flight import Flight
from openrouter_guard.worker.view import Admission, Ended
from tests.relay import distant
from tests.waiting import until
from tests.worker.guards import fail, settings

pytestmark = pytest.mark.slow

STATE = "openrouter:state"


@contextmanager
def fleet(redis_url: str, size: int) -> Iterator[list[Guard]]:
    """Guards of which each has reported."""
    with ExitStack() as stack:
        guards = [stack.enter_context(Guard(settings(redis_url))) for _ in range(size)]
        for guard in guards:
            with guard.call():
                pass
            guard.flush()
        yield guards


@contextmanager
def under_way(guard: Guard, calls: int) -> Iterator[None]:
    """So many calls that began just now, and go on."""
    ends, begun = threading.Event(), threading.Barrier(calls + 1)

    def call() -> None:
        with suppress(CallNotPermitted), guard.call():
            begun.wait(10)
            ends.wait(20)

    threads = [threading.Thread(target=call) for _ in range(calls)]
    for thread in threads:
        thread.start()
    begun.wait(10)
    try:
        yield
    finally:
        ends.set()
        for thread in threads:
            thread.join()


@contextmanager
def failing(*guards: Guard, calls: int = 2) -> Iterator[None]:
    """Calls of each, which began before what comes now, and fail after it."""
    ends, begun = threading.Event(), threading.Barrier(calls * len(guards) + 1)

    def call(guard: Guard) -> None:
        with suppress(TimeoutError), guard.call():
            begun.wait(10)
            ends.wait(20)
            raise TimeoutError

    threads = [threading.Thread(target=call, args=(guard,)) for guard in guards for _ in range(calls)]
    for thread in threads:
        thread.start()
    begun.wait(10)
    yield
    ends.set()
    for thread in threads:
        thread.join()
    for guard in guards:
        with suppress(StoreError):
            guard.flush()


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


@contextmanager
def bad_luck(*guards: Guard, well: Guard, calls: int = 40, later_s: float = 0.0) -> Iterator[None]:
    """A start in which the first calls to come back have failed; so many others, of the same moment, go on.

    Args:
        later_s: They began so much later: of far clocks it is known less well what they show.
    """
    with ExitStack() as goes_on:
        early, late = ExitStack(), ExitStack()
        early.enter_context(failing(guards[0], calls=1))
        time.sleep(later_s)
        goes_on.enter_context(under_way(well, calls))
        time.sleep(0.3)
        late.enter_context(failing(*guards, calls=2 if len(guards) > 1 else 4))
        time.sleep(0.05)
        early.close()
        late.close()
        yield


def test_a_fleet_whose_other_calls_are_still_under_way_goes_on(redis_url: str, client: redis.Redis) -> None:
    with fleet(redis_url, 4) as guards, bad_luck(*guards[:3], well=guards[3]):
        until(lambda: client.hget(STATE, "acquitted"))
        until(lambda: all(guard.state.failures == 0 for guard in guards))
        assert all(guard.state.phase is BreakerState.CLOSED for guard in guards)


def test_clocks_that_are_seconds_apart_say_nothing_of_the_order_of_calls(
    redis_url: str, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    true_time, off_s = time.time, itertools.cycle((-1.0, 1.0))
    monkeypatch.setattr(time, "time", lambda: true_time() + next(off_s))
    with fleet(redis_url, 4) as guards, bad_luck(*guards[:3], well=guards[3]):
        until(lambda: client.hget(STATE, "acquitted"))
        assert all(guard.state.phase is BreakerState.CLOSED for guard in guards)


def test_far_from_redis_the_answers_are_waited_for(redis_url: str, client: redis.Redis) -> None:
    port = int(redis_url.rpartition(":")[2].partition("/")[0])
    with (
        distant(port, 0.12) as far,
        fleet(f"redis://127.0.0.1:{far}/0", 4) as guards,
        bad_luck(*guards[:3], well=guards[3], later_s=0.2),
    ):
        until(lambda: client.hget(STATE, "acquitted"))
        assert all(guard.state.phase is BreakerState.CLOSED for guard in guards)


def test_where_nobody_has_such_a_call_it_opens_a_quarter_of_a_second_later(
    redis_url: str, client: redis.Redis
) -> None:
    with fleet(redis_url, 3) as guards:
        with failing(*guards):
            time.sleep(0.3)
        # Whoever flushes waits for what follows.
        assert guards[0].state.phase is BreakerState.OPEN
        assert client.hget(STATE, "question") in (None, "")


def test_the_last_process_of_a_fleet_waits_for_nobody(redis_url: str) -> None:
    with fleet(redis_url, 1) as (guard,):
        fail(guard, 5)
        assert guard.state.phase is BreakerState.OPEN


def test_who_asked_and_died_is_not_needed(redis_url: str, client: redis.Redis) -> None:
    with fleet(redis_url, 3) as guards:
        # As if another had asked, and was gone: three reporters have failed, and the question is out.
        for name, value in asked_by_nobody(client).items():
            client.hset(STATE, name, value)
        client.publish("openrouter:events", "{}")
        until(lambda: all(guard.state.phase is BreakerState.OPEN for guard in guards))


def asked_by_nobody(client: redis.Redis) -> dict[str, str]:
    seconds, micros = client.time()
    now = seconds + micros / 1e6
    about = f"{now - 1:.6f} {now:.6f} 1.000000"
    return {
        "consecutive_failures": "5",
        "run": "wa wb wc",
        "run_shares": "wa:2 wb:2 wc:1",
        "run_evidence": f"{now - 1:.6f} {now:.6f} 5.000000 5.000000 1.000000",
        "question": f"{now * 1e3:.0f} {now:.6f} {about}",
    }


class TestOneWorkerOfTwoFails:
    @pytest.fixture
    def failing(self, redis_url: str, other: Guard) -> Iterator[Guard]:
        """Its calls fail, and the other one has reported within the last minute."""
        with Guard(settings(redis_url)) as guard:
            fail(guard, 5)
            yield guard

    @pytest.fixture
    def other(self, redis_url: str) -> Iterator[Guard]:
        with Guard(settings(redis_url)) as guard:
            bad_request(guard)
            guard.flush()
            yield guard

    def test_and_the_other_one_has_become_idle(self, failing: Guard, other: Guard, client: redis.Redis) -> None:
        # By their gaps, the next call is overdue.
        for _ in range(20):
            bad_request(other)
        six_seconds_pass(client)
        until(lambda: other.state.phase is BreakerState.OPEN)

    def test_and_the_other_one_makes_a_call(self, failing: Guard, other: Guard, client: redis.Redis) -> None:
        for _ in range(20):
            bad_request(other)
        with under_way(other, 1):
            six_seconds_pass(client)
            until(lambda: client.hget(STATE, "acquitted"))
            assert other.state.phase is BreakerState.CLOSED

    def test_and_the_other_one_made_a_single_call(self, failing: Guard, other: Guard, client: redis.Redis) -> None:
        six_seconds_pass(client)
        until(lambda: client.hget(STATE, "acquitted"))
        assert other.state.phase is BreakerState.CLOSED


def six_seconds_pass(client: redis.Redis) -> None:
    """As if the run of failures had begun so much earlier."""
    evidence = str(client.hget(STATE, "run_evidence"))
    times, took_s = evidence.split()[:2], evidence.split()[2:]
    moved = [f"{float(at) - 6:.6f}" for at in times]
    client.hset(STATE, "run_evidence", " ".join(moved + took_s))


def bad_request(guard: Guard) -> None:
    """A call that says nothing about the upstream: it ends no run."""
    with guard.call() as call:
        call.answered(400)


def test_without_redis_a_process_asks_itself(redis_url: str) -> None:
    with Guard(settings("redis://127.0.0.1:1")) as guard:
        with bad_luck(guard, well=guard):
            until(lambda: guard.state.failures == 0)
            assert guard.state.phase is BreakerState.CLOSED

        def opens_soon() -> bool:
            fail_alone(guard, 5)
            return guard.state.phase is BreakerState.OPEN

        # What was acquitted a moment ago is asked about for a while.
        until(opens_soon, seconds=20)


def fail_alone(guard: Guard, calls: int) -> None:
    for _ in range(calls):
        with suppress(TimeoutError, CallNotPermitted), guard.call():
            raise TimeoutError


class TestTheCallsOfAProcess:
    def ended(self, began_at: float, ended_at: float) -> Ended:
        return SUCCESS, Admission(1, ""), MonotonicTime(began_at), MonotonicTime(ended_at), None

    def question(self, began_at: float) -> Question:
        return Question(1, 100.0, began_at, 1.0, 90.0)

    def test_are_under_way_from_their_beginning_to_their_end(self) -> None:
        begun = deque(map(MonotonicTime, (10.0, 20.0, 30.0)))
        flight = Flight(begun)
        flight.note([self.ended(20.0, 40.0)])
        assert not begun
        assert flight.answer(self.question(0.0), ServerTime(100.0), 0.0) == 2
        assert flight.answer(self.question(30.0), ServerTime(100.0), 0.0) == 1
        # By Redis' clock.
        assert flight.answer(self.question(75.0), ServerTime(100.0), 50.0) == 1

    def test_that_ended_well_are_the_last_few(self) -> None:
        flight = Flight(deque())
        flight.note([self.ended(80.0, 80.0 + number / 10) for number in range(1_000)])
        assert flight.answer(self.question(80.0), ServerTime(300.0), 0.0) == 64


@pytest.mark.slow
@pytest.mark.parametrize("error_rate", [0.02, 0.05, 0.1])
def test_four_processes_of_fifty_that_start_together_stay_closed(redis_url: str, error_rate: float) -> None:
    context = get_context("spawn")
    with context.Pool(4) as pool:
        arguments = [(redis_url, error_rate, seed, 6.0, 0.4, 3.0) for seed in range(4)]
        assert pool.starmap(opens, arguments) == [False] * 4
