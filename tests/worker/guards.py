"""Helpers of the guard's tests."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import suppress

from openrouter_guard import CallNotPermitted, Guard, Settings, StoreError
from openrouter_guard.rules.breaker import BreakerState, Policy
from openrouter_guard.store import Store
from tests.waiting import until

__all__ = ["counters", "fail", "flushed", "half_open", "settings", "start"]


def settings(
    redis_url: str,
    *,
    reset_timeout_s: float = 60.0,
    permit_lease_s: float = 15.0,
    redis_timeout_s: float = 5.0,
    next_trial_s: float = 0.0,
) -> Settings:
    """For a busy machine: the breaker waits for *reset_timeout_s*, and a Redis may take *redis_timeout_s*.

    Half-open, both permits are there at once unless *next_trial_s* says otherwise.
    """
    policy = Policy(
        first_wait_s=reset_timeout_s,
        reset_timeout_s=reset_timeout_s,
        permit_lease_s=permit_lease_s,
        next_trial_s=next_trial_s,
    )
    return Settings(redis_url, policy=policy, redis_timeout_s=redis_timeout_s)


def fail(guard: Guard, times: int) -> None:
    for _ in range(times):
        with suppress(TimeoutError, CallNotPermitted), guard.call():
            raise TimeoutError("upstream took too long")
    guard.flush(30)


def flushed(guard: Guard) -> bool:
    with suppress(StoreError):
        guard.flush()
        return True
    return False


async def counters(store: Store) -> dict[str, int]:
    days = await store.metrics(1, time.time())
    return {name: int(number) for day in days.values() for name, number in day.items()}


def half_open(guard: Guard) -> None:
    """Open the breaker and let its time pass; *guard* waits a fraction of a second."""
    fail(guard, 5)
    until(lambda: guard.state.phase is BreakerState.HALF_OPEN)


def start(script: str, redis_url: str) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", script, redis_url], stdin=pipe, stdout=pipe, text=True)
