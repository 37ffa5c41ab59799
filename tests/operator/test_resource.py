"""Validation of the resource by the API server, and its messages."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.controlplane import ControlPlane, KubectlFailed
from tests.operator.conftest import resource

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("crd")]

WORKER = {"kind": "Deployment", "name": "worker"}


def put(control_plane: ControlPlane, **spec: Any) -> dict[str, Any]:
    """The resource as the API server would keep it."""
    words = ("create", "--dry-run=server", "--output=json", "--filename=-")
    found: dict[str, Any] = json.loads(control_plane.kubectl(*words, input=json.dumps(resource(**spec))))
    return found


OF_A_TARGET = {
    "priority": 0,
    "pausedReplicas": 0,
    "allowVolumeDeletion": False,
    "cronJobRuns": False,
    "pauseDuringRollout": False,
}


def test_what_is_left_out_gets_the_documented_defaults(control_plane: ControlPlane) -> None:
    assert put(control_plane, targets=[WORKER])["spec"] == {
        "scope": "default",
        "class": "default",
        "mode": "ScaleDown",
        "suspend": False,
        "dryRun": False,
        "targets": [WORKER | OF_A_TARGET],
        "pauseOn": ["BreakerOpen"],
        "onManualChange": "Respect",
        "deletionPolicy": "Restore",
        "pauseAfterSeconds": 10,
        "minPausedSeconds": 60,
        "maxUnknownSeconds": 900,
        "resume": {
            "strategy": "Staged",
            "canary": True,
            "canaryTimeoutSeconds": 300,
            "stepPercent": 25,
            "intervalSeconds": 15,
            "flapping": {"closings": 3, "withinSeconds": 3600},
        },
    }


def test_observing_needs_no_targets(control_plane: ControlPlane) -> None:
    assert put(control_plane, mode="Observe")["spec"]["mode"] == "Observe"


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        pytest.param({}, "spec.targets: .*needs targets", id="nothing to pause"),
        pytest.param({"targets": []}, "spec.targets: .*needs targets", id="no targets"),
        pytest.param(
            {"targets": [{"kind": "Deployment"}]},
            r"spec.targets\[0\]: .*either a name, a selector or annotated: true",
            id="a target that names nothing",
        ),
        pytest.param(
            {"targets": [WORKER | {"selector": {"matchLabels": {"a": "b"}}}]},
            r"spec.targets\[0\]: .*either a name, a selector or annotated: true",
            id="a target that says it twice",
        ),
        pytest.param(
            {"targets": [{"kind": "Deployment", "selector": {}}]},
            r"spec.targets\[0\].selector: .*would pause everything",
            id="an empty selector",
        ),
        pytest.param(
            {"targets": [{"kind": "Deployment", "selector": {"matchLabels": {}}}]},
            r"spec.targets\[0\].selector: .*would pause everything",
            id="an empty list of labels",
        ),
        pytest.param(
            {"targets": [{"kind": "Deployment", "selector": {"matchExpressions": [{"key": "a", "operator": "In"}]}}]},
            r"spec.targets\[0\].selector.matchExpressions\[0\]: .*need values",
            id="a condition without values",
        ),
        pytest.param(
            {"targets": [{"kind": "Deployments", "name": "a"}]},
            r"spec.targets\[0\]: .*Deployments is none of Deployment, .*: write it as one of these, or write its"
            " apiVersion too, such as argoproj.io/v1alpha1",
            id="a kind that nobody knows",
        ),
        pytest.param({"targets": [WORKER], "pauseOn": []}, "spec.pauseOn", id="no reason to pause"),
        pytest.param(
            {"mode": "Observe", "onManualChange": "Enforce"},
            "spec.onManualChange: .*needs something to enforce",
            id="nothing to enforce",
        ),
        pytest.param(
            {"mode": "Observe", "override": {"action": "ForceOpen", "reason": "maintenance"}},
            "spec.override: .*say why and until when",
            id="an override without an end",
        ),
        pytest.param(
            {"mode": "Observe", "override": {"action": "ForceOpen", "reason": "a", "until": "tomorrow"}},
            "spec.override.until",
            id="an end that is no time",
        ),
        pytest.param({"mode": "Hold"}, "spec.targets: .*mode Hold needs targets", id="nothing to hold"),
        pytest.param(
            {"targets": [WORKER], "exclude": [{"kind": "Deployment"}]},
            r"spec.exclude\[0\]: .*give each exclusion either",
            id="an exclusion that names nothing",
        ),
        pytest.param(
            {"targets": [WORKER | {"pausedReplicas": -1}]},
            r"spec.targets\[0\].pausedReplicas",
            id="fewer pods than none",
        ),
        pytest.param({"targets": [WORKER], "scope": "Team A"}, "spec.scope: .*1 to 40 of a-z", id="a wrong scope"),
        pytest.param(
            {"targets": [WORKER], "class": "Blue"},
            "spec.class: .*a class is 1 to 40 of a-z, 0-9 and -",
            id="a class that no operator can have",
        ),
        pytest.param({"targets": [WORKER], "mode": "Stop"}, "spec.mode: Unsupported value", id="a wrong mode"),
        pytest.param(
            {"targets": [WORKER], "pauseAfterSeconds": -1},
            "spec.pauseAfterSeconds: Invalid value",
            id="a wait below 0",
        ),
        pytest.param(
            {"targets": [WORKER], "maxPauseSeconds": 30},
            "spec.maxPauseSeconds: .*must not be less than minPausedSeconds",
            id="a longest pause below the shortest",
        ),
        pytest.param(
            {"targets": [WORKER], "resume": {"stepPercent": 0}}, "spec.resume.stepPercent", id="steps of nothing"
        ),
    ],
)
def test_a_mistake_is_refused_with_the_name_of_the_field(
    control_plane: ControlPlane, spec: dict[str, Any], said: str
) -> None:
    with pytest.raises(KubectlFailed, match=said):
        put(control_plane, **spec)


def test_a_misspelt_field_is_refused(control_plane: ControlPlane) -> None:
    with pytest.raises(KubectlFailed, match=r'unknown field "spec\.pauseAfterSecond"'):
        put(control_plane, targets=[WORKER], pauseAfterSecond=5)


def test_kubectl_explain_teaches_the_fields_with_their_units(control_plane: ControlPlane) -> None:
    taught = " ".join(control_plane.kubectl("explain", "ors.spec").split())
    assert "Seconds for which the breaker is open before anything is paused" in taught
    tree = control_plane.kubectl("explain", "ors.spec", "--recursive")
    for field in ("urlSecretRef", "matchExpressions", "pausedReplicas", "canaryTimeoutSeconds", "until"):
        assert re.search(rf"^ +{field}\t<", tree, re.MULTILINE), field
