"""``openrouter-guard rescue`` restores everything after the operator is gone."""

from __future__ import annotations

import json
import shlex
from collections.abc import AsyncIterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from kubernetes.aio.client import Configuration
from kubernetes.aio.config import load_kube_config

from openrouter_operator.kubernetes.client import Cluster
from openrouter_operator.rescue import Fate, rescue
from openrouter_operator.workloads.workload import PAUSED, RELEASED, Pause, Workload
from tests.cli.commands import run
from tests.controlplane import ControlPlane
from tests.operator import foreign
from tests.operator.conftest import Fleet, Operator
from tests.waiting import until

pytestmark = pytest.mark.cluster

SAFETY = (Path(__file__).parents[2] / "docs" / "safety.md").read_text()


def pause(fleet: Fleet, name: str, *, original: int, text: str = "") -> None:
    """Leave a Deployment as an operator that is gone has left it."""
    paused = text or Pause("uid-of-owner", "default", epoch=1, original=original, set_to=0, at=1_000.0).text()
    patch = {"metadata": {"annotations": {PAUSED: paused}}, "spec": {"replicas": 0}}
    fleet.kubectl("patch", f"deployment/{name}", f"--patch={json.dumps(patch)}")


def marks(fleet: Fleet) -> set[str]:
    """Of ours, on any Deployment."""
    found = {name for d in fleet.deployments().values() for name in d["metadata"].get("annotations") or {}}
    return found & {PAUSED, RELEASED}


class Rescue:
    """The command, with a kubeconfig; the environment has nothing else, not even an address of Redis."""

    def __init__(self, kubeconfig: Path) -> None:
        self._kubeconfig = kubeconfig

    def __call__(self, *words: str) -> CompletedProcess[str]:
        return run("rescue", *words, KUBECONFIG=str(self._kubeconfig))


@pytest.fixture
def command(control_plane: ControlPlane) -> Rescue:
    return Rescue(control_plane.kubeconfig)


@pytest.fixture
def without_foreign_kinds(control_plane: ControlPlane) -> None:
    """Other tests install some in the control plane that all share."""
    foreign.remove(control_plane)


@pytest.fixture
async def cluster(control_plane: ControlPlane) -> AsyncIterator[Cluster]:
    configuration = Configuration()
    found = str(control_plane.kubeconfig)
    await load_kube_config(found, client_configuration=configuration)  # type: ignore[no-untyped-call]
    async with Cluster(configuration) as cluster:
        yield cluster


def test_what_a_lost_operator_has_paused_comes_back_and_what_a_person_did_since_stands(
    fleet: Fleet, operator: Operator, command: Rescue
) -> None:
    fleet.deploy(one=1, three=3, seven=7, idle=0)
    fleet.watch()
    fleet.fail()
    fleet.until_replicas(one=0, three=0, seven=0, idle=0)
    operator.kill()
    fleet.scale("three", 5)
    done = command("--namespace", fleet.namespace)
    assert (done.returncode, done.stderr) == (0, "")
    assert fleet.replicas() == {"one": 1, "three": 5, "seven": 7, "idle": 0}
    assert not marks(fleet)
    assert f"restored: Deployment/seven in {fleet.namespace}\n" in done.stdout
    assert f"kept as changed since: Deployment/three in {fleet.namespace}\n" in done.stdout
    assert "2 restored, 1 kept as changed since, 0 released, 0 failed\n" in done.stdout


def test_a_resource_whose_deletion_waits_for_a_lost_operator_goes_when_all_is_restored(
    fleet: Fleet, operator: Operator, command: Rescue
) -> None:
    fleet.deploy(one=1)
    fleet.watch()
    fleet.fail()
    fleet.until_replicas(one=0)
    operator.kill()
    fleet.unwatch("default", "--wait=false")
    assert fleet.kubectl("get", "ors", "--output=name")
    assert command("--namespace", fleet.namespace).returncode == 0
    until(lambda: not fleet.kubectl("get", "ors", "--output=name"))
    assert fleet.replicas() == {"one": 1}


def test_a_resource_that_nobody_deletes_keeps_its_finalizer(
    fleet: Fleet, operator: Operator, command: Rescue
) -> None:
    fleet.watch()
    operator.kill()
    assert command("--namespace", fleet.namespace).returncode == 0
    assert json.loads(fleet.kubectl("get", "ors", "default", "--output=json"))["metadata"]["finalizers"]


def test_a_dry_run_tells_the_same_and_changes_nothing(fleet: Fleet, command: Rescue) -> None:
    fleet.deploy(one=1)
    pause(fleet, "one", original=4)
    done = command("--namespace", fleet.namespace, "--dry-run")
    assert done.returncode == 0
    assert done.stdout.splitlines()[0] == f"(dry run) restored: Deployment/one in {fleet.namespace}"
    assert fleet.replicas() == {"one": 0}
    assert marks(fleet) == {PAUSED}


def test_an_original_that_cannot_be_read_is_told_and_keeps_nobody_else(fleet: Fleet, command: Rescue) -> None:
    fleet.deploy(edited=1, sound=1)
    pause(fleet, "edited", original=4, text="{edited")
    pause(fleet, "sound", original=4)
    done = command("--namespace", fleet.namespace)
    assert done.returncode == 1
    assert fleet.replicas() == {"edited": 0, "sound": 4}
    assert f"failed: Deployment/edited in {fleet.namespace}: annotation {PAUSED} cannot be read" in done.stdout
    assert "set it by hand and remove the annotation" in done.stdout


