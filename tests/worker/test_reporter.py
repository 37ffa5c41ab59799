"""The names that existing workers use, on the shared state."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import redis

import openrouter_guard
from openrouter_guard import (
    ConfigurationError,
    OpenRouterState,
    OpenRouterStateManager,
    WorkerOpenRouterReporter,
    report_openrouter_error,
    report_openrouter_success,
)
from openrouter_guard.rules.codec import iso
from openrouter_guard.worker.legacy import reporter as reporters
from tests.existing import STATE, ExistingWorker


@pytest.fixture
async def reporter(redis_url: str) -> AsyncIterator[WorkerOpenRouterReporter]:
    async with WorkerOpenRouterReporter(redis_url, worker_id="worker-7") as reporter:
        yield reporter


@pytest.fixture
async def manager(redis_url: str) -> AsyncIterator[OpenRouterStateManager]:
    async with OpenRouterStateManager(redis_url) as manager:
        yield manager


@pytest.fixture
def client(redis_url: str) -> Iterator[Any]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


async def fail(reporter: WorkerOpenRouterReporter, times: int) -> None:
    for _ in range(times):
        assert await reporter.report_api_error("Service unavailable", 503)


class TestReporting:
    async def test_five_errors_make_everybody_skip_their_calls(
        self, reporter: WorkerOpenRouterReporter, manager: OpenRouterStateManager
    ) -> None:
        await fail(reporter, 4)
        assert await manager.should_skip_api_call() == (False, None)
        await fail(reporter, 1)
        assert await manager.should_skip_api_call() == (True, "Circuit breaker is open")

    async def test_a_success_ends_the_run(
        self, reporter: WorkerOpenRouterReporter, manager: OpenRouterStateManager
    ) -> None:
        await fail(reporter, 4)
        assert await reporter.report_api_success()
        await fail(reporter, 4)
        assert await manager.should_skip_api_call() == (False, None)

    async def test_a_report_is_in_the_log_of_worker_errors(
        self, reporter: WorkerOpenRouterReporter, client: Any
    ) -> None:
        await fail(reporter, 1)
        (key,) = client.keys("openrouter:worker_errors:*")
        entry = json.loads(client.lindex(key, 0))
        del entry["timestamp"]
        assert entry == {
            "worker_id": "worker-7",
            "error_type": "service_unavailable",
            "error_message": "Service unavailable",
            "status_code": 503,
        }

    @pytest.mark.parametrize(
        ("message", "status_code", "error_type", "state"),
        [
            pytest.param("no", 401, None, "api_key_invalid", id="by its status"),
            pytest.param("no", 402, None, "credits_exhausted", id="an empty account"),
            pytest.param("no", 503, "timeout", "error", id="as the worker named it"),
            pytest.param("Invalid API key", None, None, "api_key_invalid", id="by its words"),
            pytest.param("Insufficient credits", None, None, "credits_exhausted", id="by words about money"),
            pytest.param("Too many requests", None, None, "rate_limited", id="by words about limits"),
            pytest.param("Connection reset", None, None, "error", id="by words about the network"),
            pytest.param("something else", None, None, "error", id="unknown"),
            pytest.param("no", None, "a type of tomorrow", "error", id="a type that we do not know"),
        ],
    )
    async def test_the_kind_of_error_is_shared(
        self,
        reporter: WorkerOpenRouterReporter,
        client: Any,
        message: str,
        status_code: int | None,
        error_type: str | None,
        state: str,
    ) -> None:
        assert await reporter.report_api_error(message, status_code, error_type)
        assert client.hget(STATE, "state") == state

    async def test_a_wrong_request_is_no_failure(self, reporter: WorkerOpenRouterReporter, client: Any) -> None:
        for _ in range(6):
            assert await reporter.report_api_error("Bad request", 400)
        assert client.hget(STATE, "consecutive_failures") == "0"

    async def test_a_report_that_redis_did_not_take_is_false_and_no_error(self) -> None:
        async with WorkerOpenRouterReporter("redis://127.0.0.1:1/0") as reporter:
            assert not await reporter.report_api_error("timed out", 504)
            assert not await reporter.report_api_success()


class TestTheReporterOfTheProcess:
    @pytest.fixture(autouse=True)
    def own(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(reporters, "_reporter", None)

    async def test_it_is_one_and_set_up_by_the_environment(
        self, monkeypatch: pytest.MonkeyPatch, redis_url: str, client: Any
    ) -> None:
        monkeypatch.setenv("REDIS_URL", redis_url)
        assert await report_openrouter_error("timed out", error_type="timeout")
        assert client.hget(STATE, "consecutive_failures") == "1"
        assert await report_openrouter_success()
        assert client.hget(STATE, "consecutive_failures") == "0"
        reporter = openrouter_guard.get_openrouter_reporter()
        assert reporter is openrouter_guard.get_openrouter_reporter()
        await reporter.close()

    async def test_without_an_address_it_says_what_to_set_and_nothing_raises(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.delenv("REDIS_URL", raising=False)
        for _ in range(3):
            assert not await report_openrouter_success()
        assert caplog.text.count("REDIS_URL is not set: write") == 1
        with pytest.raises(ConfigurationError, match="REDIS_URL is not set: write"):
            openrouter_guard.get_openrouter_reporter()


class TestReading:
    async def test_of_nothing_there_is_nothing(self, manager: OpenRouterStateManager) -> None:
        assert await manager.get_state() is None
        assert await manager.get_state(force_refresh=True) is None
        assert not await manager.is_fresh()
        assert await manager.should_skip_api_call() == (False, None)
        assert await manager.get_metrics() == {}

    async def test_what_an_existing_worker_wrote_is_read(
        self, manager: OpenRouterStateManager, redis_url: str, client: Any
    ) -> None:
        with ExistingWorker(redis_url) as existing:
            for _ in range(5):
                existing.report_api_error("rate_limited")
        client.hset(STATE, mapping={"balance": "12.5", "last_check": iso(client.time()[0])})
        state = await manager.get_state()
        assert state is not None
        assert (state.state, state.balance) == (OpenRouterState.RATE_LIMITED, 12.5)
        assert (state.consecutive_failures, state.circuit_breaker_open) == (5, True)
        assert await manager.should_skip_api_call() == (True, "Circuit breaker is open")
        (day,) = (await manager.get_metrics()).values()
        assert day == {"total_calls": 5, "failed_calls": 5, "state_rate_limited": 5}

    @pytest.mark.parametrize(
        ("age_s", "is_fresh", "is_there"),
        [
            pytest.param(30, True, True, id="fresh"),
            pytest.param(120, False, True, id="no longer fresh"),
            pytest.param(400, False, False, id="stale"),
        ],
    )
    async def test_the_age_of_the_last_check_decides(
        self, manager: OpenRouterStateManager, client: Any, age_s: float, *, is_fresh: bool, is_there: bool
    ) -> None:
        client.hset(STATE, mapping={"state": "active", "last_check": iso(client.time()[0] - age_s)})
        assert await manager.is_fresh() is is_fresh
        assert await manager.is_fresh(max_age_seconds=age_s + 10)
        assert (await manager.get_state() is not None) is is_there
        assert await manager.get_state(force_refresh=True) is not None

    async def test_a_rate_limit_is_a_reason_to_skip(self, manager: OpenRouterStateManager, client: Any) -> None:
        reset = iso(client.time()[0] + 30)
        client.hset(STATE, mapping={"state": "rate_limited", "rate_limit_reset": reset})
        assert await manager.should_skip_api_call() == (True, "Rate limited")
