"""A process that cannot start a thread, because there are too many or it ends: it decides alone meanwhile."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import replace
from itertools import count

import pytest
import redis
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from openrouter_guard import AsyncGuard, CallNotPermitted, Guard, StoreError
from openrouter_guard.keys import Keys
from openrouter_guard.rules.backoff import Backoff
from openrouter_guard.rules.breaker import BreakerState
from openrouter_guard.store import Store
from openrouter_guard.worker import background
from tests.waiting import until
from tests.worker.guards import counters, fail, flushed, settings

pytestmark = pytest.mark.slow

NONE_RUNS = "No background thread runs, deciding alone: can't start new thread"
NOWHERE = "redis://127.0.0.1:1/0"
START = threading.Thread.start


def start(_thread: threading.Thread) -> None:
    """As Python says it, also while the interpreter ends."""
    raise RuntimeError("can't start new thread")


@contextmanager
def no_thread(instead: Callable[[threading.Thread], None] = start) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading.Thread, "start", instead)
        yield


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "AGAIN", Backoff(0.05, 0.05))


def called(guard: Guard, status_code: int = 200) -> bool:
    """Whether the call went."""
    with suppress(CallNotPermitted), guard.call() as call:
        call.answered(status_code)
        return True
    return False


def is_flushed(guard: Guard) -> bool:
    with suppress(TimeoutError):
        return flushed(guard)
    return False


def runs(guard: Guard) -> bool:
    """Whether a thread runs, after one more call."""
    called(guard)
    live = guard._core._live
    return live is not None and not live.is_alone


async def test_every_call_goes_and_raises_what_it_would_without_a_guard(redis_url: str) -> None:
    with no_thread():
        guard, async_guard = Guard(settings(redis_url)), AsyncGuard(settings(redis_url))
        for _ in range(3):
            with guard.call():
                pass
            async with async_guard.call("some/model"):
                pass
        mine = ConnectionError("mine")
        with pytest.raises(ConnectionError) as caught, guard.call():
            raise mine
        assert caught.value is mine
        assert guard(lambda: 7)() == 7
        assert guard.wait(timeout_s=0.05)
        assert await async_guard.wait(timeout_s=0.05)
        guard.close()
        await async_guard.close()


async def test_an_outage_is_noticed_and_its_results_reach_redis_as_soon_as_a_thread_starts(
    redis_url: str, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "openrouter_guard")
    guard = Guard(settings(redis_url))
    with no_thread():
        went = [called(guard, 503) for _ in range(20)]
        assert went == [True] * 5 + [False] * 15
        assert guard.state.phase is BreakerState.OPEN
        assert not guard.wait(timeout_s=0.01)
        with pytest.raises(StoreError):
            guard.flush()
    until(lambda: runs(guard))
    fail(guard, 0)
    counted = await counters(store)
    assert counted["failed_calls"] == 5
    assert counted["not_permitted_calls"] >= 15
    with pytest.raises(CallNotPermitted), guard.call():
        pytest.fail("the call was made")
    assert (await store.read()).record.phase(time.time()) is BreakerState.OPEN  # type: ignore[union-attr]
    first, *others = [line for line in caplog.messages if "background" in line]
    assert (first, others) == (NONE_RUNS, ["A background thread runs again"])
    guard.close()


async def test_the_waiting_results_take_no_room(redis_url: str, store: Store) -> None:
    guard = Guard(settings(redis_url))
    with no_thread():
        for _ in range(3000):
            with guard.call():
                pass
        assert len(guard._core.results) + len(guard._core.begun) == 0
        live = guard._core._live
        assert live is not None
        assert len(live.agent._outbox._pending) == 1
    until(lambda: runs(guard))
    guard.close()
    assert (await counters(store))["successful_calls"] > 3000


def test_no_thread_is_tried_for_a_while_after_each_failure(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "AGAIN", Backoff(60.0, 60.0))
    tried: list[str] = []

    def noted(thread: threading.Thread) -> None:
        tried.append(thread.name)
        start(thread)

    with no_thread(noted):
        guard = Guard(settings(redis_url))
        assert all(called(guard) for _ in range(50))
        guard.close()
    assert tried == ["openrouter-guard"]


def test_a_limit_holds_here_and_then_for_the_fleet(redis_url: str) -> None:
    guard, other = Guard(settings(redis_url)), Guard(settings(redis_url))
    with no_thread():
        with guard.call() as call:
            call.answered(429, headers={"Retry-After": "60"})
        assert not called(guard)
        assert 50 < guard.state.retry_after_s <= 60
    until(lambda: runs(guard))
    until(lambda: not called(other))
    assert 50 < other.state.retry_after_s <= 60
    guard.close()
    other.close()


@pytest.mark.parametrize("waits", [False, True])
def test_one_trial_call_at_a_time_closes_it(redis_url: str, *, waits: bool) -> None:
    guard = Guard(settings(redis_url, reset_timeout_s=0.2))
    with no_thread():
        while called(guard, 503):
            pass
        if waits:
            assert guard.wait(timeout_s=30)
        else:
            until(lambda: guard.state.phase is BreakerState.HALF_OPEN)
        with guard.call():
            assert not called(guard)
        until(lambda: guard.state.phase is BreakerState.CLOSED and called(guard))
        guard.close()


async def test_an_asyncio_worker_waits_without_a_thread_too(redis_url: str) -> None:
    guard = AsyncGuard(settings(redis_url, reset_timeout_s=0.3))
    with no_thread():
        for _ in range(5):
            async with guard.call() as call:
                call.answered(503)
        waiting = asyncio.create_task(guard.wait(timeout_s=30))
        assert await guard.wait(timeout_s=0.01) is False
        assert await waiting
        async with guard.call():
            pass
        await guard.close()


def test_who_waits_is_not_kept_by_a_guard_that_is_closed(redis_url: str) -> None:
    guard = Guard(settings(redis_url))
    waited: list[bool] = []
    waiter = threading.Thread(target=lambda: waited.append(guard.wait(timeout_s=60)))
    with no_thread():
        while called(guard, 503):
            pass
        START(waiter)
        until(lambda: waiter.is_alive())
        guard.close()
        waiter.join(30)
    assert waited == [False]


async def test_closing_reports_in_the_callers_own_thread(redis_url: str, store: Store) -> None:
    guard, async_guard = Guard(settings(redis_url)), AsyncGuard(settings(redis_url))
    with no_thread():
        assert called(guard)
        async with async_guard.call():
            pass
        # A loop runs here, and is none of the guard's.
        guard.close()
        await async_guard.close()
        await asyncio.sleep(0)
    assert (await counters(store))["successful_calls"] == 2


def test_closing_is_bounded_without_redis() -> None:
    with no_thread():
        guard = Guard(settings(NOWHERE))
        assert called(guard)
        guard.close(0.1)


def test_many_threads_share_what_there_is_to_do(redis_url: str) -> None:
    guard = Guard(settings(NOWHERE))
    went: list[bool] = []
    threads = [threading.Thread(target=lambda: went.extend(called(guard) for _ in range(200))) for _ in range(8)]
    with no_thread():
        assert called(guard)
        for thread in threads:
            START(thread)
        for thread in threads:
            thread.join(60)
        assert went == [True] * 1600
        live = guard._core._live
        assert live is not None
        assert sum(batch.successes for batch in live.agent._outbox._pending) == 1601
        guard.close(0.1)


def test_a_call_in_the_middle_of_the_work_leaves_its_own_for_later(redis_url: str) -> None:
    """As a signal handler or a finalizer may make one anywhere."""
    guard = Guard(settings(redis_url))
    with no_thread():
        assert called(guard)
        live = guard._core._live
        assert live is not None
        live.thread.call(lambda: called(guard, 503))
        assert guard.state.failures == 1
        guard.close()


@pytest.mark.parametrize("is_awaited", [False, True])
def test_a_time_limit_in_the_middle_of_the_work_reaches_the_caller(redis_url: str, *, is_awaited: bool) -> None:
    """As Celery's, which a signal handler raises."""

    class SoftTimeLimitExceeded(Exception):
        pass

    def out_of_time(*_: object) -> None:
        raise SoftTimeLimitExceeded

    async def struck() -> None:
        signal.raise_signal(signal.SIGUSR1)

    guard = Guard(settings(redis_url))
    before = signal.signal(signal.SIGUSR1, out_of_time)
    try:
        with no_thread():
            assert called(guard)
            live = guard._core._live
            assert live is not None
            with pytest.raises(SoftTimeLimitExceeded):
                live.thread.submit(struck) if is_awaited else live.thread.call(
                    lambda: signal.raise_signal(signal.SIGUSR1)
                )
            assert [called(guard, 503) for _ in range(20)] == [True] * 5 + [False] * 15
            guard.close()
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_the_threads_of_before_are_missed_in_a_forked_child(redis_url: str) -> None:
    guard = Guard(settings(redis_url))
    assert called(guard)
    child = os.fork()
    if child == 0:
        threading.Thread.start = start  # type: ignore[method-assign,assignment]
        os._exit(sum(called(guard, 503) for _ in range(20)))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 5
    guard.close()


