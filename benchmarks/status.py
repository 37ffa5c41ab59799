"""The cost of the cached status: requests per second and latency on one core, beside alternatives.

A constant
    A FastAPI route that returns the same bytes: what any route costs.
Bare ASGI
    An app that is one function and sends them: what the server costs.
The existing scheme
    Two reads from Redis and a validated model for each request.
cashews
    A route whose answer a caching library keeps in memory.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from typing import Any, TypeAlias

import redis
from fastapi import FastAPI, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from openrouter_guard import Settings
from openrouter_guard.api import create_app
from openrouter_guard.api.schemas.status import STATUS_EXAMPLES, StatusAnswer
from openrouter_guard.keys import Keys
from openrouter_guard.rules.signals import OpenRouterState
from openrouter_guard.testing import SimulatedOpenRouter, running

from .existing_status import PATH, existing_app
from .forms import peer
from .load import Answers, closed_loop, request
from .measuring import Effort, Row
from .serving import Served, clients_apart, serving
from .valkey import embedded_valkey

__all__ = ["run"]

CONNECTIONS = (16, 128)
OURS = "ours"
_BODY = StatusAnswer.model_validate(STATUS_EXAMPLES[0]).model_dump_json().encode()
_KEY = "sk-or-v1-bench"

Samples: TypeAlias = Mapping[str, Sequence[Answers]]


def run(effort: Effort) -> Iterator[Row]:
    with embedded_valkey() as url, running(SimulatedOpenRouter()) as base_url, ExitStack() as stack:
        _work_of_a_day(url)
        servers = {name: stack.enter_context(serving(*app))[0] for name, app in _apps(url, base_url).items()}
        stack.enter_context(clients_apart())
        for connections in CONNECTIONS:
            yield from _rows(connections, _samples(servers, connections, effort))


def _work_of_a_day(url: str) -> None:
    """Counters as workers leave them: the existing scheme reads them all each time."""
    counters: dict[Any, Any] = {f"state_{state.value}": 1200 for state in OpenRouterState}
    with closing(redis.Redis.from_url(url)) as client:
        client.hset(Keys().metrics(time.time()), mapping=counters | {"total_calls": 9000, "successful_calls": 8000})


def _apps(url: str, base_url: str) -> dict[str, tuple[Any, ...]]:
    peer("cashews")
    return {
        OURS: (create_app, Settings(url, api_key=_KEY, base_url=base_url)),
        "a constant": (_constant,),
        "bare ASGI": (_bare,),
        "the existing scheme": (existing_app, url, base_url),
        "cashews": (_cashews,),
    }


def _samples(servers: Mapping[str, Served], connections: int, effort: Effort) -> Samples:
    """So many of each, taken in turns, so that a busy moment of the machine meets all of them."""
    found: dict[str, list[Answers]] = {name: [] for name in servers}
    for turn in range(-1, effort.serving_samples):
        for name in list(servers)[:: -1 if turn % 2 else 1]:
            before_s = servers[name].cpu_s
            load = closed_loop([servers[name].port], [request(PATH)], connections, effort.serving_s)
            answers = asyncio.run(load)
            answers.cpu_s = servers[name].cpu_s - before_s
            if turn >= 0:  # the first only warms up
                found[name].append(answers)
    return found


def _rows(connections: int, samples: Samples) -> Iterator[Row]:
    ours = samples[OURS]
    yield Row(f"{connections} connections: bad answers", sum(each.bad for each in ours), "of all")
    for name, theirs in samples.items():
        if name == OURS:
            continue
        where = f"{connections} connections, beside {name}"
        yield Row(f"{where}: requests", _per_s(ours), "per s", _per_s(theirs))
        # The same without what else the machine does; what Redis does for the existing scheme is not in it.
        yield Row(f"{where}: requests", _per_cpu_s(ours), "per s of the core", _per_cpu_s(theirs))
        for percent in (50, 99):
            yield Row(f"{where}: p{percent}", _ms(ours, percent), "ms", _ms(theirs, percent))


def _per_s(samples: Sequence[Answers]) -> float:
    return statistics.median(each.per_s for each in samples)


def _per_cpu_s(samples: Sequence[Answers]) -> float:
    return statistics.median(each.per_cpu_s for each in samples)


def _ms(samples: Sequence[Answers], percent: float) -> float:
    return statistics.median(each.ms(percent) for each in samples)


def _constant() -> FastAPI:
    app = FastAPI()

    @app.get(PATH)
    async def status() -> Response:
        return Response(_BODY, media_type="application/json")

    return app


def _bare() -> ASGIApp:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(_BODY)).encode())]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": [*headers]})
            await send({"type": "http.response.body", "body": _BODY})

    return app


def _cashews() -> FastAPI:
    cache = peer("cashews").Cache()
    cache.setup("mem://")
    app = FastAPI()

    @app.get(PATH, response_model=StatusAnswer)
    @cache(ttl="60s")  # type: ignore[untyped-decorator]
    async def status() -> StatusAnswer:
        return StatusAnswer.model_validate(STATUS_EXAMPLES[0])

    return app
