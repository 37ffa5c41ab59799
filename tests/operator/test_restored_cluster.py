"""A restored backup of etcd: the operator's writes since then are gone, and resource versions start again."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from openrouter_operator.workloads.workload import PAUSED
from tests.chart.helm import wait_for_crd
from tests.controlplane import ControlPlane
from tests.operator.conftest import CRDS, Fleet, Operator
from tests.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


@pytest.fixture(scope="module")
def control_plane() -> Iterator[ControlPlane]:
    """Not the shared one: objects of other tests would go back too."""
    with ControlPlane() as control_plane:
        yield control_plane


@pytest.fixture(scope="module")
def crd(control_plane: ControlPlane) -> None:
    control_plane.apply(CRDS)
    wait_for_crd(control_plane)


def back_up(control_plane: ControlPlane, backup: Path) -> None:
    etcd = control_plane.processes[0]
    etcd.pause()
    try:
        shutil.copytree(control_plane.workdir / "etcd", backup)
    finally:
        etcd.resume()


def restore(control_plane: ControlPlane, backup: Path, operator: Operator) -> None:
    """Without an API server the operator cannot renew its lease, so it ends. It is started again, as by a kubelet."""
    etcd, _, controllers = control_plane.processes
    controllers.pause()
    control_plane.kill_apiserver()
    etcd.kill()
    until(lambda: operator.has_ended)
    data = control_plane.workdir / "etcd"
    shutil.rmtree(data)
    shutil.copytree(backup, data)
    etcd.restart()
    control_plane.restart_apiserver()
    controllers.restart()
    operator.restart()


def has_pause(fleet: Fleet, name: str) -> bool:
    return PAUSED in (fleet.deployments()[name]["metadata"].get("annotations") or {})


def test_what_ran_in_the_backup_is_paused_again(
    fleet: Fleet, operator: Operator, control_plane: ControlPlane, tmp_path: Path
) -> None:
    fleet.deploy(one=3, two=2)
    fleet.watch()
    back_up(control_plane, tmp_path / "backup")
    fleet.force("forced_open")
    fleet.until_replicas(one=0, two=0)
    restore(control_plane, tmp_path / "backup", operator)
    until(lambda: has_pause(fleet, "one") and has_pause(fleet, "two"))
    fleet.until_replicas(one=0, two=0)
    fleet.force("forced_closed")
    fleet.until_replicas(one=3, two=2)


def test_what_was_paused_in_the_backup_comes_back(
    fleet: Fleet, operator: Operator, control_plane: ControlPlane, tmp_path: Path
) -> None:
    fleet.deploy(one=3, two=2)
    fleet.watch()
    fleet.force("forced_open")
    fleet.until_replicas(one=0, two=0)
    back_up(control_plane, tmp_path / "backup")
    fleet.force("forced_closed")
    fleet.until_replicas(one=3, two=2)
    restore(control_plane, tmp_path / "backup", operator)
    until(lambda: not has_pause(fleet, "one") and not has_pause(fleet, "two"))
    fleet.until_replicas(one=3, two=2)
