"""Each example in docs/http.md matches the service's answer to the command above it."""

from __future__ import annotations

import json
import re
import shlex
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis.asyncio as aioredis

from openrouter_guard.rules.codec import iso
from openrouter_guard.settings import Settings, Tokens
from openrouter_guard.store import Store
from tests.examples import is_like
from tests.service.apps import WRITE_TOKEN, FakeUpstream, ask, bearer, running
from tests.service.outages import outage

pytestmark = pytest.mark.slow

DOCS = Path(__file__).parents[2] / "docs" / "http.md"
TEXT = DOCS.read_text()
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
PREFIX = "/api/v1/openrouter"
NOT_JSON = {f"{PREFIX}/events", f"{PREFIX}/badge", "/metrics"}


@dataclass(frozen=True, slots=True)
class Example:
    """A command, and what it may answer."""

    method: str
    path: str
    body: Any
    answer: dict[str, Any]


def examples() -> Iterator[Example]:
    command: tuple[str, str, Any] | None = None
    for language, text in BLOCK.findall(TEXT):
        if language == "console":
            command = _command(text)
        elif language == "json":
            assert command, text
            yield Example(*command, json.loads(text))


def _command(text: str) -> tuple[str, str, Any]:
    words = shlex.split(text.removeprefix("$ "))
    assert words[0] == "curl"
    url = next(word for word in words if word.startswith("127.0.0.1:8080"))
    body = json.loads(words[words.index("--json") + 1]) if "--json" in words else None
    method = words[words.index("-X") + 1] if "-X" in words else "POST" if body else "GET"
    return method, url.removeprefix("127.0.0.1:8080"), body


EXAMPLES = list(examples())


@pytest.fixture
def writable(settings: Settings) -> Settings:
    return replace(settings, tokens=Tokens(write=WRITE_TOKEN))


async def answers(service: httpx.AsyncClient, example: Example) -> dict[str, Any]:
    body = example.body
    if body and "until" in body:
        body = body | {"until": iso(time.time() + 3600)}
    answer = await service.request(example.method, example.path, json=body, headers=bearer(WRITE_TOKEN))
    found: dict[str, Any] = answer.json()
    return found


@pytest.mark.parametrize("example", EXAMPLES, ids=[f"{each.method} {each.path}" for each in EXAMPLES])
async def test_the_example_is_what_is_answered(
    writable: Settings, upstream: FakeUpstream, store: Store, client: aioredis.Redis, example: Example
) -> None:
    async with outage(writable, upstream, store) as service:
        found = [await answers(service, example)]
    await client.flushall()
    async with running(writable, upstream) as service:
        found.append(await answers(service, example))
    assert any(is_like(example.answer, answer) for answer in found), json.dumps(found)


async def test_a_transition_looks_as_the_stream_sends_it(
    writable: Settings, upstream: FakeUpstream, store: Store
) -> None:
    (told,) = re.findall(r"^event: transition\nid: \d+\ndata: (.*)$", TEXT, re.MULTILINE)
    async with outage(writable, upstream, store) as service:
        found = (await ask(service, f"{PREFIX}/history"))["transitions"][0]
    assert is_like(json.loads(told), found)


async def test_every_address_is_described_and_every_one_that_is_described_is_there(
    settings: Settings, upstream: FakeUpstream
) -> None:
    async with running(settings, upstream) as service:
        document = await ask(service, "/openapi.json")
    there = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    shown = {(example.method, example.path.partition("?")[0]) for example in EXAMPLES}
    assert shown <= there
    untold = {path for method, path in there - shown}
    assert untold == NOT_JSON | {"/livez", f"{PREFIX}/permits/{{permit}}"}
    assert all(path.removeprefix(PREFIX) in TEXT for path in untold)


async def test_the_limits_are_those_that_hold(settings: Settings, upstream: FakeUpstream) -> None:
    async with running(settings, upstream) as service:
        document = await ask(service, "/openapi.json")
    parameters = document["paths"][f"{PREFIX}/history"]["get"]["parameters"]
    bounds = {each["name"]: (each["schema"].get("maximum"), each["schema"].get("default")) for each in parameters}
    assert bounds["limit"] == (1000, 100)
    assert bounds["days"] == (30, 30)
    assert "`limit` is 1 to 1,000 (100), `days` 1 to 30 (30)" in " ".join(TEXT.split())
    results = document["components"]["schemas"]["ReportBody"]["properties"]["results"]
    assert (results["minItems"], results["maxItems"]) == (1, 1000)
