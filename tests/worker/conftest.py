"""A guard on a real Valkey."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from openrouter_guard import Guard
from tests.worker.guards import settings


@pytest.fixture
def guard(redis_url: str) -> Iterator[Guard]:
    with Guard(settings(redis_url)) as guard:
        yield guard
