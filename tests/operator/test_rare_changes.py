"""Rare changes to paused workloads, on a real API server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from openrouter_operator.workloads.workload import PAUSED, RELEASED
from tests.controlplane import ControlPlane, KubectlFailed
from tests.operator.conftest import Fleet, Operator, deployment
from tests.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

WORKERS = {"selector": {"matchLabels": {"fleet": "workers"}}}


def notes(fleet: Fleet, kind: str = "deployments") -> dict[str, list[str]]:
    """Our annotations on each workload."""
    items = json.loads(fleet.kubectl("get", kind, "--output=json"))["items"]
    return {
        item["metadata"]["name"]: [key for key in item["metadata"].get("annotations") or {} if "openrouter" in key]
        for item in items
    }


def is_clean(fleet: Fleet, kind: str = "deployments") -> bool:
    return not any(notes(fleet, kind).values())


def paused(fleet: Fleet, **replicas: int) -> None:
    fleet.deploy(**replicas)
    fleet.watch()
    fleet.force("forced_open")
    fleet.until_replicas(**dict.fromkeys(replicas, 0))


def written(fleet: Fleet, which: str, **changed: Any) -> str:
    """As somebody keeps it who has read it with ``kubectl get --output=yaml``: with our annotation."""
    found = json.loads(fleet.kubectl("get", f"deployment/{which}", "--output=json"))
    found["metadata"] |= changed
    found.pop("status")
    for key in ("uid", "resourceVersion", "creationTimestamp", "generation", "managedFields"):
        found["metadata"].pop(key, None)
    return json.dumps(found)


def edit(fleet: Fleet, name: str, script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``kubectl edit`` with an editor that does what *script* says to sed."""
    editor = tmp_path / "editor"
    editor.write_text(f'#!/bin/sh\nexec sed -i "{script}" "$1"\n')
    editor.chmod(0o755)
    monkeypatch.setenv("KUBE_EDITOR", str(editor))
    fleet.kubectl("edit", f"deployment/{name}", "--save-config")


