"""Rates, percentiles, availability, alerts, and Prometheus metrics, from the counters."""

from __future__ import annotations

import asyncio
import json
import math
import time
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import httpx
import pytest
import redis.asyncio as aioredis
from prometheus_client.parser import text_string_to_metric_families

from openrouter_guard import AsyncGuard
from openrouter_guard.api.scope import service as services
from openrouter_guard.api.stats.error_rate_alert import HIGH, NORMAL, is_high
from openrouter_guard.api.stats.figures import Figures, availability, day_of, errors_by_worker, since
from openrouter_guard.api.telemetry.shared_state import reason_label
from openrouter_guard.rules.breaker import BreakerState, Policy
from openrouter_guard.rules.codec import iso
from openrouter_guard.rules.latency import Latency
from openrouter_guard.rules.override import Override, OverrideKind
from openrouter_guard.rules.transitions import overridden
from openrouter_guard.settings import Settings, Thresholds
from openrouter_guard.store import Batch, Store
from openrouter_guard.version import package_version
from tests.service.apps import STATUS, FakeUpstream, ask, eventually, open_breaker, running, write

pytestmark = pytest.mark.slow

METRICS = "/api/v1/openrouter/metrics"
CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN
NOW_S = 1_772_366_400.0


class TestADay:
    def test_the_counters_stay_as_they_are_and_the_raw_histogram_is_told_as_percentiles(self) -> None:
        day = day_of(
            {"total_calls": "100", "failed_calls": "4", "latency_ms_le_1000": "100", "latency_ms_sum": "90000"}, {}
        )
        assert day.items() >= {"total_calls": 100, "failed_calls": 4, "error_rate": 0.04}.items()
        assert 700 < float(str(day["latency_p50_ms"])) <= float(str(day["latency_p99_ms"])) <= 1000
        assert not [name for name in day if name.startswith("latency_ms")]

    def test_the_time_in_each_state(self) -> None:
        day = day_of({}, {CLOSED: 800.0, OPEN: 150.0, HALF_OPEN: 50.0})
        assert day == {
            "seconds_closed": 800.0,
            "seconds_open": 150.0,
            "seconds_half_open": 50.0,
            "availability": 0.85,
        }

    def test_without_calls_there_is_no_rate(self) -> None:
        assert day_of({"health_checks": "3"}, {}) == {"health_checks": 3}


def test_availability_is_the_share_of_the_known_time_in_which_calls_were_not_refused() -> None:
    assert availability([{CLOSED: 900.0, OPEN: 100.0}, {CLOSED: 1000.0}]) == 0.95
    assert availability([{OPEN: 10.0}]) == 0.0
    assert availability([]) is None


def test_the_errors_of_the_days_asked_for_are_counted_by_worker() -> None:
    rows = [
        {"worker_id": "a", "timestamp": iso(NOW_S - 60)},
        {"worker_id": "b", "timestamp": iso(NOW_S - 60)},
        {"worker_id": "b", "timestamp": iso(NOW_S - 120)},
        {"worker_id": "b", "timestamp": iso(NOW_S - 2 * 86_400)},
        {"timestamp": iso(NOW_S - 60)},
    ]
    assert errors_by_worker(rows, days=1, now=NOW_S) == {"b": 2, "a": 1, "unknown": 1}
    assert errors_by_worker(rows, days=7, now=NOW_S)["b"] == 3


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        pytest.param({"d1": (10, 1)}, {"d1": (30, 6)}, (20, 5), id="the same day"),
        pytest.param({"d1": (10, 1)}, {"d1": (12, 1), "d2": (5, 3)}, (7, 3), id="across midnight"),
        pytest.param({"d1": (10, 1), "d2": (3, 0)}, {"d2": (5, 0), "d3": (1, 1)}, (3, 1), id="a day has left"),
        pytest.param({"d2": (3, 0)}, {"d1": (9, 9), "d2": (4, 0)}, (1, 0), id="an older day is no news"),
        pytest.param({"d1": (10, 1)}, {"d1": (2, 0)}, (0, 0), id="Redis lost its data"),
        pytest.param({}, {"d1": (4, 1)}, (4, 1), id="the first calls"),
    ],
)
def test_calls_between_two_looks(before: Any, after: Any, expected: tuple[int, int]) -> None:
    assert since(before, after) == expected


