"""The spec of a resource: validation, defaults, and the workloads that it selects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from openrouter_operator.decisions.targets import Candidate, skip
from openrouter_operator.resource.spec import (
    InvalidSpec,
    Mode,
    Options,
    Resume,
    Spec,
    Strategy,
    class_of,
    is_left_paused,
    parse,
)
from openrouter_operator.workloads.kinds import DEPLOYMENT
from openrouter_operator.workloads.workload import OPT, Workload
from tests.operator.samples import OWNER, WORKERS, spec, workload

CRD = Path(__file__).parents[2] / "crds" / "openrouterstatuses.yaml"

# -- what is let in -------------------------------------------------------------------------------------------------


def test_an_empty_spec_is_the_defaults() -> None:
    assert parse({}) == Spec(
        scope="default",
        mode=Mode.SCALE_DOWN,
        suspend=False,
        targets=(),
        pause_after_seconds=10,
        min_paused_seconds=60,
        max_pause_seconds=None,
        max_unknown_seconds=900,
        resume=Resume(strategy=Strategy.STAGED, canary=True, step_percent=25, interval_seconds=15),
    )


def test_the_defaults_are_those_that_the_api_server_fills_in() -> None:
    schema = yaml.safe_load(CRD.read_text())["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    fields = schema["properties"]["spec"]["properties"]

    def defaults(of: dict[str, Any]) -> dict[str, Any]:
        return {name: field["default"] for name, field in of.items() if "default" in field}

    filled_in = defaults(fields) | {"resume": defaults(fields["resume"]["properties"])}
    assert parse(filled_in) == parse({})


@pytest.mark.parametrize("stored", [[1], "Observe", 3, True, {"class": 5}, {"targets": None}, {"targets": {"a": 1}}])
def test_what_an_older_schema_let_in_is_one_resources_mistake(stored: object) -> None:
    with pytest.raises(InvalidSpec, match=r"^spec"):
        parse(stored)
    assert class_of({"spec": stored}) == "default"
    assert not is_left_paused({"spec": stored})


def test_no_spec_at_all_is_an_empty_one() -> None:
    assert parse(None) == parse({})


def test_fields_of_a_newer_schema_are_no_mistake() -> None:
    assert parse({"fieldOfTheFuture": 1}) == parse({})


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"mode": "Sleep"}, "spec.mode"),
        ({"suspend": "perhaps"}, "spec.suspend"),
        ({"scope": "Team A"}, "spec.scope"),
        ({"scope": ""}, "spec.scope"),
        ({"pauseAfterSeconds": -1}, "spec.pauseAfterSeconds"),
        ({"maxPauseSeconds": 0}, "spec.maxPauseSeconds"),
        ({"maxUnknownSeconds": 0}, "spec.maxUnknownSeconds"),
        ({"resume": {"stepPercent": 0}}, "spec.resume.stepPercent"),
        ({"resume": {"stepPercent": 101}}, "spec.resume.stepPercent"),
        ({"resume": {"intervalSeconds": 0}}, "spec.resume.intervalSeconds"),
        ({"resume": {"strategy": "Hasty"}}, "spec.resume.strategy"),
        ({"targets": [{"name": "a"}]}, "spec.targets.0.kind"),
        ({"targets": [WORKERS, {"kind": "Deployment", "selector": 3}]}, "spec.targets.1.selector"),
        (
            {
                "targets": [
                    {"kind": "Deployment", "selector": {"matchExpressions": [{"key": "a", "operator": "Like"}]}}
                ]
            },
            "spec.targets.0.selector.matchExpressions.0.operator",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_spec_that_cannot_be_used_says_where(fields: dict[str, Any], where: str) -> None:
    with pytest.raises(InvalidSpec, match=f"^{where}: "):
        parse(fields)


def test_a_mistake_does_not_repeat_what_was_written() -> None:
    with pytest.raises(InvalidSpec) as caught:
        parse({"mode": "sk-or-v1-secret"})
    assert "secret" not in str(caught.value)


# -- which workloads it names ---------------------------------------------------------------------------------------


def by_labels(**selector: Any) -> dict[str, Any]:
    return {"kind": "Deployment", "selector": selector}


def where(key: str, operator: str, *values: str) -> dict[str, Any]:
    return by_labels(matchExpressions=[{"key": key, "operator": operator, "values": list(values)}])


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        pytest.param({"kind": "Deployment", "name": "a"}, True, id="by its name"),
        pytest.param({"kind": "Deployment", "name": "b"}, False, id="not by another's"),
        pytest.param({"kind": "Deployment", "name": "A"}, False, id="names are exact"),
        pytest.param({"kind": "StatefulSet", "name": "a"}, False, id="not as another kind"),
        pytest.param(by_labels(matchLabels={"fleet": "workers"}), True, id="by a label"),
        pytest.param(by_labels(matchLabels={"fleet": "workers", "tier": "low"}), False, id="only by all labels"),
        pytest.param(by_labels(matchLabels={"fleet": ""}), False, id="an empty value is a value"),
        pytest.param(where("fleet", "In", "workers", "others"), True, id="by one value of many"),
        pytest.param(where("fleet", "In", "others"), False, id="not by others"),
        pytest.param(where("tier", "In", "low"), False, id="a label that is absent is in nothing"),
        pytest.param(where("fleet", "NotIn", "others"), True, id="by not being among others"),
        pytest.param(where("fleet", "NotIn", "workers"), False, id="not if it is among them"),
        pytest.param(where("tier", "NotIn", "low"), True, id="a label that is absent is not in anything"),
        pytest.param(where("fleet", "Exists"), True, id="by having a label"),
        pytest.param(where("tier", "Exists"), False, id="not without it"),
        pytest.param(where("tier", "DoesNotExist"), True, id="by not having a label"),
        pytest.param(where("fleet", "DoesNotExist"), False, id="not if it has it"),
        pytest.param(
            by_labels(
                matchLabels={"fleet": "workers"}, matchExpressions=[{"key": "fleet", "operator": "DoesNotExist"}]
            ),
            False,
            id="labels and expressions must both hold",
        ),
        pytest.param(by_labels(), False, id="an empty selector names nothing"),
        pytest.param({"kind": "Deployment"}, False, id="nor does a target without name and selector"),
    ],
)
def test_a_workload_is_named(target: dict[str, Any], *, expected: bool) -> None:
    assert parse({"targets": [target]}).matches(workload("a", labels={"fleet": "workers"})) is expected


def test_one_target_of_many_is_enough() -> None:
    asked = parse({"targets": [{"kind": "Deployment", "name": "b"}, WORKERS]})
    assert asked.matches(workload("a"))
    assert asked.matches(workload("b", labels={}))
    assert not asked.matches(workload("c", labels={}))


def test_without_targets_nothing_is_named() -> None:
    assert not parse({}).matches(workload())


# -- the word of a workload's owner ---------------------------------------------------------------------------------


def with_opt(text: str) -> Workload:
    body = {
        "metadata": {
            "namespace": "jobs", "name": "a", "uid": "1", "resourceVersion": "1",
            "labels": {"fleet": "workers"}, "annotations": {OPT: text},
        },
        "spec": {"replicas": 3},
    }  # fmt: skip
    return Workload.of(DEPLOYMENT, body)


@pytest.mark.parametrize("text", ["false", "False", "FALSE", "no", "No", "off", "n", "f", "0", " false ", "\tno\n"])
def test_an_owner_says_no_as_people_write_it(text: str) -> None:
    assert spec().options(with_opt(text)) is None


@pytest.mark.parametrize("text", ["true", "True", "TRUE", "yes", "on", "y", "t", "1", " true"])
def test_an_owner_says_yes_as_people_write_it(text: str) -> None:
    assert spec(targets=[{"kind": "Deployment", "annotated": True}]).options(with_opt(text)) is not None


@pytest.mark.parametrize("text", ["ture", "yess", ""])
def test_a_typo_in_the_word_that_a_target_asks_for_is_told_and_counts_for_no_exclusion(text: str) -> None:
    annotated = {"kind": "Deployment", "annotated": True}
    options = spec(targets=[annotated], exclude=[annotated]).options(with_opt(text))
    assert options is not None
    why = skip(Candidate(with_opt(text), options=options), OWNER, "")
    assert why is not None
    assert why.reason == "PauseUnclear"


@pytest.mark.parametrize("text", ["flase", "nope", "2", "", "  ", "null", "{{ .Values.pause }}"])
def test_what_an_owner_says_and_nobody_can_read_is_told_and_leaves_the_workload_alone(text: str) -> None:
    workload = with_opt(text)
    candidate = Candidate(workload, options=spec().options(workload) or Options())
    why = skip(candidate, OWNER, "")
    assert why is not None
    assert (why.reason, repr(text.strip()[:40]) in why.message) == ("PauseUnclear", bool(text.strip()))
    assert not candidate.stays
