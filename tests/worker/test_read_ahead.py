"""The body of an error is inspected before its answer is returned, and a slow body delays nobody."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import httpx
import pytest

from openrouter_guard import AsyncGuard, Guard
from openrouter_guard.httpx import AsyncGuardedTransport, GuardedTransport
from openrouter_guard.worker.http.read_ahead import LOOK_S, Ahead
from tests.waiting import until
from tests.worker.guards import settings

pytestmark = pytest.mark.slow

HEAD = b"HTTP/1.1 %d No\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%s\r\n"
BUSY = b'{"error": {"code": 429, "message": "busy", "metadata": {"provider_name": "Acme"}}}'
QUESTION = {"model": "acme/model", "messages": [{"role": "user", "content": "Hi"}]}
SOON_S = 4 * LOOK_S
"""A busy machine takes longer than the time that is documented; the bodies here take much longer still."""
SLOWLY_S = 30.0


class Slow:
    """An upstream whose body comes byte by byte, or stops in the middle."""

    def __init__(self) -> None:
        self.status_code, self.headers, self.body, self.between_s = 503, b"", BUSY, 0.0
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []

    @contextmanager
    def serving(self) -> Iterator[str]:
        with socket.create_server(("127.0.0.1", 0)) as server:
            self._start(self._serve, server)
            yield f"http://127.0.0.1:{server.getsockname()[1]}/api/v1/chat/completions"
            self._ended.set()
            with suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
            for thread in self._threads:
                thread.join(10)

    def _start(self, serve: Callable[[socket.socket], None], on: socket.socket) -> None:
        self._threads.append(threading.Thread(target=serve, args=(on,), daemon=True))
        self._threads[-1].start()

    def _serve(self, server: socket.socket) -> None:
        with suppress(OSError):
            while not self._ended.is_set():
                accepted, _ = server.accept()
                self._start(self._answer, accepted)

    def _answer(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            _read_request(client)
            client.sendall(HEAD % (self.status_code, len(self.body), self.headers))
            for position in range(len(self.body)):
                if self._ended.wait(self.between_s):
                    return
                client.sendall(self.body[position : position + 1])


def _read_request(client: socket.socket) -> None:
    """All of it: a connection that is closed with something unread is reset."""
    with client.makefile("rb") as request:
        length = 0
        while line := request.readline().strip():
            name, _, value = line.lower().partition(b":")
            length = int(value) if name == b"content-length" else length
        request.read(length)


@pytest.fixture
def upstream() -> Slow:
    return Slow()


@pytest.fixture
def url(upstream: Slow) -> Iterator[str]:
    with upstream.serving() as url:
        yield url


def counts(guard: Guard | AsyncGuard) -> int:
    return guard.state.failures


class TestSync:
    @pytest.fixture
    def client(self, guard: Guard) -> Iterator[httpx.Client]:
        with httpx.Client(transport=GuardedTransport(guard), timeout=20) as client:
            yield client

    def test_a_body_that_trickles_holds_back_neither_the_answer_nor_the_count(
        self, upstream: Slow, url: str, client: httpx.Client, guard: Guard
    ) -> None:
        upstream.between_s = SLOWLY_S / len(BUSY)
        began_at = time.monotonic()
        with client.stream("POST", url, json=QUESTION) as response:
            assert response.status_code == 503
            assert time.monotonic() - began_at < SOON_S
            until(lambda: counts(guard) == 1)
        assert time.monotonic() - began_at < 3 * SOON_S

    def test_nothing_of_it_is_lost(self, upstream: Slow, url: str, client: httpx.Client) -> None:
        upstream.between_s = 2.5 * LOOK_S / len(BUSY)
        with client.stream("POST", url, json=QUESTION) as response:
            assert response.read() == BUSY

    def test_what_comes_in_time_is_counted(
        self, upstream: Slow, url: str, client: httpx.Client, guard: Guard
    ) -> None:
        upstream.status_code, upstream.between_s = 429, 0.1 * LOOK_S / len(BUSY)
        upstream.headers = b"Retry-After: 60\r\n"
        with client.stream("POST", url, json=QUESTION):
            guard.flush()
        # The provider's limit, and not the account's: its name came in the body.
        assert (counts(guard), guard.state.retry_after_s) == (0, 0)

    def test_one_that_stops_can_be_closed_at_once(
        self, upstream: Slow, url: str, client: httpx.Client, guard: Guard
    ) -> None:
        upstream.between_s = 10 * SLOWLY_S
        with client.stream("POST", url, json=QUESTION, timeout=10 * SLOWLY_S):
            began_at = time.monotonic()
        assert time.monotonic() - began_at < SOON_S
        until(lambda: counts(guard) == 1)
        until(lambda: not [each for each in threading.enumerate() if each.name == "openrouter-guard-ahead"])

    def test_a_reader_that_gives_up_gets_its_own_timeout(self, upstream: Slow, url: str, guard: Guard) -> None:
        upstream.between_s = SLOWLY_S
        patience = httpx.Timeout(20, read=1.5 * LOOK_S)
        with httpx.Client(transport=GuardedTransport(guard), timeout=patience) as client:  # noqa: SIM117
            with client.stream("POST", url, json=QUESTION) as response, pytest.raises(httpx.ReadTimeout):
                response.read()
        until(lambda: counts(guard) == 1)

    def test_without_threads_the_status_counts(
        self, url: str, client: httpx.Client, guard: Guard, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        start = threading.Thread.start

        def none_left(thread: threading.Thread) -> None:
            if thread.name == "openrouter-guard-ahead":
                raise RuntimeError("can't start new thread")
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", none_left)
        response = client.post(url, json=QUESTION)
        assert (response.status_code, response.content) == (503, BUSY)
        until(lambda: counts(guard) == 1)


async def test_async_the_same(upstream: Slow, url: str, redis_url: str) -> None:
    upstream.between_s = 2.5 * LOOK_S / len(BUSY)
    async with (
        AsyncGuard(settings(redis_url)) as guard,
        httpx.AsyncClient(transport=AsyncGuardedTransport(guard), timeout=20) as client,
    ):
        began_at = time.monotonic()
        async with client.stream("POST", url, json=QUESTION) as response:
            assert time.monotonic() - began_at < SOON_S
            await guard.flush()
            assert counts(guard) == 1
            assert await response.aread() == BUSY


@pytest.mark.parametrize("leave", ["close", "cancel"])
async def test_async_one_that_stops_can_be_left(upstream: Slow, url: str, redis_url: str, leave: str) -> None:
    upstream.between_s = SLOWLY_S
    async with (
        AsyncGuard(settings(redis_url)) as guard,
        httpx.AsyncClient(transport=AsyncGuardedTransport(guard), timeout=20) as client,
    ):
        began_at = time.monotonic()
        with suppress(TimeoutError):
            async with asyncio.timeout(2 * LOOK_S), client.stream("POST", url, json=QUESTION) as response:
                if leave == "cancel":
                    await response.aread()
        assert time.monotonic() - began_at < SOON_S
        await guard.flush()
        assert counts(guard) == 1
    assert len(asyncio.all_tasks()) == 1


class Broken(Exception):
    """What reading raises."""


def pieces(*given: bytes | Exception) -> Iterator[bytes]:
    for piece in given:
        if isinstance(piece, Exception):
            raise piece
        yield piece


@pytest.mark.parametrize(
    ("given", "most_bytes", "ahead", "left"),
    [
        ((b"a", b"b"), 10, [b"a", b"b"], []),
        ((b"a", b"b", b"c"), 2, [b"a", b"b"], [b"c"]),
        ((), 2, [], []),
    ],
)
def test_all_pieces_come_once_and_in_their_order(
    given: tuple[bytes, ...], most_bytes: int, ahead: list[bytes], left: list[bytes]
) -> None:
    stream = pieces(*given)
    reader = Ahead(stream, most_bytes)
    assert list(reader.within(10)) == ahead
    assert [*reader.rest(), *stream] == left


def test_what_reading_raises_comes_out_once() -> None:
    reader = Ahead(pieces(b"a", Broken()), 10)
    found: list[Any] = []
    with pytest.raises(Broken):
        found.extend(reader.within(10))
    assert list(reader.rest()) == []


def test_it_comes_out_later_where_it_is_raised_later() -> None:
    may_go_on = threading.Event()

    def slow() -> Iterator[bytes]:
        yield b"a"
        may_go_on.wait(10)
        yield b"b"
        raise Broken

    reader = Ahead(slow(), 10)
    assert list(reader.within(0.2)) == [b"a"]
    may_go_on.set()
    rest = reader.rest()
    # The read that was under way is the last one made ahead.
    assert next(rest) == b"b"
    assert list(rest) == []