def test_a_background_that_ends_again_and_again_is_not_missed_either(
    redis_url: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "AGAIN", Backoff(60.0, 60.0))
    guard = Guard(settings(redis_url))

    async def ends() -> None:
        raise SystemExit

    for _ in range(2):
        assert called(guard)
        live = guard._core._live
        assert live is not None
        assert not live.is_alone
        live.thread.submit(ends)
        until(lambda live=live: guard._core._live is not live)  # type: ignore[misc]
    assert [called(guard, 503) for _ in range(20)] == [True] * 5 + [False] * 15
    assert guard._core._live is not None
    assert guard._core._live.is_alone
    assert caplog.messages.count("No background thread runs, deciding alone: SystemExit()") == 2
    guard.close()


def test_what_the_background_knew_is_known_without_it(redis_url: str) -> None:
    guard = Guard(settings(redis_url))
    fail(guard, 5)
    live = guard._core._live

    async def ends() -> None:
        raise SystemExit

    assert live is not None
    with no_thread():
        live.thread.submit(ends)
        until(lambda: guard._core._live is not live)
        assert not called(guard)
        guard.close()


def test_a_redis_with_a_name_is_away_if_no_thread_can_look_it_up(redis_url: str) -> None:
    """The background itself runs, and has no helper."""

    def only_ours(thread: threading.Thread) -> None:
        START(thread) if thread.name == "openrouter-guard" else start(thread)

    with no_thread(only_ours):
        guard = Guard(settings(redis_url.replace("127.0.0.1", "localhost")))
        until(lambda: not called(guard, 503))
    until(lambda: is_flushed(guard))
    guard.close()