def test_the_number_that_a_person_edits_is_a_decision(
    fleet: Fleet, operator: Operator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With ``--save-config`` they also write the annotation of ``kubectl apply``, and no manifest all the same."""
    paused(fleet, one=3, other=2)
    edit(fleet, "one", "s/^  replicas: 0/  replicas: 5/", tmp_path, monkeypatch)
    until(lambda: RELEASED in fleet.deployments()["one"]["metadata"]["annotations"])
    fleet.until_replicas(one=5, other=0)
    fleet.force("forced_closed")
    fleet.until_replicas(one=5, other=2)
    until(lambda: is_clean(fleet))


def test_a_forced_replace_of_what_was_read_in_the_pause_costs_nobody_the_original(
    fleet: Fleet, operator: Operator
) -> None:
    paused(fleet, one=3)
    fleet.kubectl("replace", "--force", "--filename=-", stdin=written(fleet, "one"))
    until(lambda: fleet.status()["targets"].get("paused") == 1)
    fleet.until_replicas(one=0)
    fleet.force("forced_closed")
    fleet.until_replicas(one=3)
    until(lambda: is_clean(fleet))


def test_a_deployment_that_is_renamed_by_a_copy_comes_back(fleet: Fleet, operator: Operator) -> None:
    paused(fleet, one=3)
    fleet.kubectl("create", "--filename=-", stdin=written(fleet, "one", name="two"))
    fleet.kubectl("delete", "deployment/one")
    fleet.until_replicas(two=0)
    fleet.force("forced_closed")
    fleet.until_replicas(two=3)
    until(lambda: is_clean(fleet))


def test_a_deployment_that_becomes_a_stateful_set_of_its_name_comes_back(fleet: Fleet, operator: Operator) -> None:
    fleet.deploy(one=3)
    fleet.watch(targets=[{"kind": kind} | WORKERS for kind in ("Deployment", "StatefulSet")])
    fleet.force("forced_open")
    fleet.until_replicas(one=0)
    found = json.loads(written(fleet, "one"))
    fleet.kubectl("delete", "deployment/one")
    found |= {"kind": "StatefulSet"}
    for key in ("strategy", "progressDeadlineSeconds"):
        found["spec"].pop(key, None)
    fleet.apply(found)

    def sets() -> list[int]:
        items = json.loads(fleet.kubectl("get", "statefulsets", "--output=json"))["items"]
        return [item["spec"]["replicas"] for item in items]

    until(lambda: sets() == [0])
    fleet.force("forced_closed")
    until(lambda: sets() == [3])
    until(lambda: is_clean(fleet, "statefulsets"))


def test_a_workload_that_gets_a_controller_in_its_pause_comes_back(fleet: Fleet, operator: Operator) -> None:
    paused(fleet, one=3, other=2)
    owner = json.loads(fleet.kubectl("create", "configmap", "owner", "--output=json"))["metadata"]["uid"]
    owners = [{"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner, "controller": True}]
    fleet.kubectl("patch", "deployment/one", "--patch", json.dumps({"metadata": {"ownerReferences": owners}}))
    fleet.kubectl("annotate", "deployment/other", "seen=later")
    fleet.force("forced_closed")
    fleet.until_replicas(one=3, other=2)
    until(lambda: is_clean(fleet))


def test_two_that_exchange_their_labels_in_a_pause_come_back(fleet: Fleet, operator: Operator) -> None:
    fleet.apply(deployment("one", 3, team="a"), deployment("two", 5, team="b"))
    for team in "ab":
        fleet.watch(name=team, targets=[{"kind": "Deployment", "selector": {"matchLabels": {"team": team}}}])
    fleet.force("forced_open")
    fleet.until_replicas(one=0, two=0)
    fleet.kubectl("label", "deployment/one", "team=b", "--overwrite")
    fleet.kubectl("label", "deployment/two", "team=a", "--overwrite")
    until(lambda: [fleet.status(team)["targets"].get("paused") for team in "ab"] == [1, 1])
    fleet.until_replicas(one=0, two=0)
    fleet.force("forced_closed")
    fleet.until_replicas(one=3, two=5)
    until(lambda: is_clean(fleet))


def test_a_rollout_that_is_held_in_a_pause_keeps_no_pods_back(fleet: Fleet, operator: Operator) -> None:
    paused(fleet, one=3)
    fleet.kubectl("rollout", "pause", "deployment/one")
    fleet.kubectl("set", "image", "deployment/one", "worker=next")
    fleet.force("forced_closed")
    fleet.until_replicas(one=3)
    fleet.force("forced_open")
    fleet.kubectl("rollout", "resume", "deployment/one")
    fleet.kubectl("rollout", "pause", "deployment/one")
    fleet.force("forced_closed")
    fleet.until_replicas(one=3)
    until(lambda: is_clean(fleet))


@pytest.fixture
def deaf_webhook(fleet: Fleet, control_plane: ControlPlane) -> Iterator[dict[str, Any]]:
    """A webhook of somebody who does not answer, for the changes of one Deployment."""
    webhook = {
        "name": "deaf.example.com",
        "clientConfig": {"url": "https://192.0.2.1/deaf"},
        "rules": [{"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["UPDATE"], "resources": ["*"]}],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": fleet.namespace}},
        "objectSelector": {"matchLabels": {"deaf": "true"}},
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "timeoutSeconds": 1,
    }
    name = f"deaf-{fleet.namespace}"
    kind = "ValidatingWebhookConfiguration"
    yield {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": kind,
        "metadata": {"name": name},
        "webhooks": [webhook],
    }
    control_plane.kubectl("delete", kind, name, "--ignore-not-found")


def test_a_webhook_that_does_not_answer_is_told_and_keeps_nobody_else(
    fleet: Fleet, operator: Operator, control_plane: ControlPlane, deaf_webhook: dict[str, Any]
) -> None:
    fleet.apply(deployment("deaf", 4, deaf="true"), deployment("one", 3))
    fleet.watch()
    fleet.force("forced_open")
    fleet.until_replicas(deaf=0, one=0)
    control_plane.apply(json.dumps(deaf_webhook))
    fleet.force("forced_closed")
    fleet.until_replicas(deaf=0, one=3)
    until(lambda: "deaf.example.com" in json.dumps(fleet.status().get("problems")))
    fleet.until_condition("Ready", "False")
    control_plane.kubectl("delete", deaf_webhook["kind"], deaf_webhook["metadata"]["name"])
    fleet.until_replicas(deaf=4, one=3)
    until(lambda: is_clean(fleet))
    fleet.until_condition("Ready", "True")


def test_a_namespace_that_cannot_end_is_left_in_peace(fleet: Fleet, start: Any) -> None:
    operator = start(OPENROUTER_GUARD_LEASE_NAMESPACE="default")
    paused(fleet, one=3)
    fleet.kubectl("create", "configmap", "stuck")
    held = '--patch={"metadata": {"finalizers": ["example.com/stuck"]}}'
    fleet.kubectl("patch", "configmap/stuck", "--type=merge", held)
    fleet.kubectl("patch", "deployment/one", "--type=merge", held)
    fleet.kubectl("delete", "namespace", fleet.namespace, "--wait=false")

    def resources() -> list[str]:
        return fleet.kubectl("get", "openrouterstatuses", "--output=name").split()

    until(lambda: not resources())
    fleet.force("forced_closed")
    let_go = '--patch={"metadata": {"finalizers": null}}'
    fleet.kubectl("patch", "deployment/one", "--type=merge", let_go)
    fleet.kubectl("patch", "configmap/stuck", "--type=merge", let_go)

    def is_gone() -> bool:
        with suppress(KubectlFailed):
            fleet.kubectl("get", "namespace", fleet.namespace)
            return False
        return True

    until(is_gone)
    assert not operator.has_ended


def test_who_takes_the_replicas_alone_by_force_has_them(fleet: Fleet, operator: Operator) -> None:
    """Of what ``kubectl apply`` has made, kubectl makes a manifest of theirs instead."""
    fleet.kubectl("create", "--filename=-", stdin=json.dumps(deployment("one", 3)))
    fleet.deploy(other=2)
    fleet.watch()
    fleet.force("forced_open")
    fleet.until_replicas(one=0, other=0)
    manifest = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "one"}, "spec": {"replicas": 6}}
    apply = ("apply", "--server-side", "--force-conflicts", "--field-manager=somebody", "--filename=-")
    fleet.kubectl(*apply, stdin=json.dumps(manifest))
    until(lambda: RELEASED in fleet.deployments()["one"]["metadata"]["annotations"])
    fleet.force("forced_closed")
    fleet.until_replicas(one=6, other=2)
    until(lambda: is_clean(fleet))
    owners = json.loads(fleet.kubectl("get", "deployment/one", "--output=json", "--show-managed-fields"))
    assert "openrouter" not in json.dumps(owners["metadata"]["managedFields"])


AUTOSCALED = [{"kind": "Deployment", "pausedReplicas": 2} | WORKERS]


def test_an_autoscaler_above_the_floor_is_told_from_a_person(
    fleet: Fleet, operator: Operator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet.deploy(theirs=8, scaled=8, edited=8)
    for name in ("theirs", "scaled", "edited"):
        fleet.kubectl("autoscale", f"deployment/{name}", "--min=2", "--max=9", "--cpu=50%")
    fleet.watch(targets=AUTOSCALED)
    fleet.force("forced_open")
    fleet.until_replicas(theirs=2, scaled=2, edited=2)
    scale = ("--subresource=scale", "--type=merge", '--patch={"spec": {"replicas": 5}}')
    fleet.kubectl("patch", "deployment/theirs", *scale, "--field-manager=kube-controller-manager")
    fleet.scale("scaled", 6)
    edit(fleet, "edited", "s/^  replicas: 2/  replicas: 7/", tmp_path, monkeypatch)
    until(lambda: notes(fleet) == {"theirs": [PAUSED], "scaled": [RELEASED], "edited": [RELEASED]})
    fleet.force("forced_closed")
    fleet.until_replicas(theirs=8, scaled=6, edited=7)
    until(lambda: is_clean(fleet))


LATE = "from openrouter_operator.controller import handlers\nhandlers.SETTLE_S = 2.0"
"""An operator on a busy machine: it decides two seconds after what it sees."""


@pytest.mark.parametrize("tool", [(), ("--server-side", "--field-manager=ci")], ids=["applied", "server-side"])
def test_a_pause_whose_annotation_is_taken_away_ends_though_its_operator_is_slow(
    fleet: Fleet, start: Any, tool: tuple[str, ...]
) -> None:
    """The fields of a pause that is over are given back sooner than that."""
    start(prelude=LATE)
    fleet.kubectl("apply", *tool, "--filename=-", stdin=json.dumps(deployment("one", 3)))
    fleet.watch()
    fleet.force("forced_open")
    fleet.until_replicas(one=0)
    until(lambda: fleet.status()["targets"].get("paused") == 1)
    fleet.kubectl("annotate", "deployment/one", f"{PAUSED}-")
    until(lambda: notes(fleet) == {"one": [PAUSED]})
    fleet.force("forced_closed")
    fleet.until_replicas(one=3)
    until(lambda: is_clean(fleet))
