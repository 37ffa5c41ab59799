"""The health service under test: its app on a real Valkey, and an upstream with scripted answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import httpx
import redis.asyncio as aioredis
from asgi_lifespan import LifespanManager

from openrouter_guard.api import create_app
from openrouter_guard.rules import evaluation
from openrouter_guard.rules.breaker import Open
from openrouter_guard.rules.codec import iso
from openrouter_guard.rules.shared_state import SharedState
from openrouter_guard.settings import Settings
from openrouter_guard.store import Batch, Store

__all__ = [
    "FORCED",
    "KEY",
    "MANAGEMENT_KEY",
    "READ_TOKEN",
    "STATE",
    "STATUS",
    "WRITE_TOKEN",
    "Answer",
    "FakeUpstream",
    "ask",
    "bearer",
    "eventually",
    "fail",
    "failing",
    "healthy",
    "open_breaker",
    "running",
    "write",
]

KEY = "sk-or-v1-0123456789abcdef"
MANAGEMENT_KEY = "sk-or-v1-management-0123456789"
READ_TOKEN = "read-0123456789abcdef0123456789abcdef"
WRITE_TOKEN = "write-fedcba9876543210fedcba9876543210"
STATUS = "/api/v1/openrouter/status"
FORCED = f"{STATUS}?force_refresh=true"
STATE = "openrouter:state"

Answer: TypeAlias = Callable[[], httpx.Response]


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def healthy(limit_remaining: float | None = 87.5) -> Answer:
    data = {"label": "sk-or-v1-012...def", "limit": 100, "limit_remaining": limit_remaining}
    usage = {"usage": 42.0, "usage_daily": 1.25, "usage_weekly": 4, "usage_monthly": 12.5}
    return lambda: httpx.Response(200, json={"data": data | usage | {"is_free_tier": False}})


def failing(status_code: int, message: str = "", headers: dict[str, str] | None = None, **metadata: Any) -> Answer:
    error = {"code": status_code, "message": message, "metadata": metadata}
    return lambda: httpx.Response(status_code, json={"error": error}, headers=headers)


class FakeUpstream:
    """OpenRouter, asked through a transport instead of the network.

    Attributes:
        calls: How often it was asked.
        answer: What it answers from now on.
        gate: Clear it to let answers wait.
    """

    def __init__(self) -> None:
        self.calls = 0
        self.answer: Answer = healthy()
        self.gate = asyncio.Event()
        self.gate.set()
        self.transport = httpx.MockTransport(self._handle)

    async def _handle(self, request: httpx.Request) -> httpx.Response:
        assert request.url.path.endswith("/key")
        assert request.headers["authorization"].startswith("Bearer ")
        self.calls += 1
        await self.gate.wait()
        return self.answer()


@asynccontextmanager
async def running(settings: Settings, upstream: FakeUpstream) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a running app."""
    app = create_app(settings, transport=upstream.transport)
    async with LifespanManager(app) as managed:
        transport = httpx.ASGITransport(app=managed.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            yield client


async def eventually(holds: Callable[[], Any], *, seconds: float = 30.0) -> Any:
    """The first true result of *holds*, which may be a coroutine function.

    Raises:
        AssertionError: If there is none in that time.
    """
    deadline = time.monotonic() + seconds
    while True:
        found = holds()
        if asyncio.iscoroutine(found):
            found = await found
        if found:
            return found
        assert time.monotonic() < deadline, f"not true within {seconds:g} s"
        await asyncio.sleep(0.01)


async def ask(service: httpx.AsyncClient, url: str = STATUS) -> dict[str, Any]:
    answer = await service.get(url)
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


async def write(client: aioredis.Redis, age_s: float, **fields: str) -> None:
    """The state as a health check left it so many seconds ago."""
    await write_as_before(client, age_s, **fields)
    await client.hset(STATE, "checked_at", iso(time.time() - age_s))


async def write_as_before(client: aioredis.Redis, age_s: float, **fields: str) -> None:
    """The state as an earlier system wrote it so many seconds ago."""
    own: dict[Any, Any] = {
        "state": "active",
        "message": "Service active",
        "balance": "42.0",
        "usage_today": "1.5",
        "usage_month": "30.25",
        "last_check": iso(time.time() - age_s),
        "consecutive_failures": "0",
        "circuit_breaker_open": "false",
    }
    await client.hset(STATE, mapping=own | fields)
    await client.expire(STATE, 600)


async def fail(store: Store, count: int, reporter: str = "worker1") -> None:
    await store.count(Batch(0, reporter, time.time_ns(), [("F", count)]), at=time.time())


async def open_breaker(store: Store, settings: Settings) -> SharedState:
    await fail(store, 5)
    seen = await store.change(
        lambda record, now: record and evaluation.evaluate(record, now=now, policy=settings.policy, by="me")
    )
    assert seen.record is not None
    assert isinstance(seen.record.breaker, Open)
    return seen.record
