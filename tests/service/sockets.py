"""The health service on a real socket, in the test's own loop: for streams, and for its shutdown."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from openrouter_guard.api import create_app
from openrouter_guard.api.scope.service import Service
from openrouter_guard.api.server import Server, configured
from openrouter_guard.api.server import listening as bound
from openrouter_guard.settings import Settings
from tests.service.apps import FakeUpstream, eventually

__all__ = ["EVENTS", "Event", "Listening", "listening", "watching"]

EVENTS = "/api/v1/openrouter/events"


@dataclass(frozen=True, slots=True)
class Listening:
    """A running server.

    Attributes:
        client: Asks it.
        server: Ends at its ``should_exit``.
        task: Is done once it has ended.
        service: What is behind it.
    """

    client: httpx.AsyncClient
    server: Server
    task: asyncio.Task[None]
    service: Service
    port: int


@dataclass(frozen=True, slots=True)
class Event:
    """One server-sent event."""

    name: str
    id: str
    data: dict[str, Any]


@asynccontextmanager
async def listening(settings: Settings, upstream: FakeUpstream) -> AsyncIterator[Listening]:
    app = create_app(settings, transport=upstream.transport)
    server = Server(configured(app), on_stop=app.state.service.drain)
    with bound("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        task = asyncio.create_task(server.serve(sockets=[listener]))
        await eventually(lambda: server.started or task.done())
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=10) as client:
            try:
                yield Listening(client, server, task, app.state.service, port)
            finally:
                server.should_exit = True
                await task


@asynccontextmanager
async def watching(
    client: httpx.AsyncClient, url: str = EVENTS, **headers: str
) -> AsyncIterator[AsyncIterator[Event]]:
    """The events of a stream, as they come; the iterator ends with the stream."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with client.stream("GET", url, headers=named) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield _events(answer)


async def _events(answer: httpx.Response) -> AsyncIterator[Event]:
    fields: dict[str, str] = {}
    async for line in answer.aiter_lines():
        name, _, value = line.partition(": ")
        if line:
            fields[name] = value
            continue
        if "data" in fields:
            yield Event(fields["event"], fields["id"], json.loads(fields["data"]))
        fields = {}
