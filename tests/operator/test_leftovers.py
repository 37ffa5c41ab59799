"""Returning ownership of fields waits until pauses and restores are done."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Container, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest

from openrouter_operator.controller import leftovers
from openrouter_operator.controller.leftovers import Leftovers
from openrouter_operator.kubernetes.client import Cluster
from openrouter_operator.kubernetes.errors import Unavailable
from openrouter_operator.kubernetes.paths import Path
from openrouter_operator.workloads.inventory import Inventory
from openrouter_operator.workloads.workload import PAUSED, Workload
from tests.operator.samples import workload


@dataclass
class BusyCluster:
    """One that has more to change than it can at once."""

    is_busy: bool = True
    disowned: list[str] = field(default_factory=list)

    lists: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    tidied: list[str] = field(default_factory=list)
    refused: str = ""

    async def metadata(self, kind: Path, namespace: str) -> AsyncIterator[dict[str, Any]]:
        """Of a kind by its plural name."""
        if kind[-1] == self.refused:
            raise Unavailable("no list")
        for body in self.lists.get(kind[-1], ()):
            yield body

    async def forget(self, kind: Path, namespace: str, name: str, version: str, notes: Sequence[str]) -> None:
        self.tidied.append(name)

    async def disown(self, seen: Workload) -> Workload:
        self.disowned.append(seen.name)
        return replace(seen, owned=(), version="2")


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> BusyCluster:
    monkeypatch.setattr(leftovers, "DISOWN_S", 0.0)
    return BusyCluster()


def owing(cluster: BusyCluster, held: Container[str] = ()) -> Leftovers:
    inventory = Inventory()
    inventory.put_changed(workload("a", owned=(1,), owners=2))
    inventory.put_changed(workload("b", owned=(1,), owners=2))
    found = Leftovers(cast("Cluster", cluster), inventory, held.__contains__)
    found.owe()
    return found


async def test_fields_are_given_back_after_what_is_to_be_changed(cluster: BusyCluster) -> None:
    giving = asyncio.create_task(owing(cluster).disown())
    await asyncio.sleep(0.2)
    assert cluster.disowned == []
    cluster.is_busy = False
    await giving
    assert cluster.disowned == ["a", "b"]


async def test_but_not_for_ever(cluster: BusyCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leftovers, "YIELD_S", 0.1)
    await owing(cluster).disown()
    assert cluster.disowned == ["a", "b"]


async def test_those_of_a_pause_that_has_lost_its_annotation_are_kept(cluster: BusyCluster) -> None:
    cluster.is_busy = False
    await owing(cluster, held={"uid-of-a"}).disown()
    assert cluster.disowned == ["b"]


async def test_those_of_what_another_operator_has_restored_are_left_to_it_while_it_may_be_there(
    cluster: BusyCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.is_busy = False
    monkeypatch.setattr(leftovers, "OTHERS_S", 0.3)
    inventory = Inventory()
    inventory.put_changed(workload("ours", owned=(1,), owners=2))
    inventory.put(workload("theirs", owned=(1,), owners=2))
    giving = Leftovers(cast("Cluster", cluster), inventory, [].__contains__)
    giving.owe()
    await giving.disown()
    assert cluster.disowned == ["ours"]
    async with asyncio.timeout(10):
        while cluster.disowned == ["ours"]:
            await giving.disown()
    assert cluster.disowned == ["ours", "theirs"]


# -- copies ---------------------------------------------------------------------------------------------------------


def replica_set(of: str) -> dict[str, Any]:
    """One that a Deployment has passed its pause on to."""
    owner = {"uid": f"uid-of-{of}", "controller": True}
    metadata = {"namespace": "jobs", "name": f"{of}-1", "resourceVersion": "1", "annotations": {PAUSED: "{}"}}
    return {"metadata": metadata | {"ownerReferences": [owner]}}


def deployment(name: str, **notes: str) -> dict[str, Any]:
    return {"metadata": {"namespace": "jobs", "name": name, "uid": f"uid-of-{name}", "annotations": notes or None}}


async def tidied(cluster: BusyCluster, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which copies an operator removes whose watch shows no pause at all."""
    monkeypatch.setattr(leftovers, "SETTLE_S", 0.0)
    found = Leftovers(cast("Cluster", cluster), Inventory(), [].__contains__)
    found.trigger("jobs")
    await found.run()
    return cluster.tidied


async def test_copies_of_a_pause_that_a_late_watch_does_not_show_stay(
    cluster: BusyCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.lists = {
        "replicasets": [replica_set("ended"), replica_set("goes-on")],
        "deployments": [deployment("ended"), deployment("goes-on", **{PAUSED: "{}"})],
    }
    assert await tidied(cluster, monkeypatch) == ["ended-1"]


async def test_no_copy_goes_while_nobody_can_say_which_pauses_go_on(
    cluster: BusyCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.lists, cluster.refused = {"replicasets": [replica_set("ended")]}, "deployments"
    assert await tidied(cluster, monkeypatch) == []
