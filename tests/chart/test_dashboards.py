"""The dashboards as ConfigMaps that Grafana's sidecar finds."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.alerts.dashboards import DASHBOARDS, dashboard
from tests.chart.helm import MINIMAL, Helm, Manifest


def rendered(helm: Helm, *, others: dict[str, Any] | None = None, **values: Any) -> dict[str, Manifest]:
    """The ConfigMaps by the dashboard in them."""
    manifests = helm.render({**MINIMAL, **(others or {}), "dashboards": {"enabled": True, **values}})
    found = [each for each in manifests.all("ConfigMap") if "-dashboard-" in each["metadata"]["name"]]
    return {each["metadata"]["name"].rpartition("-")[2]: each for each in found}


def test_they_are_as_they_are_in_the_files(helm: Helm) -> None:
    found = rendered(helm, annotations={"grafana_folder": "OpenRouter"}, namespace="monitoring")
    assert found.keys() == set(DASHBOARDS)
    for name, manifest in found.items():
        assert manifest["metadata"]["namespace"] == "monitoring"
        assert manifest["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert manifest["metadata"]["annotations"] == {"grafana_folder": "OpenRouter"}
        assert json.loads(manifest["data"][f"openrouter-guard-{name}.json"]) == dashboard(name)


def test_another_label_can_be_asked_for(helm: Helm) -> None:
    labels = rendered(helm, labels={"grafana_dashboard": None, "boards": "ours"})["fleet"]["metadata"]["labels"]
    assert labels["boards"] == "ours"
    assert "grafana_dashboard" not in labels


def test_without_them_there_are_none(helm: Helm) -> None:
    names = [each["metadata"]["name"] for each in helm.render(MINIMAL).all("ConfigMap")]
    assert not any("dashboard" in name for name in names)


@pytest.mark.parametrize(("part", "left"), [("operator", "fleet"), ("healthService", "operator")])
def test_a_part_that_is_not_installed_has_none(helm: Helm, part: str, left: str) -> None:
    assert rendered(helm, others={part: {"enabled": False}}).keys() == {left}