@pytest.mark.parametrize(
    ("was_high", "calls", "failed", "expected"),
    [
        pytest.param(False, 100, 25, True, id="at the threshold it begins"),
        pytest.param(False, 100, 24, False, id="below it does not"),
        pytest.param(True, 100, 13, True, id="above half of it it goes on"),
        pytest.param(True, 100, 12, False, id="below half it ends"),
        pytest.param(False, 19, 19, False, id="few calls say little"),
        pytest.param(True, 0, 0, False, id="without calls it ends"),
    ],
)
def test_an_alarm_begins_at_the_threshold_and_ends_at_half_of_it(
    was_high: bool, calls: int, failed: int, expected: bool
) -> None:
    figures = Figures((0, 0), Latency(), {}, calls, failed)
    assert is_high(was_high, figures, Thresholds(alert_error_rate=0.25, alert_calls=20)) is expected


async def calls(store: Store, good: int, bad: int) -> None:
    counters = {"total_calls": good + bad, "failed_calls": bad, "latency_ms_le_1000": good}
    await store.add_metrics(counters, at=time.time())


async def reasons(store: Store) -> list[str]:
    return [entry["reason"] for entry in reversed(await store.history())]


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """The counters are looked at all the time."""
    monkeypatch.setattr(services, "RECKON_S", 0.05)


