"""A worker behind a gateway that guards its own calls: a refusal by the gateway fails no trial call of the worker."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from openrouter_guard import CallNotPermitted, Guard, OpenRouterStateManager
from openrouter_guard.httpx import GuardedTransport
from openrouter_guard.rules.breaker import BreakerState
from openrouter_guard.store import Store
from openrouter_guard.testing import SimulatedOpenRouter
from tests.ports import free_port
from tests.recipes.code import environment, running
from tests.waiting import until
from tests.worker.guards import settings

pytestmark = pytest.mark.slow

GATEWAY = """
import os
from contextlib import asynccontextmanager

import httpx
from fastapi import FastAPI, Request, Response
from openrouter_guard import AsyncGuard, CallNotPermitted
from openrouter_guard.httpx import AsyncGuardedTransport


@asynccontextmanager
async def lifespan(app):
    async with AsyncGuard.from_env() as guard:
        app.state.guard = guard
        app.state.client = httpx.AsyncClient(
            transport=AsyncGuardedTransport(guard),
            base_url=os.environ["OPENROUTER_BASE_URL"],
            headers={"Authorization": f"Bearer {os.environ['OPENROUTER_API_KEY']}"},
        )
        async with app.state.client:
            yield


app = FastAPI(lifespan=lifespan)


@app.exception_handler(CallNotPermitted)
async def refused(request: Request, error: CallNotPermitted) -> Response:
    return Response(status_code=503, headers=error.headers)


@app.get("/up")
async def up() -> str:
    return app.state.guard.state.phase


@app.post("/chat/completions")
async def forward(request: Request) -> Response:
    answer = await app.state.client.post("/chat/completions", json=await request.json())
    return Response(answer.content, answer.status_code, {"content-type": answer.headers["content-type"]})
"""
QUESTION = {"model": "openai/gpt-4o", "messages": [{"role": "user", "content": "Why?"}]}


@pytest.fixture
def gateway(redis_url: str, base_url: str, tmp_path: Path) -> Iterator[str]:
    (tmp_path / "gateway.py").write_text(GATEWAY)
    environ = environment(redis_url, base_url, scope="gateway", first_wait_seconds="60", longest_wait_seconds="60")
    port = free_port()
    with running(tmp_path, environ, "uvicorn", "gateway:app", "--port", str(port)):
        address = f"http://127.0.0.1:{port}"
        until(lambda: phase_of(address))
        yield address


def phase_of(gateway: str) -> str:
    try:
        return str(httpx.get(f"{gateway}/up", timeout=10).json())
    except httpx.TransportError:
        return ""


async def test_both_come_back(gateway: str, redis_url: str, simulated: SimulatedOpenRouter, store: Store) -> None:
    simulated.switch("outage")
    with (
        Guard(settings(redis_url, reset_timeout_s=0.2)) as guard,
        httpx.Client(transport=GuardedTransport(guard), base_url=gateway, timeout=20) as client,
    ):

        def call() -> httpx.Response | None:
            with suppress(CallNotPermitted):
                return client.post("/chat/completions", json=QUESTION)
            return None

        def is_refused() -> bool:
            answer = call()
            return answer is not None and answer.headers.get("openrouter-guard", "").startswith("refused")

        # The worker sees its upstream fail through the gateway, and so does the gateway.
        until(lambda: call() and guard.state.phase is not BreakerState.CLOSED)
        until(lambda: call() and phase_of(gateway) == "open")
        until(is_refused)
        openings = await openings_in(store)
        for _ in range(3):
            until(is_refused)
        guard.flush()
        assert guard.state.phase is BreakerState.HALF_OPEN
        assert await openings_in(store) == openings

        simulated.switch("healthy")
        manager = OpenRouterStateManager(redis_url, scope="gateway")
        await manager.reset(who="test")
        await manager.close()
        until(lambda: (answer := call()) is not None and answer.status_code == 200)
        until(lambda: guard.state.phase is BreakerState.CLOSED)


async def openings_in(store: Store) -> int:
    return [each["to"] for each in await store.history()].count("open")
