"""A fleet with a full history, so that every answer has content."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx

from openrouter_guard.rules import latency
from openrouter_guard.rules.codec import iso
from openrouter_guard.settings import Settings
from openrouter_guard.store import Store
from tests.service.apps import WRITE_TOKEN, FakeUpstream, ask, bearer, eventually, running
from tests.store.outages import reported_outage

__all__ = ["outage"]

PREFIX = "/api/v1/openrouter"


@asynccontextmanager
async def outage(settings: Settings, upstream: FakeUpstream, store: Store) -> AsyncIterator[httpx.AsyncClient]:
    """A fleet whose breaker has opened twice, with a worker, a model that waits, and an operator that paused."""
    counters = {"total_calls": 5, "successful_calls": 1, "failed_calls": 4, latency.FIELDS[latency.index_of(1.0)]: 5}
    async with running(settings, upstream) as service:
        await ask(service)
        await service.post(f"{PREFIX}/override", json=_forced(), headers=bearer(WRITE_TOKEN))
        await service.delete(f"{PREFIX}/override?who=ada", headers=bearer(WRITE_TOKEN))
        await reported_outage(store, counters)

        async def is_open() -> bool:
            answer = await ask(service)
            return bool(answer["circuit_breaker_open"] and answer["models"])

        await eventually(is_open)
        yield service


def _forced(**fields: str) -> dict[str, str]:
    own = {"kind": "forced_open", "who": "ada", "why": "Drill", "until": iso(time.time() + 3600)}
    return own | fields
