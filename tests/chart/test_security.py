""".github/SECURITY.md: the rights that it lists are those that the chart gives."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.helm import CHART, MINIMAL, Helm

DOCUMENT = Path(__file__).parents[2] / ".github" / "SECURITY.md"
SWITCHED: Mapping[str, Mapping[str, Any]] = {
    "secrets": {"readSecrets": True},
    "customresourcedefinitions": {"kinds": ["rollouts.argoproj.io"]},
    "tokenreviews": {"reporters": {"namespaces": {"workers": []}}},
}
"""What an option brings."""


def told() -> set[tuple[str, str, str]]:
    """Group, resource and verb of each right in the table."""
    rows = re.findall(r"^  \| (\S+) \| (`[^|]+`) \| ([^|]+) \| [^|]+ \|$", DOCUMENT.read_text(), re.MULTILINE)
    return {
        ("" if group == "core" else group.strip("`"), resource, verb)
        for group, resources, verbs in rows
        for resource in re.findall(r"`([^`]+)`", resources)
        for verb in verbs.split(", ")
    }


def given(helm: Helm, values: Mapping[str, Any]) -> set[tuple[str, str, str]]:
    """Those in the chart; what goes with an uninstall is left out."""
    service = {"reporters": values.get("reporters", {})}
    own = {name: value for name, value in values.items() if name != "reporters"}
    text = helm.run("template", "guard", str(CHART), values={**MINIMAL, "operator": own, "healthService": service})
    roles = [each for each in yaml.safe_load_all(text) if each and each["kind"] in {"Role", "ClusterRole"}]
    return {
        (group, resource, verb)
        for role in roles
        if "helm.sh/hook" not in role["metadata"].get("annotations", {})
        # Those for people are in no binding of ours.
        and role["metadata"]["labels"]["app.kubernetes.io/component"] != "crd"
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def test_it_lists_what_the_chart_gives_as_it_is(helm: Helm) -> None:
    assert {right for right in told() if right[1] not in SWITCHED} == given(helm, {})


@pytest.mark.parametrize("resource", SWITCHED)
def test_and_what_an_option_brings(helm: Helm, resource: str) -> None:
    brought = {right for right in given(helm, SWITCHED[resource]) if right[1] == resource}
    assert {right for right in told() if right[1] == resource} == brought != set()
