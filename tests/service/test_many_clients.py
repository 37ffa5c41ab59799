"""Many forcing clients on several replicas with a slow upstream: one check a minute, and no long waits."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import replace

import httpx
import pytest

from openrouter_guard.settings import Settings, Thresholds
from tests.service.apps import FORCED, STATUS, FakeUpstream, ask, running

REPLICAS, CLIENTS, REQUESTS = 4, 64, 30
PERIOD_S, CALL_S, PACE_S = 2.4, 0.2, 0.1
"""A minute, a slow answer of OpenRouter, and the time between two requests of a client: all shortened alike."""


class Slow(FakeUpstream):
    async def _handle(self, request: httpx.Request) -> httpx.Response:
        answer = await super()._handle(request)
        await asyncio.sleep(CALL_S)
        return answer


@pytest.mark.slow
async def test_four_replicas_and_64_clients_make_one_call_a_fresh_period(settings: Settings) -> None:
    upstream, waits_s = Slow(), list[float]()
    hits = 0
    short = replace(settings, thresholds=Thresholds(PERIOD_S, PERIOD_S * 5, PERIOD_S, PERIOD_S / 2))

    async def poll(service: httpx.AsyncClient, url: str) -> None:
        nonlocal hits
        for _ in range(REQUESTS):
            began_at = time.monotonic()
            answer = await ask(service, url)
            hits += answer["cache_hit"]
            waits_s.append(time.monotonic() - began_at)
            await asyncio.sleep(PACE_S)

    async with AsyncExitStack() as stack:
        replicas = [await stack.enter_async_context(running(short, upstream)) for _ in range(REPLICAS)]
        await asyncio.gather(*(ask(service) for service in replicas))
        began_at, cold = time.monotonic(), upstream.calls
        await asyncio.gather(*(poll(replicas[n % REPLICAS], (STATUS, FORCED)[n // 4 % 2]) for n in range(CLIENTS)))
        periods = (time.monotonic() - began_at) / PERIOD_S
    later, requests = upstream.calls - cold, CLIENTS * REQUESTS
    assert cold == 1
    assert later <= periods + 1
    assert later <= 0.05 * requests
    assert requests - hits <= CLIENTS / 2 * later  # who forces waits once for each call, all others never
    assert max(waits_s) < CALL_S + 2.0  # a busy machine takes a while for a turn of all clients
