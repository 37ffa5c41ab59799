"""The lifecycle of a guard's background: whatever interrupts it, nothing hangs and nothing is left behind."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from openrouter_guard import AsyncGuard, Guard
from openrouter_guard.rules.breaker import BreakerState
from openrouter_guard.store import Store
from openrouter_guard.worker.reporting.agent import Agent
from tests.waiting import until
from tests.worker.guards import counters, fail, settings

pytestmark = pytest.mark.slow


def backgrounds() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("openrouter-guard")]


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


class TestDropped:
    """A guard that nobody closes, and nobody refers to any more."""

    async def test_it_reports_what_is_left_and_ends(self, redis_url: str, store: Store) -> None:
        guard = Guard(settings(redis_url))
        for _ in range(3):
            with guard.call():
                pass
        del guard
        until(lambda: not backgrounds())
        assert (await counters(store))["successful_calls"] == 3

    async def test_a_call_that_runs_keeps_it(self, redis_url: str, store: Store) -> None:
        with Guard(settings(redis_url)).call():
            gc.collect()
            assert backgrounds()
        until(lambda: not backgrounds())
        assert (await counters(store))["successful_calls"] == 1

    def test_so_does_a_function_that_it_guards(self, redis_url: str) -> None:
        guarded = Guard(settings(redis_url))(lambda: 7)
        assert guarded() == 7
        gc.collect()
        assert backgrounds()
        del guarded
        until(lambda: not backgrounds())

    def test_a_listener_that_knows_the_guard_does_not_keep_it(self, redis_url: str) -> None:
        heard: list[BreakerState] = []

        def work() -> None:
            guard = Guard(settings(redis_url))
            guard.on_transition(lambda _, after: heard.append(guard.state.phase))
            fail(guard, 5)
            until(lambda: heard)

        work()
        gc.collect()
        until(lambda: not backgrounds())

    def test_an_async_one_ends_too(self, redis_url: str) -> None:
        async def work() -> None:
            async with AsyncGuard(settings(redis_url)).call():
                pass

        asyncio.run(work())
        until(lambda: not backgrounds())

    @pytest.mark.slow
    def test_of_1000_nothing_is_left(self, redis_url: str) -> None:
        with Guard(settings(redis_url)).call():
            pass
        until(lambda: not backgrounds())
        before = open_files()
        for _ in range(1000):
            with suppress(ValueError), Guard(settings(redis_url)).call():
                raise ValueError
        until(lambda: not backgrounds(), seconds=20)
        gc.collect()
        assert open_files() <= before + 2

    def test_redis_that_is_away_keeps_none(self) -> None:
        with Guard(settings("redis://127.0.0.1:1/0")).call():
            pass
        until(lambda: not backgrounds())


class TestClosed:
    def test_it_never_raises_and_always_ends_its_thread(
        self, redis_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def wrong(*_: object) -> None:
            raise LookupError("nobody thought of it")

        guard = Guard(settings(redis_url))
        with guard.call():
            pass
        for name in ("finish", "close", "flush"):
            monkeypatch.setattr(Agent, name, wrong)
        guard.close()
        assert not backgrounds()

    def test_nor_does_it_wait_longer_than_it_may(self, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        async def stubborn(*_: object) -> None:
            while True:
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(60)

        guard = Guard(settings(redis_url))
        with guard.call():
            pass
        monkeypatch.setattr(Agent, "finish", stubborn)
        began_at = time.monotonic()
        guard.close(0.3)
        assert time.monotonic() - began_at < 10
        # A call that comes now starts anew.
        monkeypatch.undo()
        with guard.call():
            pass
        guard.flush()
        guard.close()
        until(lambda: not backgrounds())

    async def test_one_that_is_cancelled_while_it_closes_ends_all_the_same(self, redis_url: str) -> None:
        guard = AsyncGuard(settings(redis_url))
        async with guard.call():
            pass
        closing = asyncio.create_task(guard.close())
        await asyncio.sleep(0)
        closing.cancel()
        await asyncio.to_thread(until, lambda: not backgrounds())

    def test_in_its_own_thread_it_does_not_wait_for_itself(self, redis_url: str) -> None:
        """As a finalizer would that the garbage collector runs there."""
        guard = Guard(settings(redis_url))
        with guard.call():
            pass
        live = guard._core._live
        assert live is not None
        closed = threading.Event()

        def close() -> None:
            guard.close()
            closed.set()

        live.thread.call(close)
        assert closed.wait(1)
        until(lambda: not backgrounds())

    def test_many_that_start_and_close_at_once_leave_nothing(self, redis_url: str) -> None:
        guard = Guard(settings(redis_url))

        def work(number: int) -> None:
            for _ in range(20):
                with guard.call():
                    pass
                if number % 2:
                    guard.close(0.5)

        with ThreadPoolExecutor(8) as threads:
            list(threads.map(work, range(8)))
        guard.close()
        until(lambda: not backgrounds())


def run(script: str, redis_url: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), redis_url],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


INTERRUPTED_START = """
    import os, signal, sys, threading, time
    from openrouter_guard import Guard
    from openrouter_guard.worker import core

    guard = Guard.from_url(sys.argv[1])

    def handler(*_):
        {handler}

    signal.signal(signal.SIGUSR1, handler)
    {moment}
    with guard.call():
        pass
    guard.close()
    deadline = time.monotonic() + 30
    while threading.active_count() > 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    print("well", threading.active_count())
