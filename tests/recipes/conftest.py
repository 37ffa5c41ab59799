"""A simulated OpenRouter for the recipes' workers to call."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from openrouter_guard import Guard
from openrouter_guard.testing import SimulatedOpenRouter, running
from tests.recipes.code import RESET_S
from tests.worker.guards import settings


@pytest.fixture
def simulated() -> SimulatedOpenRouter:
    return SimulatedOpenRouter()


@pytest.fixture
def base_url(simulated: SimulatedOpenRouter) -> Iterator[str]:
    with running(simulated) as base_url:
        yield base_url


@pytest.fixture
def guard(redis_url: str) -> Iterator[Guard]:
    """Another worker of the fleet, to open the breaker with."""
    with Guard(settings(redis_url, reset_timeout_s=RESET_S)) as guard:
        yield guard
