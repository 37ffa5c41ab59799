"""A state that cannot be decoded counts as unreadable: nothing fails, and nobody takes it for healthy."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress

import pytest
import redis.asyncio as aioredis

from openrouter_guard import CallNotPermitted, Guard, OpenRouterStateManager, StateUnreadable
from openrouter_guard.cli import probe
from openrouter_guard.rules import codec
from openrouter_guard.rules.breaker import BreakerState
from openrouter_guard.rules.shared_state import SharedState
from openrouter_guard.settings import Settings
from openrouter_guard.store import Store
from openrouter_guard.store import store as stores
from openrouter_operator.shared_state.feed import Feed
from tests.service.apps import KEY, STATUS, FakeUpstream, eventually, running
from tests.waiting import until
from tests.worker.guards import settings

SECRET = "sk-or-v1-stored-by-somebody"


class Stumble:
    """While it lasts, whoever parses the state meets a mistake of ours."""

    lasts = False

    def parse(self, fields: Mapping[str, str], now: float) -> SharedState:
        if self.lasts:
            raise ZeroDivisionError(SECRET)
        return codec.parse(fields, now)


@pytest.fixture
def stumble(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stumble]:
    stumble = Stumble()
    monkeypatch.setattr(stores, "parse", stumble.parse)
    monkeypatch.setattr("openrouter_guard.probe.parse", stumble.parse)
    yield stumble
    stumble.lasts = False


@pytest.fixture
def upstream() -> FakeUpstream:
    return FakeUpstream()


@pytest.fixture(autouse=True)
async def something(client: aioredis.Redis) -> None:
    await client.hset("openrouter:state", "state", "active")


def told(caplog: pytest.LogCaptureFixture, words: str) -> list[str]:
    return [message for message in caplog.messages if words in message]


async def test_the_error_has_the_type_and_the_place_and_nothing_that_is_stored(
    store: Store, stumble: Stumble
) -> None:
    stumble.lasts = True
    with pytest.raises(StateUnreadable, match=r"ZeroDivisionError at store\.py:\d+") as met:
        await store.read()
    assert SECRET not in str(met.value)


async def test_a_decision_that_fails_on_it_is_the_same(store: Store) -> None:
    def decide(_record: SharedState | None, _now: float) -> SharedState | None:
        raise RecursionError

    with pytest.raises(StateUnreadable, match="RecursionError"):
        await store.change(decide)


async def test_existing_readers_get_an_error_of_the_store(redis_url: str, stumble: Stumble) -> None:
    stumble.lasts = True
    async with OpenRouterStateManager(redis_url) as manager:
        with suppress(StateUnreadable):
            assert not (await manager.should_skip_api_call())[0]


def test_workers_decide_alone_say_so_once_and_close_in_peace(
    redis_url: str, stumble: Stumble, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "openrouter_guard")
    guard = Guard(settings(redis_url))
    with guard.call():
        pass
    guard.flush()
    stumble.lasts = True
    failures = 0

    def opens() -> bool:
        nonlocal failures
        with suppress(TimeoutError, CallNotPermitted), guard.call():
            failures += 1
            raise TimeoutError
        return guard.state.phase is BreakerState.OPEN

    until(opens)
    assert len(told(caplog, "cannot be decoded")) == 1
    assert "Traceback" not in caplog.text
    guard.close()
    assert not [each.name for each in threading.enumerate() if "openrouter-guard" in each.name]


async def test_the_service_starts_is_degraded_and_alive_and_well_again_once_it_is_over(
    redis_url: str, stumble: Stumble, upstream: FakeUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    stumble.lasts = True
    async with running(Settings(redis_url, api_key=KEY), upstream) as service:

        async def degraded(expected: bool) -> bool:
            answer = await service.get(STATUS)
            return answer.status_code == 200 and answer.json()["degraded"] is expected

        await eventually(lambda: degraded(True))
        assert (await service.get("/livez")).status_code == 200
        assert len(told(caplog, "cannot be decoded")) <= 2
        stumble.lasts = False
        await eventually(lambda: degraded(False))


def test_the_probe_says_unknown_in_one_line(
    redis_url: str, stumble: Stumble, capsys: pytest.CaptureFixture[str]
) -> None:
    stumble.lasts = True
    environ = {"REDIS_URL": redis_url}
    assert probe.run(environ, timeout_s=2, passes_unknown=False) == 2
    assert probe.run(environ, timeout_s=2, passes_unknown=True) == 0
    said = capsys.readouterr()
    assert not said.out
    assert said.err.count("\n") == 2
    assert all(line.startswith("unknown: the state") for line in said.err.splitlines())


async def test_the_operator_does_not_take_it_for_fresh(redis_url: str, stumble: Stumble) -> None:
    news: list[str] = []
    feed = Feed(Settings(redis_url), "operator", news.append)
    await feed.start()
    try:
        assert feed.read().is_fresh
        stumble.lasts = True
        await _until(lambda: not feed.read().is_fresh)
        assert "cannot be decoded" in feed.read().error
        stumble.lasts = False
        await _until(lambda: feed.read().is_fresh)
        assert feed.stalled() == []
    finally:
        await feed.stop()


async def _until(holds: Callable[[], bool]) -> None:
    await asyncio.to_thread(until, holds)
