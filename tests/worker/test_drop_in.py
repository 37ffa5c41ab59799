"""A team replaces the import of the existing classes, and its code and its router continue to work."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import AsyncMock, MagicMock

import httpx
import pydantic
import pytest
import redis
import redis.asyncio as aioredis
from fastapi import APIRouter, FastAPI

from openrouter_guard import (
    ConfigurationError,
    OpenRouterState,
    OpenRouterStateData,
    OpenRouterStateManager,
    WorkerOpenRouterReporter,
    get_circuit_breaker_status,
    open_circuit_breaker,
    reset_circuit_breaker,
)
from openrouter_guard.store import url_of
from openrouter_guard.testing import SimulatedOpenRouter
from openrouter_guard.worker.legacy.state_data import StateData
from tests.existing import STATE, ExistingWorker

pytestmark = pytest.mark.slow

NOWHERE = "redis://127.0.0.1:1/0"
AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture(params=[True, False], ids=["decoding", "bytes"])
async def theirs(request: pytest.FixtureRequest, redis_url: str) -> AsyncIterator[aioredis.Redis]:
    """The client that the team has, which decodes its answers or not."""
    async with aioredis.Redis.from_url(redis_url, decode_responses=request.param) as client:
        yield client


@pytest.fixture
async def manager(theirs: aioredis.Redis) -> AsyncIterator[OpenRouterStateManager]:
    async with OpenRouterStateManager(theirs) as manager:
        yield manager


@pytest.fixture
async def reporter(theirs: aioredis.Redis) -> AsyncIterator[WorkerOpenRouterReporter]:
    async with WorkerOpenRouterReporter(theirs) as reporter:
        yield reporter


@pytest.fixture
def existing(redis_url: str) -> Iterator[ExistingWorker]:
    with ExistingWorker(redis_url) as worker:
        yield worker


class TestTheManager:
    async def test_a_client_is_enough_and_stays_theirs(
        self, manager: OpenRouterStateManager, theirs: aioredis.Redis
    ) -> None:
        assert manager.redis is theirs
        assert await manager.update_state(OpenRouterState.ACTIVE, "Service active", balance=3.5, is_api_success=True)
        await manager.close()
        assert await theirs.hget(STATE, "state") in ("active", b"active")

    def test_its_constants(self) -> None:
        known = OpenRouterStateManager
        assert (known.STATE_KEY, known.METRICS_KEY, known.LOCK_KEY) == (
            "openrouter:state", "openrouter:metrics", "openrouter:state:lock",
        )  # fmt: skip
        assert (known.DEFAULT_TTL, known.FRESH_THRESHOLD, known.STALE_THRESHOLD, known.LOCK_TIMEOUT) == (
            300, 60, 300, 10,
        )  # fmt: skip

    async def test_what_it_is_told_it_tells(self, manager: OpenRouterStateManager) -> None:
        assert await manager.update_state(
            OpenRouterState.SERVICE_UNAVAILABLE, "HTTP 503", balance=3.5, usage_today=1.0, usage_month=2.0,
            error_details="no answer",
        )  # fmt: skip
        assert await manager.update_state("rate_limited", "HTTP 429")
        found = await manager.get_state()
        assert found is not None
        assert (found.state, found.message) == (OpenRouterState.RATE_LIMITED, "HTTP 429")
        assert (found.balance, found.usage_today, found.usage_month) == (3.5, 1.0, 2.0)
        assert (found.consecutive_failures, found.error_details) == (2, "no answer")
        assert await manager.is_fresh()
        assert await manager.update_state("active", "Service active", is_api_success=True)
        found = await manager.get_state()
        assert found is not None
        assert (found.state, found.consecutive_failures) == (OpenRouterState.ACTIVE, 0)
        (day,) = (await manager.get_metrics()).values()
        assert (day["total_calls"], day["successful_calls"], day["failed_calls"]) == (3, 1, 2)

    async def test_five_failing_checks_open_the_breaker_for_all(
        self, manager: OpenRouterStateManager, existing: ExistingWorker
    ) -> None:
        for _ in range(5):
            assert await manager.update_state("error", "no answer")
        assert await manager.should_skip_api_call() == (True, "Circuit breaker is open")
        assert existing.should_skip_api_call()

    async def test_a_good_check_does_not_close_it_at_once(
        self, manager: OpenRouterStateManager, existing: ExistingWorker
    ) -> None:
        for _ in range(5):
            await manager.update_state("error", "no answer")
        assert await manager.update_state("active", "Service active", is_api_success=True)
        assert await manager.should_skip_api_call() == (True, "Circuit breaker is open")
        assert existing.should_skip_api_call()

    async def test_bad_keys_and_empty_accounts_count_no_failure(self, manager: OpenRouterStateManager) -> None:
        for state in ("api_key_invalid", "credits_exhausted", "api_key_missing"):
            assert await manager.update_state(state, "no")
        found = await manager.get_state()
        assert found is not None
        assert (found.state, found.consecutive_failures) == (OpenRouterState.API_KEY_MISSING, 0)

    async def test_a_reset_that_it_is_told_holds_for_all(
        self, manager: OpenRouterStateManager, existing: ExistingWorker
    ) -> None:
        reset = datetime.now(UTC) + timedelta(minutes=4)
        assert await manager.update_state("rate_limited", "HTTP 429", rate_limit_reset=reset)
        assert await manager.should_skip_api_call() == (True, "Rate limited")
        assert existing.manager.should_skip_api_call() == (True, "Rate limited")
        found = await manager.get_state()
        assert found is not None
        assert found.rate_limit_reset is not None
        assert abs(found.rate_limit_reset - reset) < timedelta(seconds=1)

    async def test_a_workers_error_is_counted_and_listed(
        self, manager: OpenRouterStateManager, client: aioredis.Redis
    ) -> None:
        assert await manager.report_worker_error("timeout", "too slow", 504, worker_id="worker-7")
        found = await manager.get_state()
        assert found is not None
        assert (found.consecutive_failures, found.message) == (1, "Worker reported: timeout")
        (key,) = await client.keys("openrouter:worker_errors:*")
        row = json.loads(await client.lindex(key, 0) or "")
        assert (row["worker_id"], row["error_type"], row["status_code"]) == ("worker-7", "timeout", 504)

    async def test_what_an_existing_worker_says_is_said_in_the_same_words(
        self, manager: OpenRouterStateManager, existing: ExistingWorker
    ) -> None:
        assert existing.report_api_error("rate_limited")
        assert await manager.should_skip_api_call() == existing.manager.should_skip_api_call()
        theirs, ours = existing.manager.get_state(), await manager.get_state()
        assert theirs is not None
        assert ours is not None
        assert ours.model_dump() == vars(theirs)

    @pytest.mark.parametrize("days", [-1, 0, 1, 31, 365, 10**30])
    async def test_any_number_of_days_will_do(self, manager: OpenRouterStateManager, days: int) -> None:
        assert await manager.update_state("active", "Service active", is_api_success=True)
        assert len(await manager.get_metrics(days)) == (days > 0)

    async def test_a_redis_that_is_away_is_nothing_and_one_line(self, caplog: pytest.LogCaptureFixture) -> None:
        async with OpenRouterStateManager(aioredis.Redis.from_url(NOWHERE)) as manager:
            assert await manager.get_state() is None
            assert await manager.get_state(force_refresh=True) is None
            assert await manager.is_fresh() is False
            assert await manager.should_skip_api_call() == (False, None)
            assert await manager.get_metrics() == {}
            assert await manager.update_state("active", "Service active") is False
            assert await manager.report_worker_error("timeout", "too slow") is False
        assert caplog.text.count("the shared state cannot be used") == 1

    async def test_a_hash_of_another_type_is_nothing_too(
        self, manager: OpenRouterStateManager, client: aioredis.Redis
    ) -> None:
        await client.set(STATE, "mine")
        assert await manager.should_skip_api_call() == (False, None)
        assert await manager.update_state("active", "Service active") is False

    def test_one_manager_serves_a_loop_for_each_task(self, redis_url: str) -> None:
        script = f"""
