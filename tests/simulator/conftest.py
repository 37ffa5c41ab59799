"""The simulated OpenRouter, on a port of its own for all tests of a file."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from openrouter_guard.testing import SimulatedOpenRouter, running


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[SimulatedOpenRouter, str]]:
    simulated = SimulatedOpenRouter()
    with running(simulated) as base_url:
        yield simulated, base_url


@pytest.fixture
def simulated(server: tuple[SimulatedOpenRouter, str]) -> SimulatedOpenRouter:
    """It runs, and is healthy."""
    simulated, _ = server
    simulated.switch("healthy")
    return simulated


@pytest.fixture(scope="module")
def base_url(server: tuple[SimulatedOpenRouter, str]) -> str:
    return server[1]
