"""What gives fields back waits for what pauses and restores."""

from __future__ import annotations

import asyncio
from collections.abc import Container
from dataclasses import dataclass, field, replace
from typing import cast

import pytest

from openrouter_operator.controller import leftovers
from openrouter_operator.controller.leftovers import Leftovers
from openrouter_operator.kubernetes.client import Cluster
from openrouter_operator.workloads.inventory import Inventory
from openrouter_operator.workloads.workload import Workload
from tests.operator.samples import workload


@dataclass
class BusyCluster:
    """One that has more to change than it can at once."""

    is_busy: bool = True
    disowned: list[str] = field(default_factory=list)

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
