"""Fixtures of the health service's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import redis.asyncio as aioredis

from openrouter_guard.settings import Settings
from tests.service.apps import KEY, FakeUpstream
from tests.service.leaks import Ears, listening_to_everything


@pytest.fixture(autouse=True)
def nothing_leaks() -> Iterator[Ears]:
    """Fail whatever test makes the service say a secret, in an answer or in its log."""
    with listening_to_everything() as ears:
        yield ears
    assert ears.leaks() == [], "a secret was said"


@pytest.fixture
def settings(redis_url: str) -> Settings:
    """They take no busy machine for a Redis that is away."""
    return Settings(redis_url=redis_url, api_key=KEY, redis_timeout_s=10.0)


@pytest.fixture
def upstream() -> FakeUpstream:
    return FakeUpstream()


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[aioredis.Redis]:
    """Redis without our eyes."""
    async with aioredis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client
