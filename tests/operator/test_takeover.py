"""Two operators: if the leader fails in any way, the other takes over in time, and never do both write."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from openrouter_operator.workloads.workload import PAUSED
from tests.controlplane import ControlPlane
from tests.operator.audit import changes
from tests.operator.conftest import Fleet, Operator
from tests.operator.proxy import Hold, Proxy, SyncProxy
from tests.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


@pytest.fixture
def proxy(control_plane: ControlPlane, tmp_path: Path) -> Iterator[Proxy]:
    """The leader's way to the API server."""
    with SyncProxy(Proxy(control_plane, tmp_path / "proxy.kubeconfig", name="leader")) as proxy:
        yield proxy


@pytest.fixture
def leader(fleet: Fleet, proxy: Proxy, start: Any) -> Operator:
    leader: Operator = start(proxy.kubeconfig)
    fleet.deploy(one=1, three=3)
    fleet.watch()
    return leader


@pytest.fixture
def other(leader: Operator, start: Any) -> Operator:
    """It stands by."""
    other: Operator = start()
    until(lambda: "waiting for the lease" in other.said())
    return other


def leads(operator: Operator) -> bool:
    return "holding the lease" in operator.said()


def said_s(operator: Operator, words: str) -> float:
    """When it said so."""
    line = next(line for line in operator.said().splitlines() if words in line)
    return datetime.strptime(line[:23], "%Y-%m-%d %H:%M:%S,%f").timestamp()  # noqa: DTZ007  of one machine


@pytest.mark.parametrize(
    ("fault", "end"),
    [
        pytest.param(lambda leader, _: leader.kill(), lambda *_: None, id="killed"),
        pytest.param(lambda leader, _: leader.freeze(), lambda leader, _: leader.thaw(), id="stopped"),
        pytest.param(
            lambda _, proxy: setattr(proxy, "is_cut", True),
            lambda _, proxy: setattr(proxy, "is_cut", False),
            id="cut off",
        ),
    ],
)
def test_the_other_takes_over_and_the_former_leader_changes_nothing_any_more(
    fleet: Fleet,
    control_plane: ControlPlane,
    proxy: Proxy,
    leader: Operator,
    other: Operator,
    fault: Callable[[Operator, Proxy], None],
    end: Callable[[Operator, Proxy], None],
) -> None:
    fault(leader, proxy)
    until(lambda: leads(other))
    fleet.force("forced_open")
    fleet.until_replicas(one=0, three=0)
    end(leader, proxy)
    until(lambda: leader.has_ended)
    fleet.force("forced_closed")
    fleet.until_replicas(one=1, three=3)
    assert changes(control_plane, fleet.namespace, agent="leader") == []


def test_a_leader_that_is_cut_off_gives_up_before_the_other_may_begin(
    proxy: Proxy, leader: Operator, other: Operator
) -> None:
    proxy.is_cut = True
    until(lambda: leads(other) and "lost the lease" in leader.said())
    assert said_s(leader, "lost the lease") < said_s(other, "holding the lease")
    until(lambda: leader.has_ended)


def test_a_late_write_of_the_former_leader_is_refused_and_changes_nothing(
    fleet: Fleet, control_plane: ControlPlane, proxy: Proxy, leader: Operator, other: Operator
) -> None:
    arrive = threading.Event()
    proxy.rule = lambda seen: Hold(arrive) if seen.is_write and seen.is_of("deployments") else None
    fleet.force("forced_open")
    until(lambda: sum(seen.is_write and seen.is_of("deployments") for seen in proxy.seen) == 2)
    leader.kill()
    fleet.until_replicas(one=0, three=0)
    assert leads(other)
    fleet.force("forced_closed")
    fleet.until_replicas(one=1, three=3)
    before = fleet.deployments()
    arrive.set()
    until(lambda: sorted(changes(control_plane, fleet.namespace, agent="leader")) == [("one", 409), ("three", 409)])
    after = fleet.deployments()
    assert {name: d["spec"] for name, d in after.items()} == {name: d["spec"] for name, d in before.items()}
    assert [d["metadata"]["annotations"] for d in after.values()] == [
        d["metadata"]["annotations"] for d in before.values()
    ]


def test_a_late_write_that_nobody_has_overtaken_is_undone_by_the_next_leader(
    fleet: Fleet, control_plane: ControlPlane, proxy: Proxy, leader: Operator, other: Operator
) -> None:
    arrive = threading.Event()
    proxy.rule = lambda seen: Hold(arrive) if seen.is_write and seen.is_of("deployments") else None
    fleet.force("forced_open")
    until(lambda: sum(seen.is_write and seen.is_of("deployments") for seen in proxy.seen) == 2)
    fleet.force("forced_closed")
    leader.kill()
    until(lambda: leads(other))
    fleet.until_condition("UpstreamAvailable", "True")
    arrive.set()
    until(lambda: sorted(changes(control_plane, fleet.namespace, agent="leader")) == [("one", 200), ("three", 200)])
    fleet.until_replicas(one=1, three=3)
    until(lambda: not any(PAUSED in (d["metadata"].get("annotations") or {}) for d in fleet.deployments().values()))
