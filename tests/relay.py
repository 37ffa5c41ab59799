"""A name in the network that leads to a port: to another one when that is what should happen, or a long way off."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress

__all__ = ["distant", "relaying"]


@contextmanager
def relaying(leads_to: Callable[[], int], tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """Pass each new connection on to the port that *leads_to* says; yields one's own, on every address."""
    ends: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def start(work: Callable[..., None], *args: object) -> None:
        threads.append(threading.Thread(target=work, args=args, daemon=True))
        threads[-1].start()

    def accept(server: socket.socket) -> None:
        with suppress(OSError):
            while True:
                start(relay, server.accept()[0])

    def relay(accepted: socket.socket) -> None:
        ends.append(accepted)
        with suppress(OSError):
            near = tls.wrap_socket(accepted, server_side=True) if tls else accepted
            far = socket.create_connection(("127.0.0.1", leads_to()))
            ends.extend((near, far))
            start(_copy, far, near)
            _copy(near, far)
        accepted.close()

    with ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("0.0.0.0", 0)))
        start(accept, server)
        yield int(server.getsockname()[1])
        # What blocks in it wakes up.
        for end in (server, *ends):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(5)
        for end in ends:
            end.close()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)


@contextmanager
def distant(port: int, round_trip_s: float) -> Iterator[int]:
    """A port that leads to *port* on this machine, as if it was so far away."""
    loop = asyncio.new_event_loop()
    joined: set[asyncio.Task[None]] = set()

    async def join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer.transport):
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
            with closing(far_writer.transport):
                # The kernel has accepted at once: what is sent first waits for as long as that should have taken.
                there = _carry(reader, far_writer, round_trip_s / 2, first_s=round_trip_s * 3 / 2)
                await asyncio.gather(there, _carry(far_reader, writer, round_trip_s / 2))

    def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        joined.add(asyncio.ensure_future(join(reader, writer)))

    async def end(server: asyncio.Server) -> None:
        server.close()
        for task in joined:
            task.cancel()
        await asyncio.gather(*joined, return_exceptions=True)
        # The transports close in the loop's next round.
        await asyncio.sleep(0.01)

    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    server = asyncio.run_coroutine_threadsafe(asyncio.start_server(accepted, "127.0.0.1", 0), loop).result(5)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        asyncio.run_coroutine_threadsafe(end(server), loop).result(5)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)
        loop.close()


async def _carry(
    source: asyncio.StreamReader, target: asyncio.StreamWriter, takes_s: float, first_s: float | None = None
) -> None:
    """Each piece arrives *takes_s* after it was sent, and holds up none that is sent meanwhile."""
    under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    async def arrive() -> None:
        while True:
            due_s, data = await under_way.get()
            await asyncio.sleep(due_s - loop.time())
            if not data:
                break
            target.write(data)
        target.close()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(arrive())
        earliest_s, data = loop.time() + (first_s or 0.0), b"."
        while data:
            try:
                data = await source.read(65536)
            except OSError:
                data = b""
            under_way.put_nowait((max(loop.time() + takes_s, earliest_s), data))
