"""Everything around the status: problems, probes, metrics, the OpenAPI document, and the shutdown."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import pytest
import redis.asyncio as aioredis
from asgi_lifespan import LifespanManager
from prometheus_client.parser import text_string_to_metric_families

from openrouter_guard import background
from openrouter_guard.api import create_app
from openrouter_guard.errors import ConfigurationError
from openrouter_guard.settings import Settings
from openrouter_guard.store import Batch, Store
from tests.service.apps import KEY, STATUS, FakeUpstream, eventually, failing, running

pytestmark = pytest.mark.slow

METRICS = "/api/v1/openrouter/metrics"


class TestMetricsByDay:
    async def test_the_shape_that_existing_readers_know(
        self, settings: Settings, upstream: FakeUpstream, store: Store
    ) -> None:
        batch = Batch(0, "worker1", 1, [("S", 2)], counters={"total_calls": 2, "successful_calls": 2})
        await store.count(batch, at=time.time())
        async with running(settings, upstream) as service:
            found = (await service.get(METRICS)).json()
        assert found.keys() >= {"metrics", "days", "generated_at"}
        assert found["days"] == 7
        day = found["metrics"][found["generated_at"][:10]]
        assert (day["total_calls"], day["successful_calls"]) == (2, 2)

    async def test_a_text_among_the_numbers_stays_a_text(
        self, settings: Settings, upstream: FakeUpstream, store: Store, client: aioredis.Redis
    ) -> None:
        await store.add_metrics({"total_calls": 1}, at=time.time())
        await client.hset(store.keys.metrics(time.time()), "note", "maintenance")
        async with running(settings, upstream) as service:
            (day,) = (await service.get(f"{METRICS}?days=1")).json()["metrics"].values()
        assert (day["total_calls"], day["note"]) == (1, "maintenance")

    @pytest.mark.parametrize("days", [30, 31, 365, 10**12])
    async def test_any_number_of_days_is_answered_with_what_there_is(
        self, settings: Settings, upstream: FakeUpstream, store: Store, days: int
    ) -> None:
        now = time.time()
        for age in (0, 29, 30):
            await store.add_metrics({"total_calls": 1}, at=now - age * 86_400)
        async with running(settings, upstream) as service:
            found = (await service.get(f"{METRICS}?days={days}")).json()
        assert (found["days"], len(found["metrics"])) == (days, 2 if days == 30 else 3)

    async def test_the_service_counts_in_the_background(self, settings: Settings, upstream: FakeUpstream) -> None:
        async with running(settings, upstream) as service:
            await service.get(STATUS)

            async def counted() -> bool:
                days = (await service.get(METRICS)).json()["metrics"].values()
                return any((day.get("health_checks"), day.get("cache_misses")) == (1, 1) for day in days)

            await eventually(counted)


class TestProblems:
    @pytest.mark.parametrize(
        ("method", "path", "status_code"),
        [
            pytest.param("GET", "/nowhere", 404, id="no such address"),
            pytest.param("GET", f"{STATUS}?scope=other", 404, id="no such scope"),
            pytest.param("DELETE", STATUS, 405, id="no such method"),
            pytest.param("GET", f"{STATUS}?force_refresh=perhaps", 422, id="not a truth value"),
            pytest.param("GET", f"{METRICS}?days=0", 422, id="too few days"),
            pytest.param("GET", f"{METRICS}?days=x", 422, id="not a number"),
        ],
    )
    async def test_an_error_is_a_problem_document(
        self, settings: Settings, upstream: FakeUpstream, method: str, path: str, status_code: int
    ) -> None:
        async with running(settings, upstream) as service:
            answer = await service.request(method, path)
        assert answer.status_code == status_code
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["x-content-type-options"] == "nosniff"
        body = answer.json()
        assert body["status"] == status_code
        assert body["instance"] == path.partition("?")[0]
        assert body["title"]
        assert body["detail"]
        assert upstream.calls == 0

    async def test_a_wrong_parameter_is_named(self, settings: Settings, upstream: FakeUpstream) -> None:
        async with running(settings, upstream) as service:
            body = (await service.get(f"{METRICS}?days=0")).json()
        assert body["errors"] == [
            {"in": "query", "name": "days", "detail": "Input should be greater than or equal to 1"}
        ]

    async def test_the_method_that_works_is_named(self, settings: Settings, upstream: FakeUpstream) -> None:
        async with running(settings, upstream) as service:
            assert (await service.post(STATUS)).headers["allow"] == "GET, HEAD"

    async def test_a_mistake_of_ours_is_a_problem_too(
        self, settings: Settings, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        app = create_app(settings, transport=upstream.transport)
        monkeypatch.setattr(app.state.service, "metrics", None)
        async with LifespanManager(app) as managed:
            transport = httpx.ASGITransport(app=managed.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://service") as service:
                answer = await service.get(METRICS)
        assert (answer.status_code, answer.headers["content-type"]) == (500, "application/problem+json")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "NoneType" not in answer.text

    @pytest.mark.parametrize(
        ("name", "value"),
        [("redis_url", "http://redis"), ("base_url", "http://host:port"), ("scope", "Team A")],
    )
    def test_a_wrong_setting_fails_before_anything_runs(self, settings: Settings, name: str, value: str) -> None:
        fields: dict[str, Any] = {"redis_url": settings.redis_url, "api_key": KEY, name: value}
        with pytest.raises(ConfigurationError):
            create_app(Settings(**fields))


class TestProbes:
    @pytest.mark.parametrize(
        ("path", "body"), [("/livez", {"status": "ok"}), ("/readyz", {"status": "ok", "redis": "up"})]
    )
    async def test_they_are_about_the_process(
        self, settings: Settings, upstream: FakeUpstream, path: str, body: dict[str, str]
    ) -> None:
        upstream.answer = failing(503)
        async with running(settings, upstream) as service:
            await service.get(STATUS)
            answer = await service.get(path)
        assert (answer.status_code, answer.json()) == (200, body)

    async def test_what_makes_no_progress_is_named(
        self, settings: Settings, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with running(settings, upstream) as service:
            monkeypatch.setattr(background, "STALL_S", -1.0)
            answer = await service.get("/livez")
        assert (answer.status_code, answer.json()["detail"]) == (503, "no progress: cache, counters, figures, events")

    async def test_a_process_that_has_not_started_is_not_ready(
        self, settings: Settings, upstream: FakeUpstream
    ) -> None:
        transport = httpx.ASGITransport(app=create_app(settings, transport=upstream.transport))
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as service:
            assert (await service.get("/readyz")).status_code == 503


class TestPrometheus:
    async def scrape(self, service: httpx.AsyncClient) -> dict[str, float]:
        answer = await service.get("/metrics")
        assert answer.headers["content-type"].startswith("text/plain")
        families = text_string_to_metric_families(answer.text)
        return {
            f"{sample.name}{dict(sorted(sample.labels.items())) or ''}": sample.value
            for family in families
            for sample in family.samples
        }

    async def test_the_state_and_the_counters(self, settings: Settings, upstream: FakeUpstream) -> None:
        async with running(settings, upstream) as service:
            answers = [(await service.get(STATUS)).json() for _ in range(3)]
            await service.get("/made/up")
            found = await self.scrape(service)
        assert found["openrouter_guard_breaker_state{'scope': 'default', 'state': 'closed'}"] == 1
        assert found["openrouter_guard_breaker_state{'scope': 'default', 'state': 'open'}"] == 0
        assert found["openrouter_guard_breaker_state{'scope': 'default', 'state': 'half_open'}"] == 0
        assert found["openrouter_guard_consecutive_failures{'scope': 'default'}"] == 0
        assert found["openrouter_guard_balance_usd{'scope': 'default'}"] == 87.5
        assert found["openrouter_guard_epoch{'scope': 'default'}"] == answers[0]["circuit_breaker"]["epoch"]
        assert found["openrouter_guard_store_up{'scope': 'default'}"] == 1
        assert 0 <= found["openrouter_guard_state_age_seconds{'scope': 'default'}"] < 5
        assert found["openrouter_guard_upstream_checks_total{'result': 'active', 'scope': 'default'}"] == 1
        assert found["openrouter_guard_upstream_checks_total{'result': 'error', 'scope': 'default'}"] == 0
        assert found["openrouter_guard_status_answers_total{'scope': 'default', 'source': 'cache'}"] == 2
        assert found[f"openrouter_guard_http_requests_total{{'route': '{STATUS}', 'status': '200'}}"] == 3
        assert found["openrouter_guard_http_requests_total{'route': 'unmatched', 'status': '404'}"] == 1
        assert found[f"openrouter_guard_http_request_duration_seconds_count{{'route': '{STATUS}'}}"] == 3
        assert any(name.startswith("openrouter_guard_build_info") for name in found)
        assert found["process_resident_memory_bytes"] > 0

    async def test_a_key_without_a_cap_has_no_balance(self, settings: Settings, upstream: FakeUpstream) -> None:
        async with running(settings, upstream) as service:
            found = await self.scrape(service)
        balance = found["openrouter_guard_balance_usd{'scope': 'default'}"]
        assert balance != balance

    async def test_openmetrics_for_who_asks_for_it(self, settings: Settings, upstream: FakeUpstream) -> None:
        async with running(settings, upstream) as service:
            answer = await service.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
        assert answer.headers["content-type"].startswith("application/openmetrics-text")
        assert answer.text.endswith("# EOF\n")


class TestOpenApi:
    @pytest.fixture
    async def document(self, settings: Settings, upstream: FakeUpstream) -> dict[str, Any]:
        async with running(settings, upstream) as service:
            found: dict[str, Any] = (await service.get("/openapi.json")).json()
        return found

    async def test_everything_is_described(self, document: dict[str, Any]) -> None:
        operations = [operation for path in document["paths"].values() for operation in path.values()]
        assert all(operation["summary"] for operation in operations)
        parameters = [parameter for operation in operations for parameter in operation.get("parameters", ())]
        assert all(parameter["description"] for parameter in parameters)
        problem = document["paths"][STATUS]["get"]["responses"]["422"]["content"]
        assert list(problem) == ["application/problem+json"]
        assert {tag for operation in operations for tag in operation["tags"]} == {
            tag["name"] for tag in document["tags"]
        }

    async def test_every_body_has_an_example_that_fits_its_schema(self, document: dict[str, Any]) -> None:
        operations = [operation for path in document["paths"].values() for operation in path.values()]
        contents = [operation["responses"]["200"].get("content", {}) for operation in operations]
        contents += [operation["requestBody"]["content"] for operation in operations if "requestBody" in operation]
        schemas = [content["application/json"]["schema"] for content in contents if "application/json" in content]
        for schema in schemas:
            # One that may be left out is described as itself or nothing.
            (place,) = (each["$ref"] for each in schema.get("anyOf", [schema]) if "$ref" in each)
            name = place.rpartition("/")[2]
            examples = document["components"]["schemas"][name]["examples"]
            whole = {"$ref": place, "components": document["components"]}
            assert examples
            assert [jsonschema_rs.is_valid(whole, example) for example in examples] == [True] * len(examples), name
        assert len(schemas) >= 13

    async def test_an_example_has_the_fields_of_an_answer(
        self, settings: Settings, upstream: FakeUpstream, document: dict[str, Any]
    ) -> None:
        async with running(settings, upstream) as service:
            answer = (await service.get(STATUS)).json()
        for example in document["components"]["schemas"]["StatusAnswer"]["examples"]:
            assert example.keys() == answer.keys()

    async def test_what_may_be_kept_says_so(self, document: dict[str, Any]) -> None:
        kept = {
            path.rpartition("/")[2]
            for path, methods in document["paths"].items()
            if "304" in methods.get("get", {}).get("responses", ())
        }
        assert kept == {"status", "gate", "metrics", "history", "workers", "models", "paused", "badge"}


class TestTheProcess:
    async def test_it_serves_and_ends_at_a_signal(self, settings: Settings, tmp_path: Path) -> None:
        program = (
            "import logging, sys; logging.basicConfig(level='INFO');"
            "from openrouter_guard.api.server import serve; from openrouter_guard.settings import Settings;"
            "serve(Settings(redis_url=sys.argv[1], api_key=sys.argv[2], base_url='http://127.0.0.1:1'),"
            "      '127.0.0.1', 0)"
        )
        log = tmp_path / "log"
        command = (sys.executable, "-X", "dev", "-W", "error", "-c", program, settings.redis_url, KEY)
        with log.open("w") as output:
            process = await asyncio.create_subprocess_exec(*command, stdout=output, stderr=output, env=os.environ)
        line = await eventually(lambda: "running on" in log.read_text() and log.read_text(), seconds=20)
        address = line.partition("running on ")[2].split()[0]
        async with httpx.AsyncClient(base_url=address) as service:
            answer = await service.get(STATUS)
            assert (answer.status_code, answer.json()["status"]) == (200, "error")
            scraped = await service.get("/metrics")
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 10) in (0, -signal.SIGTERM)
        assert "server" not in answer.headers
        assert "_created" not in scraped.text
        text = log.read_text()
        assert "Traceback" not in text
        assert "Warning" not in text
        assert KEY not in text
