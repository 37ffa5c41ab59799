"""Threads as greenlets, as in Celery's gevent pool: all loops of a process share one system thread."""

from __future__ import annotations

import subprocess
import sys
from textwrap import dedent

import pytest

pytestmark = pytest.mark.slow

pytest.importorskip("gevent")

BEFORE = """
from gevent import monkey

monkey.patch_all()

import asyncio, logging, sys
import gevent
from openrouter_guard import CallNotPermitted, Guard
from openrouter_guard.settings import Settings

logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stdout)


def guarded():
    return Guard(Settings.from_env({"REDIS_URL": sys.argv[1], "OPENROUTER_GUARD_SCOPE": "greenlets"}))


def refuses(guard):
    with gevent.Timeout(60):
        while True:
            try:
                with guard.call() as call:
                    call.answered(503)
            except CallNotPermitted:
                return True
            gevent.sleep(0.01)
"""


def said(code: str, redis_url: str) -> str:
    """What a process of its own prints, with its log."""
    command = [sys.executable, "-c", BEFORE + dedent(code), redis_url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "never awaited" not in done.stderr
    return done.stdout


def test_a_second_guard_is_as_good_as_the_first(redis_url: str) -> None:
    code = """
    first, second = guarded(), guarded()
    both = [gevent.spawn(refuses, each) for each in (first, second)]
    print(len(gevent.joinall(both, timeout=60)), all(each.value for each in both))
    first.close(), second.close()
    """
    assert said(code, redis_url) == "2 True\n"


def test_a_loop_of_the_application_is_no_obstacle_and_suffers_none(redis_url: str) -> None:
    code = """
    guard, seen = guarded(), []

    async def application():
        loop = asyncio.get_running_loop()
        seen.append(await asyncio.to_thread(refuses, guard))
        for _ in range(20):
            await asyncio.sleep(0.01)
            assert asyncio.get_running_loop() is loop

    other = gevent.spawn(asyncio.run, application())
    other.get(timeout=60)
    seen.append(refuses(guard))
    guard.close()
    print(seen)
    """
    assert said(code, redis_url) == "[True, True]\n"


def test_two_first_calls_at_once_leave_a_background_that_works(redis_url: str) -> None:
    """On a busy machine a second caller does not wait for the start by the first one, and starts one too."""
    code = """
    from openrouter_guard.worker import core
    core.TURN_S = 0
    guard = guarded()
    callers = [gevent.spawn(refuses, guard) for _ in range(10)]
    print(len(gevent.joinall(callers, timeout=60)), all(each.value for each in callers))
    guard.close()
    """
    assert said(code, redis_url) == "10 True\n"


def test_a_background_that_ends_says_so_and_the_next_call_starts_another(redis_url: str) -> None:
    code = """
    guard = guarded()
    with guard.call():
        pass

    async def stops():
        raise SystemExit

    live = guard._core._live
    live.thread.submit(stops)
    with gevent.Timeout(60):
        while guard._core._live is live:
            gevent.sleep(0.01)
    with guard.call():
        pass
    guard.flush()
    print(guard._core._live is not None)
    guard.close()
    """
    lines = said(code, redis_url).splitlines()
    assert lines.count("No background thread runs, deciding alone: SystemExit()") == 1
    assert lines[-1] == "True"
