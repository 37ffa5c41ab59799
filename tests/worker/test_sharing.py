"""One shared guard: in forked processes, in threads, in event loops."""

from __future__ import annotations

import asyncio
import gc
import itertools
import multiprocessing
import os
import pickle
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace

import pytest

from openrouter_guard import AsyncGuard, CallNotPermitted, Guard
from openrouter_guard.store import Store
from openrouter_guard.worker.reporting import agent
from tests.waiting import until
from tests.worker.guards import counters, half_open, settings

pytestmark = pytest.mark.slow

FORK = multiprocessing.get_context("fork")


def call(guard: Guard, times: int = 1) -> None:
    for _ in range(times):
        with guard.call():
            pass


def forked(work: Callable[[], object]) -> int:
    """Its exit status: 0 if *work* went well."""
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            work()
            os._exit(0)
        os._exit(1)
    return os.waitpid(child, 0)[1]


@contextmanager
def busy(guard: Guard) -> Iterator[None]:
    """Other threads use the guard meanwhile, and one of them starts it over and over."""
    is_over = threading.Event()

    def calls() -> None:
        while not is_over.is_set():
            call(guard)

    def starts() -> None:
        while not is_over.is_set():
            guard.close()

    threads = [threading.Thread(target=target) for target in (calls, calls, starts)]
    for thread in threads:
        thread.start()
    yield
    is_over.set()
    for thread in threads:
        thread.join()


@pytest.mark.slow
def test_a_fork_may_come_at_any_moment(guard: Guard) -> None:
    def child() -> None:
        call(guard)
        guard.flush()
        guard.close()

    with busy(guard):
        assert [forked(child) for _ in range(10)] == [0] * 10


def test_a_child_forked_in_a_thread_has_its_own_guard(guard: Guard) -> None:
    call(guard)

    def child() -> None:
        with suppress(TimeoutError), guard.call():
            raise TimeoutError
        guard.close()

    with ThreadPoolExecutor(3) as threads:
        assert list(threads.map(forked, [child] * 3)) == [0] * 3
    until(lambda: guard.state.failures == 3)


async def test_a_child_of_multiprocessing_reports_before_it_goes(guard: Guard, store: Store) -> None:
    call(guard)
    child = FORK.Process(target=call, args=(guard, 7))
    child.start()
    child.join()
    guard.flush()
    assert (await counters(store))["successful_calls"] == 8


async def test_a_child_in_which_a_loop_runs_has_its_own_guard(redis_url: str, guard: Guard) -> None:
    async with AsyncGuard(settings(redis_url)) as shared:

        async def calls() -> None:
            with suppress(TimeoutError):
                async with shared.call():
                    raise TimeoutError
            await shared.close()

        await calls()
        assert await asyncio.to_thread(forked, lambda: asyncio.run(calls())) == 0
    until(lambda: guard.state.failures == 2)


@pytest.mark.parametrize("kind", [Guard, AsyncGuard])
def test_it_is_not_sent_to_other_processes_with_its_password(kind: type[Guard] | type[AsyncGuard]) -> None:
    guard = kind.from_url("redis://user:hunter2@127.0.0.1:1/0")
    with pytest.raises(TypeError, match=f"{kind.__name__} cannot be pickled: make one in the other process"):
        pickle.dumps(guard)


def test_what_a_child_forgets_is_still_its_parents(guard: Guard) -> None:
    call(guard)
    guard.flush()

    def child() -> None:
        call(guard)
        gc.collect()
        guard.close()

    assert forked(child) == 0
    # Its loop is still woken by other threads: with its own timers alone it would take a second for these.
    for _ in range(10):
        guard.flush(timeout_s=0.2)


async def test_one_guard_serves_any_number_of_event_loops(redis_url: str, store: Store) -> None:
    async def calls(guard: AsyncGuard) -> None:
        assert await guard.wait()
        for _ in range(50):
            async with guard.call():
                await asyncio.sleep(0)
        await guard.flush()

    async with AsyncGuard(settings(redis_url)) as guard:
        elsewhere = (asyncio.to_thread(asyncio.run, calls(guard)) for _ in range(5))
        await asyncio.gather(*elsewhere, calls(guard), calls(guard))
        assert (await counters(store))["successful_calls"] == 7 * 50


async def test_a_permit_is_the_same_in_each_event_loop(redis_url: str) -> None:
    async def is_out(guard: AsyncGuard) -> bool:
        try:
            async with guard.call():
                await asyncio.sleep(0.3)
        except CallNotPermitted:
            return False
        return True

    with Guard(settings(redis_url, reset_timeout_s=0.2)) as other:
        half_open(other)
        async with AsyncGuard(settings(redis_url)) as guard:
            await guard.wait()
            elsewhere = (asyncio.to_thread(asyncio.run, is_out(guard)) for _ in range(4))
            assert sorted(await asyncio.gather(*elsewhere, is_out(guard))) == [False] * 3 + [True] * 2


class TestClosedElsewhere:
    """Redis does not answer, so whoever asks something is waiting when the guard is closed."""

    @pytest.fixture
    def silent(self) -> Iterator[str]:
        with socket.create_server(("127.0.0.1", 0)) as server:
            yield f"redis://127.0.0.1:{server.getsockname()[1]}/0"

    def test_a_call_of_another_thread_goes_on(self, silent: str) -> None:
        guard = Guard(settings(silent))
        with ThreadPoolExecutor(1) as threads:
            calling = threads.submit(call, guard)
            until(lambda: calling.running() and guard.state)
            guard.close(0.05)
            calling.result()
        guard.close()

    async def test_a_call_of_another_task_goes_on(self, silent: str) -> None:
        async with AsyncGuard(settings(silent)) as guard:

            async def calls() -> str:
                async with guard.call():
                    return "an answer"

            calling = asyncio.create_task(calls())
            await asyncio.sleep(0)
            await guard.close(0.05)
            assert await calling == "an answer"

    async def test_a_flush_says_that_it_came_to_nothing(self, silent: str) -> None:
        guard = AsyncGuard(settings(silent))
        async with guard.call():
            pass
        flushing = asyncio.create_task(guard.flush())
        await asyncio.sleep(0)
        await guard.close(0)
        with pytest.raises(TimeoutError, match="not every result is in Redis"):
            await flushing


@pytest.mark.parametrize("rest_s", [agent.FLUSH_S, 0.0], ids=["rests", "restless"])
async def test_a_guard_that_is_closed_while_threads_use_it_loses_no_call(
    redis_url: str, store: Store, rest_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent, "FLUSH_S", rest_s)
    shared, has_ended, made = (
        Guard(replace(settings(redis_url), redis_timeout_s=10.0)),
        threading.Event(),
        list[int](),
    )

    def work() -> None:
        for number in itertools.count(1):
            call(shared)
            if has_ended.wait(0.0001):
                made.append(number)
                return

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        await asyncio.to_thread(shared.close, 20.0)
    has_ended.set()
    for thread in threads:
        thread.join()
    await asyncio.to_thread(shared.flush)
    shared.close()
    assert (await counters(store))["successful_calls"] == sum(made)
