"""Mutating admission policies of others that change the operator's writes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from openrouter_operator.workloads.workload import PAUSED
from tests.controlplane import ControlPlane
from tests.operator.conftest import Fleet, Operator
from tests.operator.crashes import one_of
from tests.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


@contextmanager
def mutating(
    fleet: Fleet, control_plane: ControlPlane, where: tuple[str, str], when: str, then: str, tried: tuple[str, str]
) -> Iterator[None]:
    """A policy in force.

    Args:
        where: Group and plural of the objects that it changes.
        when: Which of them, in CEL.
        then: What it makes of them, in CEL.
        tried: A workload, and a merge patch that it makes something else of.
    """
    name = f"mutating-{fleet.namespace}"
    group = {"apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": name}}
    rules = {"apiGroups": [where[0]], "apiVersions": ["v1"], "operations": ["UPDATE"], "resources": [where[1]]}
    spec = {
        "reinvocationPolicy": "Never",
        "failurePolicy": "Fail",
        "matchConstraints": {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": fleet.namespace}},
            "resourceRules": [rules],
        },
        "matchConditions": [{"name": "it", "expression": when}],
        "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": then}}],
    }
    fleet.apply(
        group | {"kind": "MutatingAdmissionPolicy", "spec": spec},
        group | {"kind": "MutatingAdmissionPolicyBinding", "spec": {"policyName": name}},
    )
    patch = json.loads(tried[1])

    def is_in_force() -> bool:
        words = ("--type=merge", f"--patch={tried[1]}", "--dry-run=server", "--output=json")
        found = json.loads(fleet.kubectl("patch", tried[0], *words))
        return any(found["spec"].get(field) != value for field, value in patch["spec"].items())

    try:
        until(is_in_force)  # the API server takes a moment to know a policy
        yield
    finally:
        control_plane.kubectl("delete", "mutatingadmissionpolicybinding,mutatingadmissionpolicy", name)


DEPLOYMENTS = ("apps", "deployments")
AT_LEAST_2 = "Object{spec: Object.spec{replicas: 2}}"
AT_MOST_3 = "Object{spec: Object.spec{replicas: 3}}"
NEVER_SUSPENDED = "Object{spec: Object.spec{suspend: false}}"


def problems(fleet: Fleet) -> list[str]:
    return [problem["reason"] for problem in fleet.status()["problems"]]


def events_of(fleet: Fleet, kind: str) -> list[str]:
    """The reasons of what is told on workloads of a kind."""
    items = json.loads(fleet.kubectl("get", "events", "--output=json"))["items"]
    return [item["reason"] for item in items if item["involvedObject"]["kind"] == kind]


@pytest.mark.parametrize("on_change", ["Respect", "Enforce"])
def test_one_that_undoes_a_pause_to_the_very_number_from_before_is_no_person(
    fleet: Fleet, operator: Operator, control_plane: ControlPlane, on_change: str
) -> None:
    fleet.deploy(one=2, two=2)
    patch = '{"spec": {"replicas": 1}}'
    low = "object.spec.replicas < 2 && object.metadata.name == 'one'"
    with mutating(fleet, control_plane, DEPLOYMENTS, low, AT_LEAST_2, ("deployment/one", patch)):
        fleet.watch(onManualChange=on_change)
        fleet.force("forced_open")
        fleet.until_replicas(one=2, two=0)
        until(lambda: problems(fleet) == ["ChangedByAdmission"])
        operator.restart()
        fleet.force("forced_closed")
        fleet.until_replicas(one=2, two=2)
    until(lambda: PAUSED not in json.dumps([body["metadata"] for body in fleet.deployments().values()]))


def test_one_that_makes_less_of_the_way_back_is_told_once_and_not_fought(
    fleet: Fleet, operator: Operator, control_plane: ControlPlane
) -> None:
    fleet.deploy(one=5)
    fleet.watch()
    fleet.force("forced_open")
    fleet.until_replicas(one=0)
    patch = '{"spec": {"replicas": 9}}'
    with mutating(
        fleet, control_plane, DEPLOYMENTS, "object.spec.replicas > 3", AT_MOST_3, ("deployment/one", patch)
    ):
        fleet.force("forced_closed")
        fleet.until_replicas(one=3)
        until(lambda: "ChangedByAdmission" in events_of(fleet, "Deployment"))
        until(lambda: fleet.condition("Paused").startswith("False"))
    assert fleet.replicas() == {"one": 3}
    assert events_of(fleet, "Deployment").count("ChangedByAdmission") == 1


def test_one_that_keeps_a_cron_job_from_being_suspended_is_told(
    fleet: Fleet, operator: Operator, control_plane: ControlPlane
) -> None:
    fleet.apply(one_of("CronJob", "one"))
    patch = '{"spec": {"suspend": true}}'
    policy = (("batch", "cronjobs"), "object.spec.suspend == true", NEVER_SUSPENDED, ("cronjob/one", patch))
    with mutating(fleet, control_plane, *policy):
        fleet.watch(targets=[{"kind": "CronJob", "name": "one"}])
        fleet.force("forced_open")
        until(lambda: problems(fleet) == ["ChangedByAdmission"])
        fleet.force("forced_closed")
        until(lambda: problems(fleet) == [])
    found: dict[str, Any] = json.loads(fleet.kubectl("get", "cronjob", "one", "--output=json"))
    assert (found["spec"]["suspend"], PAUSED in json.dumps(found["metadata"])) == (False, False)