@pytest.mark.usefixtures("often")
class TestAlarm:
    async def test_too_many_failures_are_put_into_the_history_once_for_all_replicas(
        self, settings: Settings, store: Store, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with AsyncExitStack() as stack:
            for _ in range(3):
                await stack.enter_async_context(running(settings, FakeUpstream()))
            await asyncio.sleep(0.2)
            await calls(store, 60, 40)

            async def said() -> bool:
                return HIGH in await reasons(store)

            await eventually(said)
            await asyncio.sleep(0.3)
        assert await reasons(store) == [HIGH]
        (entry,) = await store.history()
        assert (entry["from"], entry["to"], entry["error_rate"]) == ("closed", "closed", "0.4000")
        assert caplog.text.count(HIGH) >= 1

    async def test_it_ends_and_a_replica_that_starts_later_knows(
        self, settings: Settings, upstream: FakeUpstream, store: Store
    ) -> None:
        now = time.time()
        entry = {"from": "closed", "to": "closed", "reason": HIGH, "by": "another", "at": iso(now)}
        await store.note(entry, epoch=int(now * 1000) - 60_000, seq=1)
        async with running(settings, upstream) as service:
            await service.get(STATUS)

            async def ended() -> bool:
                return (await reasons(store))[-1] == NORMAL

            await eventually(ended)
        assert await reasons(store) == [HIGH, NORMAL]

    async def test_the_history_route_shows_it(self, settings: Settings, upstream: FakeUpstream, store: Store) -> None:
        async with running(settings, upstream) as service:
            await asyncio.sleep(0.2)
            await calls(store, 60, 40)

            async def shown() -> bool:
                found = (await service.get("/api/v1/openrouter/history")).json()
                return [each["reason"] for each in found["transitions"]] == [HIGH]

            await eventually(shown)


@pytest.mark.usefixtures("often")
async def test_while_calls_succeed_an_answer_is_fresh_for_longer(
    settings: Settings, upstream: FakeUpstream, store: Store, client: aioredis.Redis
) -> None:
    await write(client, age_s=90)
    upstream.gate.clear()
    async with running(settings, upstream) as service:
        await asyncio.sleep(0.2)
        await calls(store, 100, 0)

        async def fresh() -> bool:
            return bool((await ask(service))["source"] == "cache")

        assert not await fresh()
        await eventually(fresh)
        upstream.gate.set()


async def test_in_trouble_it_is_checked_though_nobody_asks(
    settings: Settings, upstream: FakeUpstream, client: aioredis.Redis
) -> None:
    await write(client, age_s=90, consecutive_failures="2")
    async with running(settings, upstream):
        await eventually(lambda: upstream.calls == 1)


async def test_the_metrics_tell_rates_percentiles_availability_and_who_reported_errors(
    settings: Settings, upstream: FakeUpstream, store: Store
) -> None:
    error = json.dumps({"worker_id": "worker1", "timestamp": iso(time.time()), "error_type": "timeout"})
    await store.count(Batch(0, "worker1", 1, [("F", 1)], errors=[error]), at=time.time())
    await calls(store, 96, 4)
    await open_breaker(store, settings)
    async with running(settings, upstream) as service:
        await asyncio.sleep(0.05)
        found = (await service.get(METRICS)).json()
    (day,) = found["metrics"].values()
    assert (day["error_rate"], day["total_calls"]) == (0.04, 100)
    assert 700 < day["latency_p50_ms"] <= day["latency_p95_ms"] <= day["latency_p99_ms"] <= 1000
    assert found["latency_ms"] == {f"p{n}": day[f"latency_p{n}_ms"] for n in (50, 95, 99)}
    assert day["seconds_open"] > 0
    assert found["availability"].keys() == {"1", "7", "30"}
    assert 0 <= found["availability"]["1"] < 1
    assert found["errors_by_worker"] == {"worker1": 1}


class TestPrometheus:
    async def scrape(self, service: httpx.AsyncClient) -> dict[str, dict[tuple[str, ...], float]]:
        """The samples by name, and by the values of their labels in the order of the labels' names."""
        found: dict[str, dict[tuple[str, ...], float]] = {}
        for family in text_string_to_metric_families((await service.get("/metrics")).text):
            for sample in family.samples:
                labels = tuple(value for _, value in sorted(sample.labels.items()))
                found.setdefault(sample.name.removeprefix("openrouter_guard_"), {})[labels] = sample.value
        return found

    async def test_what_the_fleet_shares(self, settings: Settings, upstream: FakeUpstream, store: Store) -> None:
        await calls(store, 96, 4)
        async with running(settings, upstream) as service:
            await service.get(STATUS)

            async def read() -> dict[str, dict[tuple[str, ...], float]] | None:
                found = await self.scrape(service)
                return found if found.get("calls_total") else None

            found = await eventually(read)
        assert found["calls_total"] == {("failure", "default"): 4, ("success", "default"): 96}
        assert found["upstream_latency_seconds_bucket"]["0.7", "default"] == 0
        assert found["upstream_latency_seconds_bucket"]["1.0", "default"] == 96
        assert found["upstream_latency_seconds_count"]["default",] == 96
        assert found["availability_ratio"].keys() == {("1", "default"), ("7", "default"), ("30", "default")}
        assert found["upstream_state"]["default", "active"] == 1
        assert sum(found["upstream_state"].values()) == 1
        assert found["blocked_seconds"]["default",] == 0
        assert found["upstream_check_duration_seconds_count"]["default",] == 1

    async def test_live_workers_by_version_and_settings(
        self, settings: Settings, upstream: FakeUpstream, store: Store
    ) -> None:
        now = (await store.read()).now
        beats: list[dict[str, object]] = [
            {"version": "1.0.0", "settings": "0123abcd"},
            {"version": "1.0.0", "settings": "0123abcd"},
            {"version": "1.1.0", "settings": "0123abcd"},
            {"version": "1.0.0", "settings": "x" * 5_000},
            {"version": "a worker in Go"},
            {"version": ["1"], "settings": {}},
        ]
        for number, about in enumerate(beats):
            await store.heartbeat(f"w{number}", {**about, "last_seen": iso(now)})
        await store.heartbeat("gone", {"version": "0.9", "settings": "0123abcd", "last_seen": iso(now - 200)})
        async with running(settings, upstream) as service:

            async def read() -> dict[tuple[str, ...], float] | None:
                return (await self.scrape(service)).get("workers")

            found = await eventually(read)
        assert found == {
            ("default", "0123abcd", "1.0.0"): 2,
            ("default", "0123abcd", "1.1.0"): 1,
            ("default", "other", "1.0.0"): 1,
            ("default", "other", "other"): 1,
        }

    async def test_workers_of_the_library_tell_both(
        self, settings: Settings, upstream: FakeUpstream, store: Store, redis_url: str
    ) -> None:
        async with AsyncGuard(Settings(redis_url)) as guard:
            async with guard.call():
                pass
            await eventually(store.workers)
        async with running(settings, upstream) as service:

            async def read() -> dict[tuple[str, ...], float] | None:
                return (await self.scrape(service)).get("workers")

            found = await eventually(read)
        assert found == {("default", Policy().fingerprint, package_version()): 1}

    async def test_an_open_breaker_says_for_how_long(
        self, settings: Settings, upstream: FakeUpstream, store: Store
    ) -> None:
        await open_breaker(store, settings)
        async with running(settings, upstream) as service:
            found = await self.scrape(service)
        assert found["breaker_state"]["default", "open"] == 1
        assert 4 < found["blocked_seconds"]["default",] < 8

    async def test_an_outage_shows_its_reason_and_counts_its_changes(
        self, settings: Settings, upstream: FakeUpstream, store: Store
    ) -> None:
        async with running(settings, upstream) as service:
            await service.get(STATUS)
            before = await self.scrape(service)
            await open_breaker(store, settings)

            async def opened() -> dict[str, dict[tuple[str, ...], float]] | None:
                found = await self.scrape(service)
                return found if found["transitions_total"]["closed", "error", "default", "open"] else None

            found = await eventually(opened)
        assert before["transitions_total"]["closed", "error", "default", "open"] == 0
        assert "open_reason" not in before
        assert before["failure_threshold"]["default",] == 5
        assert found["transitions_total"]["closed", "error", "default", "open"] == 1
        assert found["open_reason"] == {("error", "default"): 1}
        assert found["permits_out"]["default",] == 0

    async def test_an_override_shows_its_kind_and_its_end(
        self, settings: Settings, upstream: FakeUpstream, store: Store
    ) -> None:
        async with running(settings, upstream) as service:
            await service.get(STATUS)
            before = await self.scrape(service)
            override = Override(OverrideKind.FORCED_OPEN, "me", "a test", time.time() + 600)
            await store.change(lambda record, now: record and overridden(record, override, now))

            async def stands() -> dict[str, dict[tuple[str, ...], float]] | None:
                found = await self.scrape(service)
                return found if found["override_active"]["forced_open", "default"] else None

            found = await eventually(stands)
        assert before["override_until_timestamp_seconds"]["default",] == 0
        assert sum(before["override_active"].values()) == 0
        assert found["override_until_timestamp_seconds"]["default",] == override.until
        assert sum(found["override_active"].values()) == 1
        assert found["open_reason"] == {("forced_open", "default"): 1}

    async def test_the_refused_calls_of_the_day(
        self, settings: Settings, upstream: FakeUpstream, store: Store
    ) -> None:
        await store.add_metrics({"not_permitted_calls": 7, "total_calls": 1}, at=time.time())
        async with running(settings, upstream) as service:

            async def read() -> float | None:
                return (await self.scrape(service)).get("not_permitted_calls_total", {}).get(("default",))

            assert await eventually(read) == 7

    def test_a_reason_that_somebody_made_up_is_one_series(self) -> None:
        assert reason_label("service_unavailable") == "service_unavailable"
        assert reason_label("<script>") == "other"

    async def test_without_a_store_gauges_are_no_number_and_counters_are_left_out(
        self, settings: Settings, upstream: FakeUpstream
    ) -> None:
        away = replace(settings, redis_url="redis://127.0.0.1:1/0")
        async with running(away, upstream) as service:
            found = await self.scrape(service)
        assert found["store_up"]["default",] == 0
        shared = ("breaker_state", "upstream_state", "balance_usd", "error_ratio", "blocked_seconds", "live_workers")
        assert all(math.isnan(value) for name in shared for value in found[name].values())
        assert "calls_total" not in found

    async def test_names_and_units_are_the_usual_ones(self, settings: Settings, upstream: FakeUpstream) -> None:
        async with running(settings, upstream) as service:
            await service.get(STATUS)
            text = (await service.get("/metrics")).text
        families = {family.name: family for family in text_string_to_metric_families(text)}
        ours = {name: family for name, family in families.items() if name.startswith("openrouter_guard_")}
        assert all(family.documentation for family in families.values())
        for name, family in ours.items():
            if family.type == "histogram":
                assert name.endswith("_seconds")
            if family.type == "counter":
                assert all(sample.name.endswith(("_total", "_created")) for sample in family.samples)
        assert {"process_cpu_seconds", "python_gc_collections", "openrouter_guard_build"} <= {
            name.removesuffix("_info").removesuffix("_total") for name in families
        }
