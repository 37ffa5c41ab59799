"""A simulated OpenRouter for the recipes' workers, and other workers of their fleet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace

import pytest

from openrouter_guard import Guard
from openrouter_guard.rules.breaker import BreakerState
from openrouter_guard.testing import SimulatedOpenRouter, running
from tests.waiting import until
from tests.worker.guards import fail, settings


@pytest.fixture
def simulated() -> SimulatedOpenRouter:
    return SimulatedOpenRouter()


@pytest.fixture
def base_url(simulated: SimulatedOpenRouter) -> Iterator[str]:
    with running(simulated) as base_url:
        yield base_url


@pytest.fixture
def reset_s() -> float:
    """How long the breaker stays open."""
    return 60.0


@pytest.fixture
def others(redis_url: str, reset_s: float) -> Iterator[list[Guard]]:
    # A busy machine is no Redis that is away.
    patient = replace(settings(redis_url, reset_timeout_s=reset_s), redis_timeout_s=10.0)
    with ExitStack() as stack:
        yield [stack.enter_context(Guard(patient)) for _ in range(3)]


@pytest.fixture
def guard(others: list[Guard]) -> Guard:
    """Another worker of the fleet, to see the breaker with."""
    return others[0]


@pytest.fixture
def stop(others: list[Guard]) -> Callable[[], None]:
    """Opens the breaker: as many workers as have to see failures see them."""

    def is_open() -> bool:
        # A good call of the recipe's worker may end a run of failures.
        for other in others:
            fail(other, 2)
        return {other.state.phase for other in others} == {BreakerState.OPEN}

    return lambda: until(is_open, seconds=20)
