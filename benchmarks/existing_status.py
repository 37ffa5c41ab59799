"""The status route as it was before this product: state and metrics read from Redis and a model validated each time.

It asks OpenRouter itself where the state is older than a minute, or where a refresh is forced; so does every other
request that comes meanwhile.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import httpx
import redis.asyncio as aioredis
from fastapi import FastAPI
from pydantic import BaseModel

from openrouter_guard.keys import Keys

__all__ = ["PATH", "existing_app"]

PATH = "/api/v1/openrouter/status"
_KEYS = Keys()


class _Status(BaseModel):
    status: str
    message: str
    balance: float | None = None
    usage_today: float | None = None
    usage_month: float | None = None
    last_check: datetime | None = None
    error_details: str | None = None
    consecutive_failures: int = 0
    circuit_breaker_open: bool = False
    cache_hit: bool = False


def existing_app(redis_url: str, base_url: str, fresh_s: float = 60.0) -> FastAPI:
    """An app with that route; ``fresh_s=0`` asks OpenRouter at each request, as was done before there was a cache."""
    # By itself the client fails from the 101st request at the same time on.
    client = aioredis.Redis.from_url(redis_url, decode_responses=True, max_connections=1024)
    upstream = httpx.AsyncClient(timeout=30.0)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        await upstream.aclose()
        await client.aclose()

    app = FastAPI(lifespan=lifespan)

    @app.get(PATH, response_model=_Status)
    async def status(force_refresh: bool = False) -> _Status:
        now = datetime.now(UTC)
        if not force_refresh and fresh_s:
            known: Any = await client.hgetall(_KEYS.state)
            await client.hgetall(_KEYS.metrics(now.timestamp()))
            if known and _age_s(known, now) < fresh_s:
                return _status(known, cache_hit=True)
        answer = await upstream.get(f"{base_url}/key", headers={"Authorization": "Bearer sk-or-v1-bench"})
        data = answer.json()["data"]
        found: dict[Any, Any] = {
            "state": "active",
            "message": "Service active",
            "balance": str(data["limit_remaining"] or ""),
            "usage_today": str(data["usage_daily"]),
            "usage_month": str(data["usage_monthly"]),
            "last_check": datetime.now(UTC).isoformat(),
            "consecutive_failures": "0",
            "circuit_breaker_open": "false",
        }
        await client.hset(_KEYS.state, mapping=found)
        return _status(found, cache_hit=False)

    return app


def _age_s(known: dict[str, str], now: datetime) -> float:
    checked = known.get("last_check")
    return (now - datetime.fromisoformat(checked)).total_seconds() if checked else float("inf")


def _status(known: dict[str, str], *, cache_hit: bool) -> _Status:
    fields = {name: value for name, value in known.items() if name in _Status.model_fields and value != ""}
    return _Status.model_validate({**fields, "status": known["state"], "cache_hit": cache_hit})
