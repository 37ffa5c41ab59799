"""Any text from a request reaches Redis in legible form and without secrets."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
import redis.asyncio as aioredis

from openrouter_guard.rules.breaker import Policy
from openrouter_guard.rules.codec import iso
from openrouter_guard.settings import Settings
from openrouter_guard.store import Store
from openrouter_guard.tokens import Tokens
from tests.service.apps import STATE, WRITE_TOKEN, FakeUpstream, bearer, running
from tests.service.test_permits import half_open

PREFIX = "/api/v1/openrouter"
SECRET = "sk-or-v1-Q7wE4rT9yU2iO5pA8sD3"
TURNED = "\u202e"
"""Turns the direction of text."""
ODD = f"x{TURNED}{SECRET}"
# What the upstream said is kept as it said it, but for secrets.
SAID = f"x {SECRET}"
ERROR = {"message": SAID, "type": ODD, "metadata": {"provider_name": ODD, "raw": SAID}}
FAILURES = (
    {"status_code": 503, "message": SAID, "model": ODD},
    {"status_code": 503, "error": ERROR, "model": ODD},
    {"status_code": 401, "error": ERROR, "headers": {"x-request-id": ODD, "date": ODD}},
    {"error_type": ODD, "message": SAID},
)
# A name of a worker that has more than letters in it is refused.
NAMED = {"worker_id": f"go-{SECRET}", "version": ODD}


@pytest.fixture
async def service(settings: Settings, upstream: FakeUpstream) -> AsyncIterator[httpx.AsyncClient]:
    policy = Policy(reset_timeout_s=0.2, max_reset_timeout_s=0.4, ramp_s=0.5)
    async with running(replace(settings, tokens=Tokens(write=WRITE_TOKEN), policy=policy), upstream) as service:
        service.headers.update(bearer(WRITE_TOKEN))
        yield service


async def asked(service: httpx.AsyncClient, method: str, path: str, body: Any = None, **more: Any) -> Any:
    answer = await service.request(method, f"{PREFIX}/{path}", json=body, **more)
    assert answer.is_success, answer.text
    return answer.json()


async def everything(client: aioredis.Redis) -> str:
    """All that Redis holds, as text."""
    found: dict[Any, Any] = {}
    for key in await client.keys():
        match await client.type(key):
            case "hash":
                found[key] = await client.hgetall(key)
            case "list":
                found[key] = await client.lrange(key, 0, -1)
            case "stream":
                found[key] = await client.xrange(key)
            case _:
                found[key] = await client.get(key)
    # Some of it is JSON already, whose escapes are undone here.
    return json.dumps(found, ensure_ascii=False).replace("\\\\", "\\").encode().decode()


async def is_clean(client: aioredis.Redis) -> bool:
    kept = await everything(client)
    return SECRET not in kept and TURNED not in kept and "\\u202e" not in kept


async def test_of_reports_and_permits(service: httpx.AsyncClient, store: Store, client: aioredis.Redis) -> None:
    results = [{"success": False, **each} for each in FAILURES]
    await asked(service, "POST", "reports", {**NAMED, "results": results})
    assert "go-[key]" in await everything(client)
    await half_open(service, store)
    permit = (await asked(service, "POST", "permits", {"worker_id": NAMED["worker_id"], "model": ODD}))["permit"]
    assert "go-[key]/p" in (await client.hget(STATE, "permits") or "")
    assert SECRET not in base64.urlsafe_b64decode(permit.partition(".")[0] + "==").decode()
    assert await is_clean(client)
    assert (await asked(service, "PUT", f"permits/{permit}"))["lease_seconds"] == 15
    ended = await asked(service, "DELETE", f"permits/{permit}", results[0])
    assert ended["verdict"] == "settled"
    assert await is_clean(client)


async def test_of_people(service: httpx.AsyncClient, client: aioredis.Redis) -> None:
    body = {"kind": "forced_open", "who": ODD, "why": ODD, "until": iso(time.time() + 600)}
    told = (await asked(service, "POST", "override", body))["circuit_breaker"]["override"]
    assert (told["who"], told["why"]) == ("x [key]", "x [key]")
    await asked(service, "DELETE", "override", params={"who": ODD})
    assert await is_clean(client)


@pytest.mark.parametrize("words", [TURNED, f" {TURNED}"])
async def test_words_that_nobody_can_see_are_none(service: httpx.AsyncClient, words: str) -> None:
    body = {"kind": "forced_open", "who": "ada", "why": words, "until": iso(time.time() + 600)}
    assert (await service.post(f"{PREFIX}/override", json=body)).status_code == 422


@pytest.mark.parametrize(
    "told",
    [
        ["go 1", "", 1, 1],
        [f"go-{SECRET}", "", 1, 1],
        ["w" * 101, "", 1, 1],
        ["", "", 1, 1],
        [1, "", 1, 1],
        ["go-1", "", -1, 1],
        ["go-1", "", 2**60, 1],
    ],
)
async def test_an_id_that_somebody_made_up_is_of_no_permit(service: httpx.AsyncClient, told: list[Any]) -> None:
    made_up = base64.urlsafe_b64encode(json.dumps(told).encode()).decode().rstrip("=")
    for method, body in (("PUT", None), ("DELETE", None), ("DELETE", {"success": True})):
        answer = await service.request(method, f"{PREFIX}/permits/{made_up}.x", json=body)
        assert answer.status_code == 410
