"""The operator's documentation agrees with the schema and the code."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from openrouter_operator.decisions import events, targets, workload_events
from openrouter_operator.resource.spec import parse
from openrouter_operator.workloads.kinds import BY_NAME, DEFAULT
from tests.operator.test_tools import TOOLS

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "operator.md").read_text()
CRD = yaml.safe_load((ROOT / "crds" / "openrouterstatuses.yaml").read_text())
SCHEMA = CRD["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
EXAMPLES = sorted((ROOT / "docs" / "examples").glob("*.yaml"))


@pytest.mark.parametrize("part", ["spec", "status"])
def test_every_field_is_in_the_documentation(part: str) -> None:
    missing = {name for name in SCHEMA[part]["properties"] if not re.search(rf"`{name}\b", DOCUMENT)}
    assert missing <= {"observedGeneration"}


def test_every_field_of_the_schema_says_what_it_is() -> None:
    assert not list(undescribed(SCHEMA["spec"], "spec"))


def undescribed(schema: dict[str, Any], path: str) -> Any:
    """Fields without a description, and times without their unit."""
    for name, field in schema.get("properties", {}).items():
        where, said = f"{path}.{name}", field.get("description", "")
        if not said or (name.endswith("Seconds") and "econds" not in said):
            yield where
        yield from undescribed(field, where)
        yield from undescribed(field.get("items", {}), f"{where}[]")


def test_every_reason_to_leave_a_workload_alone_is_in_the_documentation() -> None:
    source = Path(targets.__file__).read_text()
    told = set(re.findall(r'Skip\(\s*"(\w+)",', source))
    assert len(told) > 8
    assert {reason for reason in told if f"`{reason}`" not in DOCUMENT} == set()


def test_every_event_is_in_the_documentation() -> None:
    source = Path(events.__file__).read_text() + Path(workload_events.__file__).read_text()
    told = set(re.findall(r'Event\("\w+", "(\w+)"', source))
    assert told >= {"BreakerOpened", "Resuming", "StateKnown", "LetGo"}
    assert {reason for reason in told if f"`{reason}`" not in DOCUMENT} == set()


def test_the_tools_in_the_documentation_are_those_that_are_tried() -> None:
    (table,) = re.findall(r"\| tool \|.*\n\|[- |]+\n((?:\|.*\n)+)", DOCUMENT)
    assert [row.split("`")[1] for row in table.splitlines()] == list(TOOLS)


def test_the_section_that_the_chart_points_to_is_there() -> None:
    notes = (ROOT / "charts/openrouter-guard/templates/NOTES.txt").read_text()
    (heading,) = re.findall(r'\(docs/operator\.md, "(.+)"\)', notes)
    assert f"\n## {heading}\n" in DOCUMENT


def test_every_kind_is_in_the_documentation_and_the_default_is_true() -> None:
    assert all(name in DOCUMENT for name in BY_NAME)
    assert f"{', '.join(DEFAULT[:-1])} and {DEFAULT[-1]}" in " ".join(DOCUMENT.split())


def resources() -> list[Any]:
    found = [body for path in EXAMPLES for body in yaml.safe_load_all(path.read_text())]
    return [body for body in found if body["kind"] == "OpenRouterStatus"]


def test_the_examples_can_be_carried_out() -> None:
    assert len(resources()) > 1
    for body in resources():
        assert parse(body["spec"]).targets


@pytest.mark.cluster
@pytest.mark.usefixtures("crd")
def test_the_api_server_takes_the_examples(control_plane: Any) -> None:
    for body in resources():
        control_plane.kubectl("create", "--dry-run=server", "--filename=-", input=yaml.safe_dump(body))


def test_the_crd_and_the_chart_list_every_kind_that_needs_no_crd() -> None:
    text = " ".join((ROOT / "crds" / "openrouterstatuses.yaml").read_text().split())
    known = list(BY_NAME)
    rules = re.findall(r"self\.kind in \[([^\]]*)\]", text)
    assert [re.findall(r"\w+", rule) for rule in rules] == [known, known]
    assert text.count(f"is none of {', '.join(known)}: write it as one of these") == 2
    values = json.loads((ROOT / "charts" / "openrouter-guard" / "values.schema.json").read_text())
    named, _ = values["properties"]["operator"]["properties"]["kinds"]["items"]["anyOf"]
    assert named["enum"] == known
