"""Limits of one connection: sizes, times, number of requests, and the number of connections."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from weakref import ReferenceType, ref

import pytest

from openrouter_guard.api.http import connection
from openrouter_guard.api.http.connection import (
    BODY_MAX_BYTES,
    HEAD_MAX_BYTES,
    HEAD_S,
    HEADERS_MAX,
    LINGER_S,
    REQUEST_S,
    STOPPING_S,
    Connection,
)
from openrouter_guard.api.http.connection_limits import HELD_MAX_BYTES, ConnectionLimits
from openrouter_guard.settings import Settings, Tokens
from tests.service.apps import STATUS, WRITE_TOKEN, FakeUpstream, eventually
from tests.service.sockets import Listening, listening

pytestmark = pytest.mark.slow

HEAD = f"GET {STATUS} HTTP/1.1\r\nHost: x\r\n"
REPORTS = "POST /api/v1/openrouter/reports HTTP/1.1\r\nHost: x\r\n"
TO_WRITE = f"{REPORTS}Authorization: Bearer {WRITE_TOKEN}\r\nContent-Type: application/json\r\n"
REPORT = json.dumps({"worker_id": "w", "results": [{"success": True}]})


@dataclass(frozen=True, slots=True)
class Wire:
    """A connection as a client sees it."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, text: str | bytes) -> None:
        self.writer.write(text.encode() if isinstance(text, str) else text)
        with suppress(ConnectionError):
            await self.writer.drain()

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        head = (await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 10)).decode()
        first, *lines = head.strip().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        return int(first.split()[1]), headers, await self.reader.readexactly(int(headers["content-length"]))

    async def status(self) -> int:
        return (await self.answer())[0]

    async def rest(self) -> bytes:
        """Everything up to the end of the connection; nothing where it was torn down."""
        with suppress(ConnectionError):
            return await asyncio.wait_for(self.reader.read(), 10)
        return b""


@pytest.fixture
async def served(settings: Settings, upstream: FakeUpstream) -> AsyncIterator[Listening]:
    async with listening(replace(settings, tokens=Tokens(write=WRITE_TOKEN)), upstream) as served:
        yield served


@asynccontextmanager
async def wire(served: Listening) -> AsyncIterator[Wire]:
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    try:
        yield Wire(reader, writer)
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


def header_of(size: int) -> str:
    """A header that makes the head so large."""
    start = len(HEAD) + len("X-Large: \r\n\r\n")
    return f"X-Large: {'a' * (size - start)}\r\n\r\n"


async def later(served: Listening, seconds: float) -> None:
    """What happens when so much time has passed."""
    served.server.limits.look(asyncio.get_running_loop().time() + seconds)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[ReferenceType[Connection]]:
    """The connections that are made from now on."""
    found: list[ReferenceType[Connection]] = []
    real = Connection.connection_made

    def noted(each: Connection, transport: asyncio.Transport) -> None:
        found.append(ref(each))
        real(each, transport)

    monkeypatch.setattr(Connection, "connection_made", noted)
    return found


def are_heard(made: list[ReferenceType[Connection]], count: int, *, says_something: bool) -> bool:
    """Whether so many were made, and something came on the last, if only what it was refused for."""
    each = made[-1]() if len(made) == count else None
    return each is not None and (not says_something or bool(each._stage or each.cycle or each._is_refused))


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param("", id="nothing"),
        pytest.param(HEAD, id="half a head"),
        pytest.param(f"{HEAD}\r\n", id="a request"),
        pytest.param(f"{HEAD}\r\n" * 50, id="many at once"),
        pytest.param(f"{TO_WRITE}Content-Length: {len(REPORT)}\r\n\r\n{REPORT}", id="a body"),
        pytest.param(f"{TO_WRITE}Content-Length: 900\r\n\r\n{{", id="half a body"),
        pytest.param("GET /api/v1/openrouter/events HTTP/1.1\r\nHost: x\r\n\r\n", id="a stream"),
        pytest.param("\0" * 100, id="no HTTP"),
    ],
)
async def test_nothing_is_left_of_a_connection_that_is_gone(
    served: Listening, made: list[ReferenceType[Connection]], sent: str
) -> None:
    # A thousand of them would be kept until the next full collection of garbage, which may be long in coming.
    gc.disable()
    try:
        for count in range(1, 11):
            async with wire(served) as client:
                await client.send(sent)
                await eventually(partial(are_heard, made, count, says_something=bool(sent)))
        # One that an exception has been through may well wait for the collector.
        await eventually(lambda: sum(each() is not None for each in made) <= 2)
    finally:
        gc.enable()


