"""A worker's name may be any text: secrets are redacted, and its calls are guarded."""

from __future__ import annotations

from dataclasses import replace

import pytest

from openrouter_guard import Guard
from openrouter_guard.rules.breaker import BreakerState
from openrouter_guard.store import Store
from tests.waiting import until
from tests.worker.guards import fail, half_open, settings

KEY = "sk-or-v1-Q7wE4rT9yU2iO5pA8sD3"


@pytest.mark.parametrize("name", ["w" * 490, "w" * 20_000, "caf\udce9", f"worker {KEY}"])
def test_its_trial_call_gets_its_permit_and_closes_the_breaker(redis_url: str, name: str) -> None:
    with Guard(replace(settings(redis_url, reset_timeout_s=0.3), worker_id=name)) as guard:
        half_open(guard)
        with guard.call():
            pass
        until(lambda: guard.state.phase is BreakerState.CLOSED)


async def test_a_key_in_it_is_not_stored(redis_url: str, store: Store) -> None:
    with Guard(replace(settings(redis_url), worker_id=f"worker {KEY}")) as guard:
        fail(guard, 5)
        until(lambda: guard.state.phase is BreakerState.OPEN)
    (error, *_) = await store.worker_errors(now=(await store.read()).now)
    (change,) = await store.history()
    assert error["worker_id"] == change["by"] == "worker [key]"
