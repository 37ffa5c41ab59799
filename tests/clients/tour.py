"""Every request that the OpenAPI document describes, in every state that changes its answer."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
import pytest
import redis.asyncio as aioredis

from openrouter_guard.api import create_app
from openrouter_guard.rules.codec import iso
from openrouter_guard.settings import Settings, Tokens
from openrouter_guard.store import Store
from tests.service.apps import READ_TOKEN, WRITE_TOKEN, FakeUpstream, bearer, eventually, fail, running
from tests.service.outages import outage

__all__ = ["JSON", "Answer", "tour"]

PREFIX = "/api/v1/openrouter"
SCOPED = ("status", "metrics", "gate", "badge", "history", "workers", "models", "paused")
JSON = frozenset({"application/json", "application/problem+json"})
AWAY = "redis://127.0.0.1:1/0"
PERMIT = "WyJnby0xIiwiIiwwLDQ1MDM1OTk2MjczNzA0OTZd.x"
"""In the form of one, which nobody holds."""
REPORT = {"worker_id": "go-1", "results": [{"success": False, "status_code": 429, "retry_after_seconds": 1}]}


@dataclass(frozen=True, slots=True)
class Request:
    """One request of an operation."""

    operation: str
    method: str
    path: str
    more: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """What an operation was answered with."""

    operation: str
    status: int
    media_type: str
    content: bytes


def _reading(query: str = "") -> list[Request]:
    return [Request(name, "GET", f"{PREFIX}/{name}{query}") for name in SCOPED]


def _override() -> dict[str, str]:
    return {"kind": "forced_open", "who": "ada", "why": "Drill", "until": iso(time.time() + 3600)}


def _writing(query: str = "", headers: dict[str, str] | None = None) -> list[Request]:
    own = headers or {}
    mark = "&" if query else "?"
    return [
        Request("report", "POST", f"{PREFIX}/reports{query}", {"json": REPORT, "headers": own}),
        Request("take_permit", "POST", f"{PREFIX}/permits{query}", {"json": {"worker_id": "go-1"}, "headers": own}),
        Request("renew_permit", "PUT", f"{PREFIX}/permits/{PERMIT}{query}", {"headers": own}),
        Request("end_permit", "DELETE", f"{PREFIX}/permits/{PERMIT}{query}", {"headers": own}),
        Request("end_permit", "DELETE", f"{PREFIX}/permits/x{query}", {"headers": own}),
        Request("override", "POST", f"{PREFIX}/override{query}", {"json": _override(), "headers": own}),
        Request("end_override", "DELETE", f"{PREFIX}/override{query}{mark}who=ada", {"headers": own}),
    ]


PROCESS = [
    Request("livez", "GET", "/livez"),
    Request("readyz", "GET", "/readyz"),
    Request("prometheus", "GET", "/metrics"),
]
EVENTS = f"{PREFIX}/events"
KNOWN = {"headers": {"If-None-Match": "*"}}
"""Whatever the answer is, the client has it."""


def _refused() -> list[Request]:
    """What is wrong with a body, in each way that is described."""
    writer = bearer(WRITE_TOKEN)
    found = []
    for operation, method, path in (
        ("report", "POST", f"{PREFIX}/reports"),
        ("take_permit", "POST", f"{PREFIX}/permits"),
        ("end_permit", "DELETE", f"{PREFIX}/permits/{PERMIT}"),
        ("override", "POST", f"{PREFIX}/override"),
    ):
        as_json = writer | {"Content-Type": "application/json"}
        found += [
            Request(operation, method, path, {"content": b"\xff\xfe{", "headers": as_json}),
            Request(operation, method, path, {"content": b" " * 1_100_000, "headers": as_json}),
            Request(operation, method, path, {"content": b"a=1", "headers": writer}),
            Request(operation, method, path, {"json": {"scop": "team-a"}, "headers": writer}),
        ]
    return found


async def _asked(service: httpx.AsyncClient, requests: Iterable[Request]) -> AsyncIterator[Answer]:
    for request in requests:
        answer = await service.request(request.method, request.path, **request.more)
        media_type = answer.headers.get("content-type", "").partition(";")[0]
        yield Answer(request.operation, answer.status_code, media_type, answer.content)


async def _trial(settings: Settings, upstream: FakeUpstream, store: Store) -> AsyncIterator[Answer]:
    """A trial call, from its permit to what it came to."""
    own = {"headers": bearer(WRITE_TOKEN)}
    asks = Request("take_permit", "POST", f"{PREFIX}/permits", own | {"json": {"worker_id": "go-1"}})
    soon = replace(settings, policy=replace(settings.policy, reset_timeout_s=0.2))
    async with running(soon, upstream) as service:
        await fail(store, 5)

        async def permitted() -> Answer | None:
            (answer,) = [each async for each in _asked(service, [asks])]
            return answer if answer.status == 201 else None

        answer = await eventually(permitted)
        yield answer
        path = f"{PREFIX}/permits/{json.loads(answer.content)['permit']}"
        renews = Request("renew_permit", "PUT", path, own)
        ends = Request("end_permit", "DELETE", path, own | {"json": {"success": True}})
        async for each in _asked(service, [renews, ends]):
            yield each


@asynccontextmanager
async def _starting(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """The service before it has started."""
    transport = httpx.ASGITransport(app=create_app(settings))
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        yield client


async def tour(
    settings: Settings, store: Store, client: aioredis.Redis, monkeypatch: pytest.MonkeyPatch
) -> list[Answer]:
    """The answers to all of it."""
    upstream = FakeUpstream()
    writer = bearer(WRITE_TOKEN)
    writable = replace(settings, tokens=Tokens(write=WRITE_TOKEN))
    away = replace(writable, redis_url=AWAY)
    well = [*_reading(), *_reading("?scope=nosuch"), *_reading("?scop=x"), *PROCESS]
    well += [Request("events", "GET", f"{EVENTS}?scope=nosuch"), Request("events", "GET", f"{EVENTS}?scop=x")]
    writes = [
        *_writing(headers=writer),
        *_writing("?scope=nosuch", writer),
        *_writing("?scop=x", writer),
        *_writing(),
    ]
    readers_only = replace(settings, tokens=Tokens(read=READ_TOKEN))
    no_streams = replace(settings, thresholds=replace(settings.thresholds, max_streams=0))
    events = Request("events", "GET", EVENTS)
    stages = (
        (running(writable, upstream), [*well, *_refused(), *writes]),
        (outage(writable, upstream, store), [*_reading(), *_writing(headers=writer), *_reading(), *PROCESS]),
        (running(settings, upstream), _writing()),
        (running(readers_only, upstream), [*_reading(), events, PROCESS[-1]]),
        (running(away, upstream), [*_reading(), *_writing(headers=writer), *PROCESS]),
        (running(no_streams, upstream), [events, Request("gate", "GET", f"{PREFIX}/gate?wait=30", KNOWN)]),
        (_starting(settings), PROCESS[1:2]),
    )
    found = []
    for opened, requests in stages:
        await client.flushall()
        async with opened as service:
            found += [answer async for answer in _asked(service, requests)]
    await client.flushall()
    found += [answer async for answer in _trial(writable, upstream, store)]
    monkeypatch.setattr("openrouter_guard.background.STALL_S", -1.0)
    async with running(settings, upstream) as service:
        found += [answer async for answer in _asked(service, PROCESS[:1])]
    return found
