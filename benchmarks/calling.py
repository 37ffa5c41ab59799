"""What the benchmarks' workers do with a guard, again and again."""

from __future__ import annotations

from contextlib import suppress

from openrouter_guard import CallNotPermitted, Guard
from openrouter_guard.rules.breaker import BreakerState, Policy
from tests.waiting import until

__all__ = ["FLUSH_S", "WAIT_S", "fail", "goes", "opened"]

FLUSH_S = 60.0
"""On a busy machine the last report may take a while."""
WAIT_S = 60.0


def goes(guard: Guard) -> bool:
    """Whether a call goes, and succeeds."""
    with suppress(CallNotPermitted), guard.call():
        return True
    return False


def fail(guard: Guard) -> None:
    """A call that fails, and is known to have."""
    with suppress(TimeoutError), guard.call():
        raise TimeoutError
    guard.flush(FLUSH_S)


def opened(guard: Guard, phase: BreakerState) -> Guard:
    """The guard once as many calls failed as open its breaker, and the breaker is in *phase*."""
    for _ in range(Policy().failure_threshold):
        fail(guard)
    until(lambda: guard.state.phase is phase, seconds=WAIT_S)
    return guard
