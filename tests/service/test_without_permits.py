"""A fleet that takes no permits, and no service with a key: the status says so, and its reports close the breaker."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import pytest

from openrouter_guard.rules import trial_reports
from openrouter_guard.rules.breaker import Closed, Policy
from openrouter_guard.settings import Settings, Tokens
from openrouter_guard.store import Store
from tests.service.apps import WRITE_TOKEN, FakeUpstream, ask, bearer, eventually, open_breaker, running

pytestmark = pytest.mark.slow

PREFIX = "/api/v1/openrouter"
SOON = Policy(first_wait_s=0.2, longest_wait_s=0.2, reset_timeout_s=0.2, max_reset_timeout_s=0.4, trial_wait_s=0.3)
SPACED_S = 1.5
"""Longer than two requests take on a busy machine."""
OK, DOWN = {"success": True}, {"success": False, "status_code": 503}


@pytest.fixture
def keyless(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(trial_reports, "SPACED_S", SPACED_S)
    return replace(settings, api_key="", policy=SOON, tokens=Tokens(write=WRITE_TOKEN))


@pytest.fixture
async def service(keyless: Settings, upstream: FakeUpstream, store: Store) -> AsyncIterator[httpx.AsyncClient]:
    """With a breaker that has been half-open for a while."""
    async with running(keyless, upstream) as service:
        await open_breaker(store, keyless)
        await eventually(lambda: is_so(service))
        yield service


async def breaker(service: httpx.AsyncClient) -> dict[str, Any]:
    found: dict[str, Any] = (await ask(service))["circuit_breaker"]
    return found


async def is_so(service: httpx.AsyncClient) -> bool:
    return bool((await breaker(service))["nobody_tries"])


async def report(service: httpx.AsyncClient, result: dict[str, Any], **more: Any) -> dict[str, Any]:
    body = {"worker_id": "go-1", "results": [result], **more}
    answer = await service.post(f"{PREFIX}/reports", json=body, headers=bearer(WRITE_TOKEN))
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def closes(service: httpx.AsyncClient, **more: Any) -> bool:
    return bool((await report(service, OK, **more))["circuit_breaker"]["state"] == "closed")


async def for_long(service: httpx.AsyncClient, **more: Any) -> list[str]:
    """The verdicts on successes that are reported all the time, and change nothing."""
    said, began_at = list[str](), time.monotonic()
    while time.monotonic() - began_at < 2 * SPACED_S:
        answer = await report(service, OK, **more)
        assert answer["circuit_breaker"]["state"] == "half_open"
        said.append(answer["verdict"])
        await asyncio.sleep(0.05)
    return said


async def test_the_log_says_so_once_and_the_status_until_somebody_tries(
    service: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    def said() -> list[int]:
        records = [*caplog.get_records("setup"), *caplog.records]
        return [each.levelno for each in records if "no worker makes a trial call" in each.getMessage()]

    await eventually(said)
    await asyncio.sleep(1.5)
    assert said() == [logging.WARNING]
    asked = await service.post(f"{PREFIX}/permits", json={"worker_id": "go-1"}, headers=bearer(WRITE_TOKEN))
    assert asked.status_code == 201
    assert not await is_so(service)


async def test_two_spaced_successes_close_it_on_probation(service: httpx.AsyncClient, store: Store) -> None:
    epoch = (await breaker(service))["epoch"]
    first = await report(service, OK, epoch=epoch)
    again = await report(service, OK, epoch=epoch)
    assert [each["circuit_breaker"]["state"] for each in (first, again)] == ["half_open"] * 2
    await eventually(lambda: closes(service, epoch=epoch))
    record = (await store.read()).record
    assert record is not None
    assert isinstance(record.breaker, Closed)
    assert record.breaker.on_probation
    assert (await store.history(1))[0]["reason"] == "reports_succeeded"
    assert (await store.history(1))[0]["by"] == "go-1"
    # The first failure opens it again.
    await report(service, DOWN, epoch=record.epoch)
    steps = [(each["from"], each["to"]) for each in await store.history(2)]
    assert ("closed", "open") in steps  # the older one, if its wait is over by now


async def test_a_report_that_is_sent_again_is_not_the_second_one(service: httpx.AsyncClient) -> None:
    epoch = (await breaker(service))["epoch"]

    said = await for_long(service, epoch=epoch, sequence=7)
    assert (said[0], set(said[1:])) == ("late", {"repeated"})


async def test_late_ones_and_those_beside_a_trial_call_close_nothing(service: httpx.AsyncClient) -> None:
    epoch = (await breaker(service))["epoch"]
    await report(service, OK, epoch=epoch)

    await for_long(service, epoch=epoch - 1)
    permit = await service.post(f"{PREFIX}/permits", json={"worker_id": "go-2"}, headers=bearer(WRITE_TOKEN))
    assert permit.status_code == 201
    await for_long(service, epoch=permit.json()["epoch"])
