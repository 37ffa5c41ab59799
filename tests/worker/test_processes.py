"""Guards in several processes, forked ones, and ones that exit."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress

import pytest

from openrouter_guard import Guard
from openrouter_guard.rules.breaker import BreakerState
from openrouter_guard.store import Store
from tests.waiting import until
from tests.worker.guards import counters, fail, start


def in_a_child(work: Callable[[], object]) -> None:
    """Run *work* in a forked child, to its end."""
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            work()
            os._exit(0)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0


class TestProcesses:
    def test_a_forked_child_has_its_own_guard(self, guard: Guard, redis_url: str) -> None:
        with guard.call():
            pass
        guard.flush()
        in_a_child(lambda: fail(guard, 2))
        until(lambda: guard.state.failures == 2)

    async def test_what_the_parent_saw_the_child_does_not_report_again(self, guard: Guard, store: Store) -> None:
        for _ in range(3):
            with guard.call():
                pass
        in_a_child(lambda: fail(guard, 1))
        guard.flush()
        assert (await counters(store))["total_calls"] == 4

    @pytest.mark.slow
    async def test_of_20_processes_with_100_failures_each_none_is_lost(self, redis_url: str, store: Store) -> None:
        workers = [start(_REPORTS_100_FAILURES, redis_url) for _ in range(20)]
        for worker in workers:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "ready\n"
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write("go\n")
            worker.stdin.flush()
        for worker in workers:
            await asyncio.to_thread(worker.communicate, timeout=60)
        assert [worker.returncode for worker in workers] == [0] * 20
        assert (await counters(store))["failed_calls"] == 2000
        record = (await store.read()).record
        assert record is not None
        # On a busy machine its wait may be over by now.
        assert record.phase(time.time()) in (BreakerState.OPEN, BreakerState.HALF_OPEN)
        assert [entry["to"] for entry in await store.history()] == ["open"]

    def test_a_worker_that_ends_reports_before_it_goes(self, redis_url: str, guard: Guard) -> None:
        script = (
            "import sys\n"
            "from openrouter_guard import Guard\n"
            "guard = Guard.from_url(sys.argv[1])\n"
            "try:\n"
            "    with guard.call(): raise TimeoutError\n"
            "except TimeoutError: pass\n"
        )
        subprocess.run([sys.executable, "-c", script, redis_url], check=True, timeout=120)
        until(lambda: guard.state.failures == 1)


_REPORTS_100_FAILURES = """
import asyncio, sys
from openrouter_guard import WorkerOpenRouterReporter

async def report():
    async with WorkerOpenRouterReporter(sys.argv[1]) as reporter:
        print("ready", flush=True)
        sys.stdin.readline()
        for _ in range(100):
            in_redis = await reporter.report_api_error("timed out", 504)
        while not in_redis:
            # On a busy machine a report may take longer than it waits: it is sent all the same.
            in_redis = await reporter.report_api_success()

asyncio.run(report())
"""
