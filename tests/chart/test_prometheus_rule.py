"""The alerts as a PrometheusRule."""

from __future__ import annotations

from typing import Any

import pytest

from tests.alerts.programs import alerts
from tests.chart.helm import MINIMAL, Helm, HelmFailed, Manifest
from tests.chart.test_manifests import HEALTH_SERVICE
from tests.chart.test_values import SCHEMA


def rendered(helm: Helm, *, others: dict[str, Any] | None = None, **values: Any) -> list[Manifest]:
    manifests = helm.render({**MINIMAL, **(others or {}), "prometheusRule": {"enabled": True, **values}})
    return manifests.all("PrometheusRule")


def rules(manifest: Manifest) -> dict[str, Any]:
    return {rule["alert"]: rule for group in manifest["spec"]["groups"] for rule in group["rules"]}


def test_it_has_the_alerts_as_they_are(helm: Helm) -> None:
    (rule,) = rendered(helm, labels={"release": "prometheus"}, annotations={"team": "a"}, namespace="monitoring")
    assert rule["metadata"]["name"] == HEALTH_SERVICE
    assert rule["metadata"]["namespace"] == "monitoring"
    assert rule["metadata"]["labels"]["release"] == "prometheus"
    assert rule["metadata"]["annotations"] == {"team": "a"}
    assert rules(rule) == alerts()


def test_without_it_there_is_none(helm: Helm) -> None:
    assert helm.render(MINIMAL).all("PrometheusRule") == []


def test_a_rule_can_be_left_out_by_its_name(helm: Helm) -> None:
    (rule,) = rendered(helm, disabled=["OpenRouterGuardCreditLow"])
    assert alerts().keys() - rules(rule).keys() == {"OpenRouterGuardCreditLow"}


def test_a_name_that_no_rule_has_is_refused(helm: Helm) -> None:
    with pytest.raises(HelmFailed, match="disabled"):
        rendered(helm, disabled=["OpenRouterGuardCreditLaw"])
    assert SCHEMA["properties"]["prometheusRule"]["properties"]["disabled"]["items"]["enum"] == list(alerts())


@pytest.mark.parametrize("base", ["https://git.example/guard/blob/main", "https://git.example/guard/blob/main/"])
def test_the_runbooks_are_below_the_base(helm: Helm, base: str) -> None:
    (rule,) = rendered(helm, runbookBaseUrl=base)
    for name, found in rules(rule).items():
        assert found["annotations"]["runbook_url"] == f"https://git.example/guard/blob/main/docs/runbooks/{name}.md"


@pytest.mark.parametrize(("part", "left"), [("operator", "service"), ("healthService", "operator")])
def test_a_part_that_is_not_installed_has_no_alerts(helm: Helm, part: str, left: str) -> None:
    (rule,) = rendered(helm, others={part: {"enabled": False}})
    assert [group["name"] for group in rule["spec"]["groups"]] == [f"openrouter-guard.{left}"]


def test_when_all_are_left_out_there_is_none(helm: Helm) -> None:
    assert rendered(helm, disabled=list(alerts())) == []
