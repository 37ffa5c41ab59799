"""A person's override of the breaker, over HTTP."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any

import httpx
import pytest

from openrouter_guard.rules.codec import iso, parse_iso
from openrouter_guard.settings import Settings, Tokens
from openrouter_guard.store import Store
from tests.service.apps import WRITE_TOKEN, FakeUpstream, ask, bearer, eventually, open_breaker, running

OVERRIDE = "/api/v1/openrouter/override"
GATE = "/api/v1/openrouter/gate"


@pytest.fixture
async def service(settings: Settings, upstream: FakeUpstream) -> AsyncIterator[httpx.AsyncClient]:
    async with running(replace(settings, tokens=Tokens(write=WRITE_TOKEN)), upstream) as service:
        yield service


def body(**fields: Any) -> dict[str, Any]:
    own = {
        "kind": "forced_open",
        "who": "ada@example.com",
        "why": "Invoice in dispute",
        "until": iso(time.time() + 600),
    }
    return own | fields


async def decide(service: httpx.AsyncClient, **fields: Any) -> httpx.Response:
    return await service.post(OVERRIDE, json=body(**fields), headers=bearer(WRITE_TOKEN))


async def test_all_calls_stop_at_once_and_everybody_sees_who_why_and_until_when(
    service: httpx.AsyncClient, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    until = iso(round(time.time()) + 600.0)
    breaker = (await decide(service, until=until)).json()["circuit_breaker"]
    assert breaker["override"] == {
        "kind": "forced_open",
        "who": "ada@example.com",
        "why": "Invoice in dispute",
        "until": until,
    }
    assert (breaker["state"], breaker["reason"], breaker["retry_at"]) == ("open", "forced_open", until)
    assert (await ask(service))["circuit_breaker"] == breaker
    assert (await service.get(GATE)).json()["reason"] == "forced_open"
    (change,) = await store.history()
    assert (change["to"], change["reason"], change["by"]) == ("open", "forced_open", "ada@example.com")
    await eventually(lambda: caplog.text.count("the breaker is overridden: open, was closed (forced_open)") == 1)


@pytest.mark.parametrize("kind", ["forced_closed", "disabled"])
async def test_an_open_breaker_lets_calls_go(
    service: httpx.AsyncClient, store: Store, settings: Settings, kind: str
) -> None:
    await open_breaker(store, settings)
    assert (await decide(service, kind=kind)).json()["circuit_breaker"]["state"] == "closed"
    assert (await service.get(GATE)).status_code == 200


async def test_the_newest_decision_holds(service: httpx.AsyncClient) -> None:
    await decide(service)
    await decide(service, kind="disabled", who="bob", why="Drill")
    override = (await ask(service))["circuit_breaker"]["override"]
    assert (override["kind"], override["who"]) == ("disabled", "bob")


async def test_it_is_ended_by_whoever_says_so(service: httpx.AsyncClient, store: Store) -> None:
    await decide(service)
    for _ in range(2):
        answer = await service.delete(f"{OVERRIDE}?who=bob", headers=bearer(WRITE_TOKEN))
        assert answer.status_code == 200
        assert (answer.json()["circuit_breaker"]["state"], answer.json()["circuit_breaker"]["override"]) == (
            "closed",
            None,
        )
    assert [(change["to"], change["by"]) for change in await store.history()] == [
        ("closed", "bob"),
        ("open", "ada@example.com"),
    ]


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"kind": "open"}, "kind"),
        ({"who": ""}, "who"),
        ({"who": " "}, "who"),
        ({"who": "two\nlines"}, "who"),
        ({"who": "x" * 201}, "who"),
        ({"why": ""}, "why"),
        ({"until": "tomorrow"}, "until"),
        ({"until": 1772366400}, "until"),
        ({"until": "1772366400"}, "until"),
        ({"until": "2126-03-01T12:00:00"}, "until"),
        ({"until": "2026-01-01T00:00:00+00:00"}, "until"),
        ({"until": "2126-03-01T12:00:00+00:00"}, "until"),
        ({"until": None}, "until"),
        ({"for": 600}, "for"),
    ],
)
async def test_who_why_and_an_end_are_required(
    service: httpx.AsyncClient, store: Store, fields: Mapping[str, Any], name: str
) -> None:
    sent = {key: value for key, value in body(**fields).items() if value is not None}
    answer = await service.post(OVERRIDE, json=sent, headers=bearer(WRITE_TOKEN))
    assert answer.status_code == 422
    assert [error["name"] for error in answer.json()["errors"]] == [name]
    assert await store.history() == []


async def test_who_ends_it_must_say_so(service: httpx.AsyncClient) -> None:
    answer = await service.delete(OVERRIDE, headers=bearer(WRITE_TOKEN))
    assert [error["name"] for error in answer.json()["errors"]] == ["who"]


async def test_the_offset_of_the_end_counts(service: httpx.AsyncClient) -> None:
    until = round(time.time()) + 600.0
    local = iso(until + 7200).replace("+00:00", "+02:00")
    override = (await decide(service, until=local)).json()["circuit_breaker"]["override"]
    assert parse_iso(override["until"]) == until


async def test_what_is_not_taken_says_all_that_is(service: httpx.AsyncClient) -> None:
    answer = await service.put(OVERRIDE, headers=bearer(WRITE_TOKEN))
    assert (answer.status_code, answer.headers["allow"]) == (405, "DELETE, POST")


async def test_a_secret_in_the_words_of_who_decides_is_not_kept(service: httpx.AsyncClient, store: Store) -> None:
    key = "sk-or-v1-Q7wE4rT9yU2iO5pA8sD3"
    told = (await decide(service, who=f"ci {key}", why=f"rotate {key}")).json()["circuit_breaker"]["override"]
    assert (told["who"], told["why"]) == ("ci [key]", "rotate [key]")
    (change,) = await store.history()
    record = (await store.read()).record
    assert change["by"] == "ci [key]"
    assert record is not None
    assert key not in repr(record)