import asyncio
from openrouter_guard import OpenRouterStateManager
manager = OpenRouterStateManager({redis_url!r})
print([asyncio.run(manager.update_state("active", "Service active", is_api_success=True)) for _ in range(3)])
"""
        told = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
        assert told == "[True, True, True]\n"


class TestTheReporter:
    async def test_a_client_is_enough_and_stays_theirs(
        self, reporter: WorkerOpenRouterReporter, theirs: aioredis.Redis
    ) -> None:
        assert reporter.redis is theirs
        assert await reporter.report_api_error("no", 503)
        assert await reporter.report_api_success()
        assert await theirs.hget(STATE, "state") in ("active", b"active")

    async def test_five_errors_stop_existing_workers_though_nobody_asked_the_service(
        self, reporter: WorkerOpenRouterReporter, existing: ExistingWorker
    ) -> None:
        for _ in range(5):
            assert await reporter.report_api_error("no", 503)
        assert existing.manager.should_skip_api_call() == (True, "Circuit breaker is open")

    @pytest.mark.parametrize(
        ("message", "status_code", "kind"),
        [("no", 401, "api_key_invalid"), ("no", 429, "rate_limited"), ("timed out", None, "timeout"),
         ("no", 503, "service_unavailable"), ("something", None, "unknown_error")],
    )  # fmt: skip
    async def test_it_classifies_as_before(
        self, reporter: WorkerOpenRouterReporter, message: str, status_code: int | None, kind: str
    ) -> None:
        assert reporter._classify_error(message, status_code) == kind

    async def test_its_worker_has_a_name(self, reporter: WorkerOpenRouterReporter) -> None:
        assert reporter._get_worker_id().startswith("worker-")

    async def test_a_redis_that_is_away_is_false(self) -> None:
        async with WorkerOpenRouterReporter(aioredis.Redis.from_url(NOWHERE)) as reporter:
            assert await reporter.report_api_error("no", 503) is False
            assert await reporter.report_api_success() is False


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://10.0.0.1:6380/3", "redis://10.0.0.1:6380/3"),
        ("redis://ann:p%40ss%2Fword@redis", "redis://ann:p%40ss%2Fword@redis:6379/0"),
        ("redis://:secret@[::1]:6380/1", "redis://:secret@[::1]:6380/1"),
        ("unix:///run/redis.sock?db=2", "unix:///run/redis.sock?db=2"),
        ("rediss://redis:6379/0?ssl_ca_certs=/ca.pem&ssl_cert_reqs=none&ssl_check_hostname=false",
         "rediss://redis:6379/0?ssl_ca_certs=%2Fca.pem&ssl_cert_reqs=none&ssl_check_hostname=false"),
        ("rediss://redis:6379/0", "rediss://redis:6379/0"),
    ],
)  # fmt: skip
def test_a_client_has_an_address(url: str, expected: str) -> None:
    assert url_of(aioredis.Redis.from_url(url)) == expected
    assert url_of(redis.Redis.from_url(url, decode_responses=True)) == expected
    assert url_of(url) == url


def test_a_client_of_sentinels_has_one_too() -> None:
    sentinel: Any = aioredis.Sentinel  # untyped there
    client = sentinel([("s1", 26379), ("s2", 26380)], sentinel_kwargs={"password": "s&cret"}).master_for(
        "mymaster", password="secret", db=1
    )
    expected = "redis+sentinel://:secret@s1:26379,s2:26380/mymaster/1?sentinel_password=s%26cret"
    assert url_of(client) == expected


def test_what_is_no_client_is_said() -> None:
    with pytest.raises(
        ConfigurationError, match="int is not a client of redis-py: give one, or the address of Redis"
    ):
        OpenRouterStateManager(7)
    for double in (MagicMock(), AsyncMock()):  # that have whatever one asks them for
        with pytest.raises(ConfigurationError, match="Mock is not a client of redis-py"):
            WorkerOpenRouterReporter(double)


@pytest.mark.parametrize("known", [OpenRouterStateManager, WorkerOpenRouterReporter])
async def test_the_client_that_it_makes_for_an_address_ends_with_it(known: Any, redis_url: str) -> None:
    async with known(redis_url) as it:
        made = it.redis
        assert it.redis is made
        assert await made.ping()
        (connection,) = made.connection_pool._available_connections
    assert not connection.is_connected


DATA: dict[str, Any] = {
    "state": "rate_limited", "message": "Rate limited", "last_check": "2026-03-01T12:00:00+00:00", "balance": "3.5",
    "consecutive_failures": "2", "circuit_breaker_open": "true",
}  # fmt: skip


@pytest.mark.parametrize("model", [OpenRouterStateData, StateData])
class TestTheData:
    """The same with pydantic and without."""

    def test_what_it_is_given_it_converts(self, model: type[StateData]) -> None:
        data = model.model_validate(DATA)
        assert (data.state, data.balance, data.consecutive_failures) == (OpenRouterState.RATE_LIMITED, 3.5, 2)
        assert (data.last_check, data.circuit_breaker_open, data.last_success) == (AT, True, None)
        assert model(**DATA) == data

    def test_it_can_be_changed_and_copied(self, model: type[StateData]) -> None:
        data = model(**DATA)
        data.message = "changed"
        copy = data.model_copy(update={"balance": 1.0})
        assert (copy.message, copy.balance, data.balance) == ("changed", 1.0, 3.5)

    def test_it_is_a_dictionary_and_json(self, model: type[StateData]) -> None:
        data = model(**DATA)
        assert data.model_dump()["state"] is OpenRouterState.RATE_LIMITED
        told = json.loads(data.model_dump_json())
        assert told["state"] == "rate_limited"
        assert datetime.fromisoformat(told["last_check"]) == AT
        assert model.model_validate_json(data.model_dump_json()) == data

    @pytest.mark.filterwarnings("ignore:The `(dict|json|copy)` method is deprecated")
    def test_the_older_names_are_there(self, model: type[StateData]) -> None:
        data = model(**DATA)
        assert data.dict() == data.model_dump()
        assert json.loads(data.json()) == json.loads(data.model_dump_json())
        assert data.copy() == data

    @pytest.mark.parametrize(
        "wrong",
        [{"state": "nonsense"}, {"last_check": "yesterday"}, {"balance": "much"}, {"circuit_breaker_open": 7}],
    )
    def test_what_cannot_be_converted_is_an_error(self, model: type[StateData], wrong: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=r"."):
            model.model_validate(DATA | wrong)

    @pytest.mark.parametrize("name", ["state", "message", "last_check"])
    def test_these_are_required(self, model: type[StateData], name: str) -> None:
        with pytest.raises(ValueError, match=name):
            model.model_validate({key: value for key, value in DATA.items() if key != name})


def test_with_pydantic_it_is_one_of_its_models() -> None:
    assert issubclass(OpenRouterStateData, pydantic.BaseModel)


def test_without_it_the_package_does_as_well() -> None:
    script = """
