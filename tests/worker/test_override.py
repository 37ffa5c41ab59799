"""A person's override in the fleet: workers, the status, existing workers, and the clock."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress

import pytest
import redis.asyncio as aioredis

from openrouter_guard import CallNotPermitted, Guard, OpenRouterStateManager, Settings
from openrouter_guard.errors import ConfigurationError
from openrouter_guard.rules.breaker import BreakerState, Policy
from openrouter_guard.store import Store
from tests.existing import ExistingWorker
from tests.service.apps import FakeUpstream, ask, eventually, running


@pytest.fixture
def guard(redis_url: str) -> Iterator[Guard]:
    with Guard(Settings(redis_url, policy=Policy(reset_timeout_s=60))) as guard:
        yield guard


@pytest.fixture
async def manager(redis_url: str) -> AsyncIterator[OpenRouterStateManager]:
    async with OpenRouterStateManager(redis_url) as manager:
        yield manager


def passes(guard: Guard) -> bool:
    try:
        with guard.call():
            return True
    except CallNotPermitted:
        return False


def fail(guard: Guard, times: int) -> None:
    for _ in range(times):
        with suppress(TimeoutError), guard.call():
            raise TimeoutError
    guard.flush()


async def test_forced_open_refuses_until_its_end(
    guard: Guard, manager: OpenRouterStateManager, store: Store, client: aioredis.Redis, redis_url: str
) -> None:
    assert passes(guard)
    guard.flush()
    await manager.set_override("forced_open", who="ann", why="maintenance", for_s=0.6)
    await eventually(lambda: not passes(guard))
    assert (guard.state.phase, guard.state.reason) == (BreakerState.OPEN, "forced_open")
    with ExistingWorker(redis_url) as existing:
        assert existing.should_skip_api_call()
        assert existing.report_api_success()
    assert await client.ttl(store.keys.state) in (-1, 600)
    await eventually(lambda: passes(guard))
    await eventually(lambda: is_in_history(store, "override_ended"))
    assert [(entry["to"], entry["by"]) for entry in await store.history()] == [("closed", "ann"), ("open", "ann")]


async def is_in_history(store: Store, reason: str) -> bool:
    return any(entry["reason"] == reason for entry in await store.history())


async def test_forced_closed_lets_calls_go_and_counts_them(guard: Guard, manager: OpenRouterStateManager) -> None:
    fail(guard, 5)
    await eventually(lambda: not passes(guard))
    await manager.set_override("forced_closed", who="ann", why="a false alarm", for_s=60)
    await eventually(lambda: passes(guard))
    assert guard.state.phase is BreakerState.CLOSED
    await manager.clear_override(who="ann")
    await eventually(lambda: not passes(guard))


async def test_disabled_counts_nothing(
    guard: Guard, manager: OpenRouterStateManager, store: Store, client: aioredis.Redis
) -> None:
    assert passes(guard)
    guard.flush()
    await manager.set_override("disabled", who="ann", why="a load test", for_s=60)
    await eventually(lambda: guard._core.view.record.override)
    fail(guard, 9)
    assert passes(guard)
    record = (await store.read()).record
    assert record is not None
    assert record.breaker.failures == 0
    assert await client.ttl(store.keys.state) == pytest.approx(3600 + 60, abs=3)


async def test_the_status_shows_it(redis_url: str, manager: OpenRouterStateManager) -> None:
    await manager.set_override("forced_open", who="ann", why="maintenance", for_s=60)
    async with running(Settings(redis_url), FakeUpstream()) as service:
        shown = (await ask(service))["circuit_breaker"]
    assert (shown["state"], shown["reason"]) == ("open", "forced_open")
    override = shown["override"]
    assert (override["kind"], override["who"], override["why"]) == ("forced_open", "ann", "maintenance")
    assert override["until"] == shown["retry_at"] > time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())
    assert await manager.should_skip_api_call() == (True, "Circuit breaker is open")


@pytest.mark.parametrize(
    ("kind", "who", "why", "for_s", "words"),
    [
        ("open", "ann", "maintenance", 60, "write one of forced_open, forced_closed, disabled"),
        ("disabled", "", "maintenance", 60, "who, why and an end"),
        ("disabled", "ann", "", 60, "who, why and an end"),
        ("disabled", "ann", "maintenance", 0, "who, why and an end"),
        ("disabled", "ann", "maintenance", float("inf"), "who, why and an end"),
        ("disabled", "ann", "maintenance", float("nan"), "who, why and an end"),
        ("disabled", "ann", "maintenance", 31 * 86_400, "an end within 30 days"),
    ],
)
async def test_what_is_missing_is_said(
    manager: OpenRouterStateManager, kind: str, who: str, why: str, for_s: float, words: str
) -> None:
    with pytest.raises(ConfigurationError, match=words):
        await manager.set_override(kind, who=who, why=why, for_s=for_s)