async def test_a_body_reaches_every_route_that_takes_one(served: Listening) -> None:
    document = (await served.client.get("/openapi.json")).json()
    methods = {
        method.upper()
        for path in document["paths"].values()
        for method, operation in path.items()
        if "requestBody" in operation
    }
    assert methods == {"POST", "DELETE"}
    assert methods <= connection._WITH_BODY


# -- the size of a request ----------------------------------------------------------------------------------------


async def test_a_head_may_have_64_kib(served: Listening) -> None:
    async with wire(served) as client:
        await client.send(HEAD + header_of(HEAD_MAX_BYTES))
        assert await client.status() == 200


@pytest.mark.parametrize("pieces", [1, 70_000])
async def test_a_larger_head_is_431_however_it_comes(served: Listening, pieces: int) -> None:
    async with wire(served) as client:
        request = (HEAD + header_of(HEAD_MAX_BYTES + 1)).encode()
        step = len(request) // pieces + 1
        for at in range(0, len(request), step):
            await client.send(request[at : at + step])
        status, headers, body = await client.answer()
        assert (status, headers["content-type"], headers["connection"]) == (431, "application/problem+json", "close")
        assert headers["x-content-type-options"] == "nosniff"
        assert json.loads(body)["title"] == "Request Header Fields Too Large"
        assert await client.rest() == b""


@pytest.mark.parametrize(("count", "expected"), [(HEADERS_MAX, 200), (HEADERS_MAX + 1, 431)])
async def test_how_many_headers_there_may_be(served: Listening, count: int, expected: int) -> None:
    async with wire(served) as client:
        await client.send(HEAD + "X: a\r\n" * (count - 1) + "\r\n")
        assert await client.status() == expected