def test_where_a_right_is_missing_it_is_told_and_the_other_namespaces_are_restored(
    fleet: Fleet, control_plane: ControlPlane
) -> None:
    account = f"--serviceaccount={fleet.namespace}:rescuer"
    fleet.kubectl("create", "serviceaccount", "rescuer")
    fleet.kubectl("create", "role", "rescuer", "--verb=list,get,patch", "--resource=deployments.apps,ors")
    fleet.kubectl("create", "rolebinding", "rescuer", "--role=rescuer", account)
    fleet.deploy(one=1)
    pause(fleet, "one", original=4)
    command = Rescue(control_plane.kubeconfig_for_service_account(fleet.namespace, "rescuer"))
    done = command("--namespace", "kube-system", "--namespace", fleet.namespace)
    assert done.returncode == 1
    assert "failed: deployments in kube-system: " in done.stdout
    assert fleet.replicas() == {"one": 4}


async def test_what_changes_while_it_is_rescued_is_looked_at_again(
    fleet: Fleet, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet.deploy(busy=1, taken=1)
    pause(fleet, "busy", original=4)
    pause(fleet, "taken", original=4)
    change, met = cluster.change, set[str]()

    async def somebody_is_faster(wanted: Any) -> Workload:
        name = wanted.workload.name
        if name not in met:
            met.add(name)
            fleet.kubectl("annotate", f"deployment/{name}", "note=changed")
            if name == "taken":
                fleet.scale(name, 9)
        return await change(wanted)

    monkeypatch.setattr(cluster, "change", somebody_is_faster)
    found = [finding async for finding in rescue(cluster, [fleet.namespace])]
    assert {finding.fate for finding in found} == {Fate.RESTORED, Fate.KEPT}
    assert fleet.replicas() == {"busy": 4, "taken": 9}
    assert not marks(fleet)


def test_where_to_rescue_has_to_be_said(command: Rescue) -> None:
    done = command()
    assert done.returncode == 2
    assert "one of the arguments -n/--namespace -A/--all-namespaces is required" in done.stderr


class TestTheDocumentation:
    """Its very commands, with the names that it uses."""

    @pytest.fixture
    def lost(self, fleet: Fleet, operator: Operator) -> Fleet:
        """The operator is gone, and the deletion of the resource waits for it."""
        fleet.deploy(summaries=3)
        fleet.watch()
        fleet.force("forced_open")
        fleet.until_replicas(summaries=0)
        operator.kill()
        fleet.unwatch("default", "--wait=false")
        return fleet

    def test_its_command_undoes_the_deletion_of_a_resource_with_the_operator_gone(
        self, lost: Fleet, command: Rescue
    ) -> None:
        for words in documented("openrouter-guard rescue"):
            # What other tests have left damaged on purpose, in other namespaces, is not to be restored.
            said = [line for line in command(*words).stdout.splitlines() if lost.namespace in line]
            assert said
            assert not [line for line in said if line.startswith("failed")]
        assert lost.replicas() == {"summaries": 3}
        assert not marks(lost)
        until(lambda: not lost.kubectl("get", "ors", "--output=name"))

    def test_its_way_without_the_command_restores_one_workload(self, lost: Fleet) -> None:
        journal, *_ = [lost.kubectl(*words) for words in documented("kubectl") if "summaries" in words]
        assert json.loads(journal)["original"] == 3
        assert lost.replicas() == {"summaries": 3}
        assert not marks(lost)


def documented(command: str) -> list[list[str]]:
    """The words after *command* of each line in the consoles of the documentation."""
    lines = (line.removeprefix(f"$ {command} ") for line in SAFETY.splitlines() if line.startswith(f"$ {command} "))
    return [shlex.split(line) for line in lines]


def test_a_namespace_that_is_not_there_is_an_error_and_the_others_are_restored(fleet: Fleet, command: Rescue) -> None:
    fleet.deploy(one=1)
    pause(fleet, "one", original=4)
    done = command("--namespace", "nosuch", "--namespace", fleet.namespace)
    assert done.returncode == 1
    assert "failed: namespace nosuch: there is no such namespace\n" in done.stdout
    assert fleet.replicas() == {"one": 4}
    assert command("--namespace", "nosuch", "--ignore-not-found").returncode == 0


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("rolouts.argoproj.io", "failed: kind rolouts.argoproj.io: there is no such CRD\n"),
        ("openrouterstatuses.openrouter-guard.io", "failed: kind openrouterstatuses.openrouter-guard.io: "),
        ("ScaledJob", "failed: kind ScaledJob: this cluster does not know it\n"),
    ],
)
@pytest.mark.usefixtures("without_foreign_kinds")
def test_a_kind_that_is_not_there_is_an_error_and_the_others_are_restored(
    fleet: Fleet, command: Rescue, kind: str, line: str
) -> None:
    fleet.deploy(one=1)
    pause(fleet, "one", original=4)
    done = command("--namespace", fleet.namespace, f"--kind={kind}", "--kind=Deployment")
    assert (done.returncode, fleet.replicas()) == (1, {"one": 4})
    assert line in done.stdout


@pytest.mark.usefixtures("without_foreign_kinds")
def test_what_an_uninstall_passes_over_is_no_error(fleet: Fleet, command: Rescue) -> None:
    kinds = ("--kind=rollouts.argoproj.io", "--kind=ScaledJob")
    assert command("--namespace", fleet.namespace, *kinds, "--ignore-not-found").returncode == 0
