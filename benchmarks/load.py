"""HTTP clients that do as little as possible, so that the measurement is of the server."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from .measuring import percentile

__all__ = ["Answers", "burst", "closed_loop", "request"]

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_END = b"\r\n\r\n"
_OK = b"HTTP/1.1 200 "


@dataclass(slots=True)
class Answers:
    """What came back: how long each answer took, and how many were not good.

    Attributes:
        cpu_s: What the server's core spent on it, where that was measured.
    """

    lasted_s: float = 0.0
    cpu_s: float = 0.0
    times_s: list[float] = field(default_factory=list)
    bad: int = 0

    @property
    def per_s(self) -> float:
        return len(self.times_s) / self.lasted_s

    @property
    def per_cpu_s(self) -> float:
        return len(self.times_s) / self.cpu_s

    def ms(self, percent: float) -> float:
        return 1000 * percentile(self.times_s, percent)


def request(path: str, *headers: str) -> bytes:
    """A GET as probes send it."""
    lines = (f"GET {path} HTTP/1.1", "Host: service", "Accept: */*", "User-Agent: bench", *headers, "", "")
    return "\r\n".join(lines).encode()


async def closed_loop(
    ports: Sequence[int], asks: Sequence[bytes], connections: int, seconds: float, pace_s: float = 0.0
) -> Answers:
    """So many connections, each asking again ``pace_s`` after it was answered; ports and asks are dealt out in turns.

    Raises:
        ConnectionError: If a server closes a connection.
    """
    found, loop = Answers(), asyncio.get_running_loop()
    until = loop.time() + seconds
    clients = [_Client(asks[number % len(asks)], found, until, pace_s) for number in range(connections)]
    began_at = time.perf_counter()
    for number, client in enumerate(clients):
        await loop.create_connection(lambda client=client: client, "127.0.0.1", ports[number % len(ports)])  # type: ignore[misc]
    await asyncio.gather(*(client.ended for client in clients))
    found.lasted_s = time.perf_counter() - began_at
    return found


async def burst(ports: Sequence[int], asks: Sequence[bytes], requests: int) -> Answers:
    """So many requests at once, each on a connection of its own."""
    return await closed_loop(ports, asks, requests, seconds=0.0)


class _Client(asyncio.Protocol):
    """One connection with one request at a time."""

    def __init__(self, ask: bytes, found: Answers, until: float, pace_s: float) -> None:
        self._ask = ask
        self._found = found
        self._until = until
        self._pace_s = pace_s
        self._received = b""
        self._loop = asyncio.get_running_loop()
        self.ended = self._loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._ask_now()

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not _is_whole(self._received):
            return
        self._found.times_s.append(time.perf_counter() - self._began_at)
        self._found.bad += not self._received.startswith(_OK)
        self._received = b""
        if self._pace_s:
            self._loop.call_later(self._pace_s, self._send)
        else:
            self._send()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_exception(error or ConnectionError("the server closed a connection"))

    def _send(self) -> None:
        if self._loop.time() > self._until:
            self.ended.set_result(None)
            self._transport.close()
        else:
            self._ask_now()

    def _ask_now(self) -> None:
        self._began_at = time.perf_counter()
        self._transport.write(self._ask)


def _is_whole(received: bytes) -> bool:
    head = received.find(_END)
    if head < 0:
        return False
    length = _LENGTH.search(received, 0, head + 2)
    return length is not None and len(received) - head - len(_END) >= int(length[1])