"""
IN_THE_LOOP = """
    begin = core.begin

    async def slow(live, starts):
        os.kill(os.getpid(), signal.SIGUSR1)
        time.sleep(0.2)
        return await begin(live, starts)

    core.begin = slow"""
IN_THE_START_OF_THE_THREAD = """
    start = threading.Thread.start

    def slow(self):
        if threading.current_thread() is threading.main_thread():
            threading.Thread.start = start
            signal.raise_signal(signal.SIGUSR1)
        start(self)

    threading.Thread.start = slow"""


@pytest.mark.parametrize("moment", [IN_THE_LOOP, IN_THE_START_OF_THE_THREAD], ids=["loop", "thread"])
@pytest.mark.parametrize(
    "handler",
    [
        "guard.close()",
        "guard.flush()",
        "guard.state",
        "guard.wait(0.1)",
        "guard.call().__enter__()",
        "os.fork() or guard.close() or os._exit(0)",
    ],
)
def test_a_signal_handler_in_the_middle_of_the_start_may_do_what_it_likes(
    redis_url: str, moment: str, handler: str
) -> None:
    ended = run(INTERRUPTED_START.format(handler=handler, moment=moment), redis_url)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "well 1\n", "")


@pytest.mark.parametrize("moment", [IN_THE_LOOP, IN_THE_START_OF_THE_THREAD], ids=["loop", "thread"])
def test_a_worker_whose_first_call_is_interrupted_by_its_end_ends(redis_url: str, moment: str) -> None:
    ended = run(INTERRUPTED_START.format(handler="guard.close(); sys.exit(3)", moment=moment), redis_url)
    assert (ended.returncode, ended.stdout, ended.stderr) == (3, "", "")


def test_a_start_that_is_struck_leaves_no_thread_behind(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: Callable[[threading.Thread], None] = threading.Thread.start

    class Struck(BaseException): ...

    def start(thread: threading.Thread) -> None:
        begun(thread)
        raise Struck

    guard = Guard(settings(redis_url))
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        with pytest.raises(Struck), guard.call():
            pytest.fail("the call was made")
    until(lambda: not backgrounds())
    with guard.call():
        pass
    guard.close()


def test_a_background_that_was_killed_is_replaced(redis_url: str) -> None:
    def die() -> None:
        raise SystemExit

    guard = Guard(settings(redis_url))
    with guard.call():
        pass
    live: Any = guard._core._live
    live.thread.call(die)
    until(lambda: not backgrounds())
    fail(guard, 2)
    assert guard.state.failures == 2
    guard.close()


def test_many_guards_hold_up_the_end_of_a_process_no_longer_than_one(redis_url: str) -> None:
    script = """
        import socket, sys, time
        from openrouter_guard import Guard, Settings

        silent = socket.create_server(("127.0.0.1", 0))
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        guards = [Guard(Settings(url, redis_timeout_s=10)) for _ in range(5)]
        for guard in guards:
            guard.on_transition(print)
        print(time.monotonic())
    """
    ended = run(script, redis_url)
    assert time.monotonic() - float(ended.stdout) < 7  # one holds it up for two seconds
