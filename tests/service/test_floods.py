"""A flood of requests costs little and delays no probe: counted in answers, because time depends on the machine."""

from __future__ import annotations

import asyncio
import socket
import threading
from contextlib import ExitStack

import pytest
from starlette.types import Message, Receive, Scope, Send

from openrouter_guard.api import create_app
from openrouter_guard.api.page import render
from openrouter_guard.api.server import Server, configured, listening
from openrouter_guard.settings import Settings
from tests.service.apps import FakeUpstream, eventually
from tests.service.sockets import Listening
from tests.service.sockets import listening as served

pytestmark = pytest.mark.slow

FLOOD = 400
BUNDLE = "/page/swagger/swagger-ui-bundle.js"


class Witness:
    """Notes the paths of an app's answers, in the order in which they begin."""

    def __init__(self, settings: Settings) -> None:
        self.app = create_app(settings, transport=FakeUpstream().transport)
        self.answered: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.answered.append(scope["path"])
            await send(message)

        await self.app(scope, receive, noting)


@pytest.mark.parametrize("path", ["/", "/?scope=unknown", "/metrics", "/docs"])
def test_a_probe_that_comes_last_waits_for_few_of_the_answers_before_it(settings: Settings, path: str) -> None:
    witness = Witness(settings)
    server = Server(configured(witness), on_stop=witness.app.state.scopes.drain)
    with listening("127.0.0.1", 0) as listener, ExitStack() as stack:
        port = listener.getsockname()[1]
        for _ in range(FLOOD):
            asking(stack, port, path)
        probe = asking(stack, port, "/livez")
        # On uvloop, as in production: all of them came before it began to accept.
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            assert probe.recv(65_536).startswith(b"HTTP/1.1 200 ")
        finally:
            server.should_exit = True
            thread.join()
    assert witness.answered.index("/livez") < FLOOD / 4


def asking(stack: ExitStack, port: int, path: str) -> socket.socket:
    client = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60))
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    return client


async def test_a_flood_of_pages_is_rendered_once_for_each_state(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    renders = 0

    def counted(*args: object) -> str:
        nonlocal renders
        renders += 1
        return render(*args)  # type: ignore[arg-type]

    monkeypatch.setattr("openrouter_guard.api.routes.page.render", counted)
    monkeypatch.setattr("openrouter_guard.api.scope.read_cache.KEEP_S", 3600.0)
    async with served(settings, FakeUpstream()) as running:
        before = running.service.version
        answers = await asyncio.gather(*(running.client.get("/") for _ in range(100)))
        assert 1 <= renders <= 1 + running.service.version - before
    assert {answer.status_code for answer in answers} == {200}


async def test_who_does_not_read_a_large_file_holds_a_piece_of_it(settings: Settings) -> None:
    async with served(settings, FakeUpstream()) as running:
        size = len((await running.client.get(BUNDLE)).content)
        before = len(running.server.limits.connections)
        with ExitStack() as stack:
            clients = [asking(stack, running.port, BUNDLE) for _ in range(20)]
            await eventually(lambda: len(running.server.limits.stuck) == len(clients))
            assert len(running.server.limits.connections) == before + len(clients)
            assert unsent_bytes(running) < len(clients) * size / 8


def unsent_bytes(running: Listening) -> int:
    return sum(each.transport.get_write_buffer_size() for each in running.server.limits.stuck)
