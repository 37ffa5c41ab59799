"""Reports over HTTP: their effect, and that each counts exactly once."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import httpx
import pytest
import redis.asyncio as aioredis
from pydantic import ValidationError

from openrouter_guard.api.schemas.reports import ReportBody, ResultBody
from openrouter_guard.api.scope.reports import _reporter, pending_of, signal_of
from openrouter_guard.errors import CallNotPermitted
from openrouter_guard.rules.signals import Effect, ErrorType, SignalScope
from openrouter_guard.settings import Settings, Tokens
from openrouter_guard.store import Store
from tests.service.apps import KEY, STATUS, WRITE_TOKEN, FakeUpstream, ask, bearer, eventually, failing, running

REPORTS = "/api/v1/openrouter/reports"
NOW_S = 1_772_366_400.0
OK: Mapping[str, Any] = {"success": True}
DOWN: Mapping[str, Any] = {"success": False, "status_code": 503}
PROVIDER_DOWN: Mapping[str, Any] = {**DOWN, "error": {"metadata": {"provider_name": "p"}}, "model": "a/b"}


@pytest.fixture
def writable(settings: Settings) -> Settings:
    return replace(settings, tokens=Tokens(write=WRITE_TOKEN))


@pytest.fixture
async def service(writable: Settings, upstream: FakeUpstream) -> AsyncIterator[httpx.AsyncClient]:
    async with running(writable, upstream) as service:
        yield service


async def send(service: httpx.AsyncClient, *results: Any, **more: Any) -> dict[str, Any]:
    body = {"worker_id": "go-1", "results": results, **more}
    answer = await service.post(REPORTS, json=body, headers=bearer(WRITE_TOKEN))
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def today(store: Store) -> dict[str, str]:
    (day,) = (await store.metrics(1, time.time())).values()
    return {name: count for name, count in day.items() if name.endswith("_calls")}


class TestWhatAResultSays:
    @pytest.mark.parametrize(
        ("result", "effect", "error_type"),
        [
            pytest.param(OK, Effect.SUCCESS, None, id="a success"),
            pytest.param({"success": True, "status_code": 200}, Effect.SUCCESS, None, id="with its status"),
            pytest.param(DOWN, Effect.FAILURE, ErrorType.SERVICE_UNAVAILABLE, id="503"),
            pytest.param({"success": False, "error_type": "timeout"}, Effect.FAILURE, ErrorType.TIMEOUT, id="named"),
            pytest.param({"success": False, "status_code": 400}, Effect.NEUTRAL, None, id="the caller's mistake"),
            pytest.param(
                {"success": False, "status_code": 429, "retry_after_seconds": 30},
                Effect.RATE_LIMIT,
                ErrorType.RATE_LIMITED,
                id="429 with a time",
            ),
            pytest.param(
                {"success": False, "status_code": 429}, Effect.FAILURE, ErrorType.RATE_LIMITED, id="429 without"
            ),
            pytest.param(
                {"success": False, "status_code": 403, "message": "Key limit exceeded"},
                Effect.FAILURE,
                ErrorType.CREDITS_EXHAUSTED,
                id="by its message",
            ),
            pytest.param(
                {"success": False, "status_code": 403, "error": {"message": "Key limit exceeded"}},
                Effect.FAILURE,
                ErrorType.CREDITS_EXHAUSTED,
                id="by the message in the error",
            ),
        ],
    )
    def test_is_what_a_guarded_call_would_say(
        self, result: Mapping[str, Any], effect: Effect, error_type: ErrorType | None
    ) -> None:
        signal = signal_of(ResultBody.model_validate(result), NOW_S)
        assert (signal.effect, signal.error_type) == (effect, error_type)

    def test_a_provider_that_is_named_makes_it_the_models(self) -> None:
        signal = signal_of(ResultBody.model_validate(PROVIDER_DOWN), NOW_S)
        assert signal.about is SignalScope.MODEL

    @pytest.mark.parametrize("where", ["message", "error"])
    def test_a_key_in_it_is_not_repeated(self, where: str) -> None:
        said: Any = f"No such key: {KEY}" if where == "message" else {"message": f"No such key: {KEY}"}
        signal = signal_of(ResultBody.model_validate({**DOWN, where: said}), NOW_S)
        assert signal.message == "No such key: [key]"

    def test_how_long_calls_took_is_measured(self) -> None:
        report = ReportBody.model_validate({"worker_id": "a", "results": [{**OK, "took_seconds": 1.5}, OK]})
        signals = [signal_of(result, NOW_S) for result in report.results]
        counters = pending_of(report, signals, {}, NOW_S).counters
        assert counters["latency_ms_sum"] == 1500
        assert sum(count for name, count in counters.items() if name.startswith("latency_ms_le")) == 1

    @pytest.mark.parametrize(
        "result",
        [
            {},
            {"success": "yes"},
            {"success": 1},
            {"success": False},
            {"success": False, "status_code": 200},
            {"success": True, "status_code": 503},
            {"success": True, "error_type": "timeout"},
            {"success": True, "error": {"code": 502}},
            {"success": True, "retry_after_seconds": 3},
            {"success": False, "status_code": True},
        ],
    )
    def test_what_says_nothing_or_two_things_is_refused(self, result: Mapping[str, Any]) -> None:
        with pytest.raises(ValidationError):
            ResultBody.model_validate(result)

    @pytest.mark.parametrize(
        ("odd", "effect", "error_type", "wait_s"),
        [
            ({"status_code": "503"}, Effect.FAILURE, ErrorType.SERVICE_UNAVAILABLE, None),
            ({"status_code": 999}, Effect.FAILURE, ErrorType.SERVICE_UNAVAILABLE, None),
            ({"error_type": "bad luck"}, Effect.FAILURE, ErrorType.UNKNOWN_ERROR, None),
            ({"error_type": "x" * 10_000}, Effect.FAILURE, ErrorType.UNKNOWN_ERROR, None),
            ({**DOWN, "retry_after_seconds": -1}, Effect.FAILURE, ErrorType.SERVICE_UNAVAILABLE, None),
            ({"status_code": 429, "retry_after_seconds": 1e9}, Effect.RATE_LIMIT, ErrorType.RATE_LIMITED, 90_000),
            ({"status_code": 429, "retry_after_seconds": "30"}, Effect.RATE_LIMIT, ErrorType.RATE_LIMITED, 30),
            ({"status_code": 429, "headers": {"Retry-After": "30"}}, Effect.RATE_LIMIT, ErrorType.RATE_LIMITED, 30),
            ({**DOWN, "took_seconds": float("inf"), "model": "a b " * 900}, Effect.FAILURE, None, None),
            ({**DOWN, "message": "x" * 100_000, "colour": "red"}, Effect.FAILURE, None, None),
            ({**DOWN, "message": None, "error": "no"}, Effect.FAILURE, None, None),
            ({"status_code": 200, "error": {"code": 502, "message": "no"}}, Effect.FAILURE, None, None),
            ({"error": {"code": "server_error"}}, Effect.FAILURE, None, None),
            ({"status_code": 200, "error": {"code": 400}}, Effect.NEUTRAL, None, None),
        ],
    )
    def test_what_is_odd_is_understood_as_far_as_it_goes(
        self, odd: Mapping[str, Any], effect: Effect, error_type: ErrorType | None, wait_s: float | None
    ) -> None:
        signal = signal_of(ResultBody.model_validate({"success": False, **odd}), NOW_S)
        assert (signal.effect, signal.wait_s) == (effect, wait_s)
        assert error_type in (None, signal.error_type)

    @pytest.mark.parametrize("result", [DOWN, {"success": False, "error_type": "service_unavailable"}])
    def test_a_refusal_by_another_guard_says_nothing_of_the_upstream(self, result: Mapping[str, Any]) -> None:
        headers = CallNotPermitted(30, "timeout").headers
        signal = signal_of(ResultBody.model_validate({**result, "headers": headers}), NOW_S)
        assert signal.effect is Effect.NEUTRAL


class TestCounting:
    async def test_results_count_in_their_order(self, service: httpx.AsyncClient) -> None:
        answer = await send(service, DOWN, DOWN, OK, DOWN)
        assert (answer["results"], answer["verdict"], answer["retry_after_seconds"]) == (4, "counted", None)
        assert answer["circuit_breaker"]["state"] == "closed"
        assert (await ask(service))["consecutive_failures"] == 1

    async def test_five_failures_open_the_breaker_and_the_answer_says_how_long(
        self, service: httpx.AsyncClient, store: Store
    ) -> None:
        answer = await send(service, *[DOWN] * 5)
        assert (answer["circuit_breaker"]["state"], answer["circuit_breaker"]["reason"]) == (
            "open",
            "service_unavailable",
        )
        assert 4 < answer["retry_after_seconds"] < 8
        assert [entry["to"] for entry in await store.history()] == ["open"]
        assert (await send(service, OK))["verdict"] == "late"

    async def test_one_worker_alone_stops_no_fleet(self, service: httpx.AsyncClient) -> None:
        for name in ("go-2", "go-3"):
            await send(service, OK, worker_id=name)
        answer = await send(service, *[DOWN] * 9)
        assert answer["circuit_breaker"]["state"] == "closed"
        for name in ("go-2", "go-3"):
            answer = await send(service, DOWN, DOWN, worker_id=name)
        assert answer["circuit_breaker"]["state"] == "open"

    async def test_a_report_that_is_sent_again_counts_once(self, service: httpx.AsyncClient, store: Store) -> None:
        verdicts = [(await send(service, DOWN, OK, sequence=7))["verdict"] for _ in range(3)]
        verdicts.append((await send(service, OK, sequence=8))["verdict"])
        assert verdicts == ["counted", "repeated", "repeated", "counted"]
        assert await today(store) == {"total_calls": "3", "successful_calls": "2", "failed_calls": "1"}

    async def test_a_worker_may_begin_and_stop_to_number_its_reports(self, service: httpx.AsyncClient) -> None:
        numbers: list[Mapping[str, Any]] = [{}, {"sequence": 2**53 - 1}, {}, {"sequence": 2**53 - 1}]
        verdicts = [(await send(service, OK, **number))["verdict"] for number in numbers]
        assert verdicts == ["counted", "counted", "counted", "repeated"]

    async def test_no_report_is_lost_however_many_come_at_once(
        self, writable: Settings, upstream: FakeUpstream, store: Store
    ) -> None:
        async with AsyncExitStack() as stack:
            replicas = [await stack.enter_async_context(running(writable, upstream)) for _ in range(2)]
            # Of one worker, in two replicas whose clocks disagree.
            found = await asyncio.gather(*(send(replicas[number % 2], OK) for number in range(60)))
        assert {answer["verdict"] for answer in found} == {"counted"}
        assert (await today(store))["total_calls"] == "60"

    @pytest.mark.parametrize("number", [2**53 - 1, 10**17, 10**400])
    async def test_a_report_without_a_sequence_repeats_nothing_whatever_was_counted_for_its_worker(
        self, service: httpx.AsyncClient, store: Store, client: aioredis.Redis, number: int
    ) -> None:
        # As another replica may have left it, by a clock far ahead.
        await send(service, OK)
        entry = f"{_reporter('i', 'go-1')}:{number}:{int(time.time())} "
        await client.hset(store.keys.state, "reporters", entry)
        verdicts = [(await send(service, OK))["verdict"] for _ in range(3)]
        assert verdicts == ["counted"] * 3
        assert await today(store) == {"total_calls": "4", "successful_calls": "4"}

    @pytest.mark.parametrize("epoch", [2**53 - 1, 2**52, 4_000_000_000_000])
    async def test_no_report_moves_the_epoch_ahead_of_the_clock(
        self, service: httpx.AsyncClient, store: Store, epoch: int
    ) -> None:
        assert (await send(service, DOWN, epoch=epoch))["verdict"] in {"counted", "late"}
        seen = await store.read()
        assert seen.record is not None
        assert 0 < seen.record.epoch <= seen.now * 1000
        assert (await send(service, DOWN, epoch=seen.record.epoch))["verdict"] == "counted"

    async def test_each_result_may_have_an_epoch_of_its_own(self, service: httpx.AsyncClient, store: Store) -> None:
        await send(service, OK)
        epoch = (await ask(service))["circuit_breaker"]["epoch"]
        answer = await send(
            service, DOWN, {**OK, "epoch": epoch - 1}, {**DOWN, "epoch": epoch - 1}, DOWN, epoch=epoch
        )
        assert (answer["results"], answer["verdict"]) == (4, "counted")
        assert (await ask(service))["consecutive_failures"] == 2
        assert await today(store) == {"total_calls": "5", "successful_calls": "2", "failed_calls": "3"}

    async def test_one_odd_result_does_not_take_the_others_with_it(
        self, service: httpx.AsyncClient, store: Store
    ) -> None:
        odd = [{"success": "maybe"}, {"success": False}, "nothing", {"success": True, "status_code": 500}]
        answer = await send(service, DOWN, odd[0], DOWN, odd[1], odd[2], DOWN, odd[3], colour="red", version="x" * 99)
        assert (answer["results"], answer["verdict"]) == (3, "counted")
        assert [(each["index"], each["name"]) for each in answer["refused"]] == [
            (1, "success"),
            (3, ""),
            (4, ""),
            (6, ""),
        ]
        assert all(each["detail"] for each in answer["refused"])
        assert (await today(store))["total_calls"] == "3"

    async def test_what_began_in_an_earlier_epoch_decides_nothing(self, service: httpx.AsyncClient) -> None:
        await send(service, OK)
        epoch = (await ask(service))["circuit_breaker"]["epoch"]
        assert (await send(service, DOWN, epoch=epoch - 1))["verdict"] == "late"
        assert (await send(service, DOWN, epoch=epoch))["verdict"] == "counted"
        assert (await ask(service))["consecutive_failures"] == 1


class TestWhatFollows:
    async def test_a_rate_limit_holds_everybody_back_at_once(self, service: httpx.AsyncClient) -> None:
        answer = await send(service, {"success": False, "status_code": 429, "retry_after_seconds": 90})
        assert answer["retry_after_seconds"] == pytest.approx(90, abs=2)
        assert (await ask(service))["status"] == "rate_limited"
        assert (await service.get("/api/v1/openrouter/gate")).status_code == 503

    async def test_a_refused_key_asks_for_a_check_that_confirms_it(
        self, service: httpx.AsyncClient, upstream: FakeUpstream
    ) -> None:
        upstream.answer = failing(401, "User not found")
        await send(service, {"success": False, "status_code": 401})

        async def opened() -> bool:
            reason: str = (await ask(service))["circuit_breaker"]["reason"]
            return reason == "api_key_invalid"

        await eventually(opened)

    async def test_a_model_that_fails_cools_down_alone(self, service: httpx.AsyncClient) -> None:
        await send(service, {**OK, "model": "c/d"}, *[PROVIDER_DOWN] * 5)
        answer = await ask(service)
        assert (list(answer["models"]), answer["circuit_breaker"]["state"]) == (["a/b"], "closed")

    async def test_the_worker_is_listed_with_its_version_and_its_error(self, service: httpx.AsyncClient) -> None:
        await send(
            service, {"success": False, "error_type": "timeout", "message": f"no answer, {KEY}"}, version="2.0"
        )
        (worker,) = (await ask(service, "/api/v1/openrouter/workers"))["workers"]
        assert (worker["worker_id"], worker["version"], worker["live"]) == ("go-1", "2.0", True)
        assert worker["last_error"]["error_type"] == "timeout"
        assert worker["last_error"]["error_message"] == "no answer, [key]"


class TestBodies:
    @pytest.mark.parametrize(
        ("body", "name"),
        [
            pytest.param({"results": [OK]}, "worker_id", id="nobody"),
            pytest.param({"worker_id": "a b", "results": [OK]}, "worker_id", id="a name with a space"),
            pytest.param({"worker_id": "a", "results": []}, "results", id="nothing"),
            pytest.param({"worker_id": "a", "results": [OK] * 1001}, "results", id="too much"),
            pytest.param({"worker_id": "a", "results": [OK], "sequence": 0}, "sequence", id="a sequence of 0"),
            pytest.param({"worker_id": "a", "results": [OK], "sequence": 2**53}, "sequence", id="a large sequence"),
            pytest.param({"worker_id": "a", "results": [{"success": 1}]}, "results.0.success", id="all of them"),
        ],
    )
    async def test_what_is_wrong_is_named_and_not_repeated(
        self, service: httpx.AsyncClient, body: Mapping[str, Any], name: str
    ) -> None:
        answer = await service.post(REPORTS, json=body, headers=bearer(WRITE_TOKEN))
        assert answer.status_code == 422
        assert answer.json()["detail"] == "The body cannot be used"
        assert [error["name"] for error in answer.json()["errors"]] == [name]

    async def test_what_contradicts_itself_is_said_in_words(self, service: httpx.AsyncClient) -> None:
        body = {"worker_id": "a", "results": [{"success": False}]}
        answer = await service.post(REPORTS, json=body, headers=bearer(WRITE_TOKEN))
        assert answer.json()["errors"] == [
            {
                "in": "body",
                "name": "results.0",
                "detail": "a failure needs an error_type, an error, or a status_code of 400 or more",
            }
        ]

    @pytest.mark.parametrize("content_type", ["", "text/plain", "application/x-www-form-urlencoded"])
    async def test_what_is_not_sent_as_json_is_told_how(self, service: httpx.AsyncClient, content_type: str) -> None:
        headers = {**bearer(WRITE_TOKEN), "Content-Type": content_type}
        answer = await service.post(REPORTS, content=b'{"worker_id": "a"}', headers=headers)
        assert (answer.status_code, answer.json()["detail"]) == (
            415,
            "Send JSON, with 'Content-Type: application/json'",
        )

    @pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "application/vnd.worker+json"])
    async def test_json_by_another_name_is_taken(self, service: httpx.AsyncClient, content_type: str) -> None:
        headers = {**bearer(WRITE_TOKEN), "Content-Type": content_type}
        content = json.dumps({"worker_id": "a", "results": [OK]})
        assert (await service.post(REPORTS, content=content, headers=headers)).status_code == 200

    @pytest.mark.parametrize(
        ("content", "status_code"),
        [
            (b"", 422),
            (b"not JSON", 422),
            (b"\xff", 400),
            (b"[" * 100_000, 400),
            (b'{"results": ' + b"9" * 5000 + b"}", 400),
            (b" " * 1_048_577, 413),
        ],
        ids=["empty", "no JSON", "no text", "nested without end", "a number without end", "too large"],
    )
    async def test_what_cannot_be_read_is_a_problem(
        self, service: httpx.AsyncClient, content: bytes, status_code: int
    ) -> None:
        headers = {**bearer(WRITE_TOKEN), "Content-Type": "application/json"}
        answer = await service.post(REPORTS, content=content, headers=headers)
        assert (answer.status_code, answer.headers["content-type"]) == (status_code, "application/problem+json")

    async def test_a_number_too_large_for_a_wait_is_no_mistake_of_ours(self, service: httpx.AsyncClient) -> None:
        error = {"metadata": {"retry_after_seconds": 10**400}}
        await send(service, {"success": False, "status_code": 429, "error": error})

    async def test_without_redis_it_is_not_taken_and_comes_again(
        self, writable: Settings, upstream: FakeUpstream
    ) -> None:
        away = replace(writable, redis_url="redis://127.0.0.1:1/0")
        async with running(away, upstream) as service:
            body = {"worker_id": "a", "sequence": 1, "results": [OK]}
            answer = await service.post(REPORTS, json=body, headers=bearer(WRITE_TOKEN))
            status = await service.get(STATUS)
        assert (answer.status_code, answer.json()["detail"]) == (503, "Redis is not reachable")
        assert answer.headers["retry-after"] == "1"
        assert status.status_code == 200


async def test_a_secret_in_the_name_of_a_worker_is_not_kept(service: httpx.AsyncClient, store: Store) -> None:
    await send(service, DOWN, worker_id="go-sk-or-v1-Q7wE4rT9yU2iO5pA8sD3")
    assert list(await store.workers()) == ["go-[key]"]
    (error,) = await store.worker_errors(now=time.time())
    assert error["worker_id"] == "go-[key]"