async def test_a_body_that_never_ends_is_413(served: Listening) -> None:
    async with wire(served) as client:
        await client.send(f"{TO_WRITE}Content-Length: {10 * BODY_MAX_BYTES}\r\n\r\n")
        for _ in range(BODY_MAX_BYTES // 65_536 + 1):
            await client.send(b" " * 65_536)
        assert await client.status() == 413


async def test_bodies_that_are_read_and_never_end_have_a_bound_together(served: Listening) -> None:
    # Also of those who may write: what a route has taken of a body is kept until the body is whole.
    large = f"{TO_WRITE}Content-Length: 1000000\r\n\r\n[".encode() + b" " * 900_000
    limits = served.server.limits
    async with AsyncExitStack() as stack:
        writers = [await stack.enter_async_context(wire(served)) for _ in range(20)]
        for each in writers:
            await each.send(large)
        await eventually(lambda: len(limits.waiting) <= HELD_MAX_BYTES // 900_000 + 1)
        assert 900_000 < limits.held_bytes <= HELD_MAX_BYTES
        async with wire(served) as client:
            await client.send(f"{TO_WRITE}Content-Length: {len(REPORT)}\r\n\r\n{REPORT}")
            assert await client.status() == 200
    await eventually(lambda: limits.held_bytes == 0)


async def test_what_is_no_http_is_400_with_the_problem_said(served: Listening) -> None:
    async with wire(served) as client:
        await client.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
        status, _, body = await client.answer()
        assert (status, json.loads(body)["status"]) == (400, 400)


# -- its time -----------------------------------------------------------------------------------------------------


async def test_a_head_has_ten_seconds(served: Listening) -> None:
    async with wire(served) as client:
        await client.send(HEAD)
        await eventually(lambda: any(each.held_bytes for each in served.server.limits.waiting))
        await later(served, HEAD_S - 1)
        await client.send("X-a: b\r\n\r\n")
        assert await client.status() == 200
        await client.send(HEAD)
        await eventually(lambda: any(each.held_bytes for each in served.server.limits.waiting))
        await later(served, HEAD_S + 1)
        assert await client.status() == 408
        assert await client.rest() == b""


async def test_a_body_has_thirty(served: Listening) -> None:
    async with wire(served) as client:
        await client.send(f"{TO_WRITE}Content-Length: 1000\r\n\r\n{{")
        await eventually(lambda: served.server.server_state.tasks)
        await later(served, REQUEST_S - 1)
        assert served.server.server_state.tasks
        await later(served, REQUEST_S + 1)
        assert await client.status() == 408
        assert await client.rest() == b""
        await eventually(lambda: not served.server.server_state.tasks)


async def test_a_connection_without_a_request_has_ten_seconds(served: Listening) -> None:
    async with wire(served) as client:
        await eventually(lambda: served.server.limits.waiting)
        await client.send("\r\n\r\n")  # empty lines are none
        await later(served, HEAD_S + 1)
        assert await client.rest() == b""


async def test_a_client_that_takes_no_answer_is_cut_off(served: Listening) -> None:
    async with wire(served) as client:
        for _ in range(100):
            client.writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 20)
        await eventually(lambda: served.server.limits.stuck)
        await later(served, connection.STUCK_S + 1)
        await eventually(lambda: not served.server.server_state.connections)


async def test_who_was_refused_and_stays_is_cut_off(served: Listening) -> None:
    async with wire(served) as client:
        await client.send(HEAD + "X: a\r\n" * 200 + "\r\n")
        assert await client.status() == 431
        await later(served, LINGER_S + 1)
        await eventually(lambda: not served.server.server_state.connections)


# -- requests one after the other -----------------------------------------------------------------------------------


async def test_many_requests_at_once_are_answered_in_their_order(served: Listening) -> None:
    paths = [STATUS, "/livez", "/nothing-here", "/readyz"] * 25
    async with wire(served) as client:
        await client.send("".join(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n" for path in paths))
        found = [await client.status() for _ in paths]
    assert found == [200, 200, 404, 200] * 25


async def test_at_one_byte_at_a_time_they_are_the_same(served: Listening) -> None:
    async with wire(served) as client:
        for byte in (HEAD + "\r\n").encode() * 2:
            await client.send(bytes([byte]))
        assert [await client.status() for _ in range(2)] == [200, 200]


@pytest.mark.parametrize("coding", ["length", "chunks"])
async def test_a_body_and_the_request_behind_it(served: Listening, coding: str) -> None:
    if coding == "length":
        body = f"Content-Length: {len(REPORT)}\r\n\r\n{REPORT}"
    else:
        chunks = "".join(f"{len(part):x}\r\n{part}\r\n" for part in (REPORT[:7], REPORT[7:]))
        body = f"Transfer-Encoding: chunked\r\n\r\n{chunks}0\r\nAuthorization: Bearer nonsense\r\n\r\n"
    async with wire(served) as client:
        await client.send(f"{TO_WRITE}{body}{HEAD}\r\n")
        _, _, answer = await client.answer()
        assert json.loads(answer)["results"] == 1
        assert await client.status() == 200


async def test_requests_hidden_behind_a_body_are_too_many(served: Listening) -> None:
    async with wire(served) as client:
        await client.send(f"{REPORTS}Content-Length: 1\r\n\r\na" + f"{HEAD}\r\n" * 100)
        found = (await client.rest()).count(b"HTTP/1.1 ")
    assert 1 <= found <= connection.PIPELINE_MAX + 2


async def test_who_expects_to_be_told_to_go_on_is_told(served: Listening) -> None:
    async with wire(served) as client:
        await client.send(f"{TO_WRITE}Expect: 100-continue\r\nContent-Length: {len(REPORT)}\r\n\r\n")
        assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.send(REPORT)
        assert await client.status() == 200


async def test_who_wants_another_protocol_is_answered_in_this_one(served: Listening) -> None:
    async with wire(served) as client:
        await client.send(f"{HEAD}Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n")
        status, headers, _ = await client.answer()
        assert (status, headers["connection"]) == (200, "close")
        assert await client.rest() == b""


# -- how many -----------------------------------------------------------------------------------------------------


@pytest.fixture
async def small(served: Listening) -> Listening:
    """It lets three in."""
    served.server.server_state = served.server.limits = ConnectionLimits(3)
    return served


async def test_the_one_that_waited_longest_makes_room(small: Listening) -> None:
    async with wire(small) as first, wire(small) as second, wire(small) as third:
        for each in (first, second, third):
            await each.send(f"{HEAD}\r\n")
            assert await each.status() == 200
        await first.send(f"{HEAD}\r\n")
        assert await first.status() == 200
        async with wire(small) as fourth:
            await fourth.send(f"{HEAD}\r\n")
            assert await fourth.status() == 200
            assert await second.rest() == b""
            for each in (first, third):
                await each.send(f"{HEAD}\r\n")
                assert await each.status() == 200


async def test_where_all_are_being_answered_only_probes_are(small: Listening) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(3):
            listener = await stack.enter_async_context(wire(small))
            await listener.send("GET /api/v1/openrouter/events HTTP/1.1\r\nHost: x\r\n\r\n")
            await listener.reader.readuntil(b"\r\n\r\n")
        late = await stack.enter_async_context(wire(small))
        for path in ("/livez", "/readyz", "/livez?verbose"):
            await late.send(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")
            assert await late.status() == 200
        await late.send(f"{HEAD}\r\n")
        status, headers, body = await late.answer()
        assert (status, headers["retry-after"], json.loads(body)["status"]) == (503, "1", 503)


class TestTheEnd:
    """The process is to stop: what has been asked is answered, and clients that have the next word wait no longer."""

    @pytest.mark.parametrize(
        "sent",
        [
            pytest.param(f"{TO_WRITE}Content-Length: 900\r\n\r\n{{", id="half a body"),
            pytest.param(f"{TO_WRITE}Transfer-Encoding: chunked\r\n\r\n5\r\n{{", id="half a chunk"),
            pytest.param("GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 20, id="answers that nobody takes"),
        ],
    )
    async def test_who_does_not_go_on_holds_it_up_for_a_second_at_the_most(
        self, served: Listening, sent: str
    ) -> None:
        loop = asyncio.get_running_loop()
        with ExitStack() as stack:
            for _ in range(20):
                client = stack.enter_context(socket.socket())
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                client.setblocking(False)
                await loop.sock_connect(client, ("127.0.0.1", served.port))
                await loop.sock_sendall(client, sent.encode())
            await eventually(lambda: len(served.server.server_state.tasks) == 20 or served.server.limits.stuck)
            began_at = loop.time()
            served.server.should_exit = True
            await served.task
            assert loop.time() - began_at < STOPPING_S + 2

    async def test_a_body_that_ends_in_time_is_taken_and_one_that_does_not_is_to_come_again(
        self, served: Listening
    ) -> None:
        head = f"{TO_WRITE}Content-Length: {len(REPORT)}\r\n\r\n"
        async with wire(served) as quick, wire(served) as slow:
            for each in (quick, slow):
                await each.send(head + REPORT[:10])
            await eventually(lambda: len(served.server.server_state.tasks) == 2)
            served.server.should_exit = True
            await asyncio.sleep(0.3)
            await quick.send(REPORT[10:])
            assert await quick.status() == 200
            assert await slow.status() == 503
            assert await slow.rest() == b""