def test_a_listener_hears_of_it_as_soon_as_there_is_a_thread(redis_url: str) -> None:
    guard = Guard(settings(redis_url))
    heard: list[tuple[BreakerState, BreakerState]] = []
    guard.on_transition(lambda before, after: heard.append((before.phase, after.phase)))
    with no_thread():
        until(lambda: guard._core._live is not None)
        guard.close()
        fails = Guard(settings(NOWHERE, reset_timeout_s=0.2))
        fails.on_transition(lambda before, after: heard.append((before.phase, after.phase)))
        while called(fails, 503):
            pass
        assert not heard
    until(lambda: fails.state.phase is BreakerState.HALF_OPEN and called(fails))
    until(lambda: (BreakerState.CLOSED, BreakerState.OPEN) in heard)
    fails.close(0.1)


_scopes = (f"scope-{number}" for number in count())


@hypothesis_settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.sampled_from(["thread", "none", "close"]), st.sampled_from([200, 400, 503])), max_size=12)
)
def test_no_result_is_lost_or_counted_twice_whenever_threads_come_and_go(
    redis_url: str, plan: list[tuple[str, int]]
) -> None:
    background.AGAIN = Backoff(0.0, 0.0)
    scope = next(_scopes)
    guard, went = Guard(replace(settings(redis_url), scope=scope)), 0
    for step, status_code in plan:
        with nullcontext() if step == "thread" else no_thread():
            went += called(guard, status_code)
            if step == "close":
                guard.close(30)
    went += called(guard)
    guard.flush(30)
    guard.close(30)
    with closing(redis.Redis.from_url(redis_url)) as client:
        key = Keys(scope).metrics(time.time())
        assert int(client.hget(key, "total_calls") or 0) == went