import sys
sys.modules["pydantic"] = None
from openrouter_guard import OpenRouterStateData
data = OpenRouterStateData(state="active", message="m", last_check="2026-03-01T12:00:00+00:00")
print(type(data).__name__, data.model_dump_json())
"""
    told = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    assert told.startswith('OpenRouterStateData {"state":"active","message":"m","balance":null')


def test_pydantic_is_not_imported_before_somebody_asks_for_the_model() -> None:
    script = "import sys, openrouter_guard.worker; print('pydantic' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    assert told == "False\n"


def router(manager: OpenRouterStateManager, upstream: httpx.AsyncClient, api_key: str) -> APIRouter:
    """The router of an existing service, as its team wrote it."""
    routes = APIRouter(prefix="/api/v1/openrouter")

    def answer(data: OpenRouterStateData | None, *, cache_hit: bool) -> dict[str, Any]:
        return {
            "status": data.state.value if data else "error",
            "message": data.message if data else "Unable to determine status",
            "balance": data.balance if data else None,
            "last_check": data.last_check.isoformat() if data else None,
            "consecutive_failures": data.consecutive_failures if data else 0,
            "circuit_breaker_open": data.circuit_breaker_open if data else False,
            "cache_hit": cache_hit,
        }

    @routes.get("/status")
    async def status(force_refresh: bool = False) -> dict[str, Any]:
        if not api_key:
            return {**dict.fromkeys(answer(None, cache_hit=False)), "status": "api_key_missing"}
        if not force_refresh and await manager.is_fresh():
            return answer(await manager.get_state(), cache_hit=True)
        found = await upstream.get("/auth/key", headers={"Authorization": f"Bearer {api_key}"})
        if found.status_code == 200:
            usage = found.json()["data"]["usage"]
            await manager.update_state(
                OpenRouterState.ACTIVE, "Service active", balance=usage, usage_month=usage, is_api_success=True
            )
        else:
            await manager.update_state(OpenRouterState.SERVICE_UNAVAILABLE, f"HTTP {found.status_code}")
        return answer(await manager.get_state(force_refresh=True), cache_hit=False)

    @routes.get("/metrics")
    async def metrics(days: int = 7) -> dict[str, Any]:
        found = await manager.get_metrics(days)
        return {"metrics": found, "days": days, "generated_at": datetime.now(UTC).isoformat()}

    return routes


class TestTheirRouter:
    @pytest.fixture
    async def ask(
        self, manager: OpenRouterStateManager, simulated: SimulatedOpenRouter, base_url: str
    ) -> AsyncIterator[httpx.AsyncClient]:
        app = FastAPI()
        async with httpx.AsyncClient(base_url=base_url) as upstream:
            app.include_router(router(manager, upstream, "sk-or-v1-theirs"))
            transport = httpx.ASGITransport(app=app)
            async with httpx.AsyncClient(transport=transport, base_url="http://theirs/api/v1/openrouter") as client:
                yield client

    async def test_it_checks_once_and_then_serves_from_the_cache(self, ask: httpx.AsyncClient) -> None:
        first, second = (await ask.get("/status")).json(), (await ask.get("/status")).json()
        assert (first["status"], first["cache_hit"], second["cache_hit"]) == ("active", False, True)
        assert second["balance"] == first["balance"]
        assert first["consecutive_failures"] == 0

    async def test_it_shows_an_outage(self, ask: httpx.AsyncClient, simulated: SimulatedOpenRouter) -> None:
        simulated.switch("outage", paths=["/key"])
        for _ in range(5):
            answer = (await ask.get("/status", params={"force_refresh": True})).json()
        assert (answer["status"], answer["circuit_breaker_open"]) == ("service_unavailable", True)
        assert answer["consecutive_failures"] == 5

    @pytest.mark.parametrize("days", [1, 31, 400])
    async def test_it_serves_the_metrics_of_any_number_of_days(self, ask: httpx.AsyncClient, days: int) -> None:
        await ask.get("/status")
        answer = (await ask.get("/metrics", params={"days": days})).json()
        (counted,) = answer["metrics"].values()
        assert (answer["days"], counted["successful_calls"], counted["state_active"]) == (days, 1, 1)


class TestThePanel:
    def test_it_shows_opens_and_resets_the_fleets_breaker(self, redis_url: str, existing: ExistingWorker) -> None:
        assert get_circuit_breaker_status(redis_url)["state"] == "unknown"
        for _ in range(3):
            existing.report_api_success()
        existing.report_api_error()
        assert get_circuit_breaker_status(redis_url) == {
            "state": "closed", "success_count": 3, "fail_count": 1, "note": "Shared by the fleet",
        }  # fmt: skip
        opened = open_circuit_breaker(redis_url, for_s=60)
        assert (opened["state"], existing.should_skip_api_call()) == ("open", True)
        assert opened["note"].startswith("forced_open by panel until ")
        closed = reset_circuit_breaker(redis_url)
        assert (closed["state"], closed["fail_count"], existing.should_skip_api_call()) == ("closed", 0, False)

    def test_a_reset_closes_what_failures_opened(self, redis_url: str, existing: ExistingWorker) -> None:
        for _ in range(5):
            existing.report_api_error()
        shown = get_circuit_breaker_status(redis_url)
        assert (shown["state"], shown["fail_count"]) == ("open", 5)
        assert shown["note"].startswith("Shared by the fleet: service_unavailable, trial calls from ")
        assert reset_circuit_breaker(redis_url, who="ann")["state"] == "closed"
        assert not existing.should_skip_api_call()

    async def test_it_may_be_asked_where_a_loop_runs(self, redis_url: str) -> None:
        assert get_circuit_breaker_status(redis_url)["state"] == "unknown"
        assert threading.active_count() < 50

    def test_of_a_redis_that_is_away_nothing_is_known(self) -> None:
        assert get_circuit_breaker_status(NOWHERE)["state"] == "unknown"
