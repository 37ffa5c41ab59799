"""The dashboards query metrics and labels that exist, in expressions that Prometheus can parse."""

from __future__ import annotations

import re
import subprocess
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.alerts.dashboards import DASHBOARDS, Query, dashboard, queries
from tests.alerts.programs import find
from tests.alerts.reference import names

QUERIES = [query for name in DASHBOARDS for query in queries(name)]
OF_PROMETHEUS = {"namespace", "exported_namespace", "instance", "le"}
_METRIC = re.compile(r"\bopenrouter_guard_\w+")
_LABELS = re.compile(r"\b(?:by|on|group_left) \(([^)]*)\)|\{([^}]*)\}")
EACH_DASHBOARD = pytest.mark.parametrize("name", DASHBOARDS)


def known() -> dict[str, set[str]]:
    """The labels of each metric; those of a histogram have no name of their own in the reference."""
    found: dict[str, set[str]] = {}
    for name in names():
        metric, _, labels = name.partition("{")
        found[metric] = set(filter(None, labels.rstrip("}").split(",")))
    return found | {f"{metric}_bucket": labels for metric, labels in found.items()}


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.panel)
def test_each_metric_and_each_label_of_a_query_exists(query: Query) -> None:
    metrics, labels = known(), set(OF_PROMETHEUS)
    asked = set(_METRIC.findall(query.expression))
    assert asked <= metrics.keys()
    for metric in asked:
        labels |= metrics[metric]
    for grouped, selected in _LABELS.findall(query.expression):
        used = {part.strip() for part in grouped.split(",") if part}
        used |= set(re.findall(r"(\w+)\s*[=!]", selected))
        assert used <= labels


@EACH_DASHBOARD
def test_prometheus_understands_its_queries(name: str, tmp_path: Path) -> None:
    rules = [{"record": "a:panel", "expr": query.expression} for query in queries(name)]
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": name, "rules": rules}]}))
    done = subprocess.run(
        [find("promtool"), "check", "rules", "--lint=none", str(file)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(rules)} rules found" in done.stdout


@EACH_DASHBOARD
def test_its_panels_have_room_a_title_and_an_explanation(name: str) -> None:
    panels = dashboard(name)["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for one, other in combinations(panels, 2):
        assert not overlap(one["gridPos"], other["gridPos"]), f"{one['title']} and {other['title']}"
    for panel in panels:
        assert panel["title"]
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
        assert panel["type"] == "row" or panel["description"].endswith(".")


def overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    return all(
        one[start] < other[start] + other[size] and other[start] < one[start] + one[size]
        for start, size in (("x", "w"), ("y", "h"))
    )


@EACH_DASHBOARD
def test_it_asks_the_prometheus_that_a_person_chooses(name: str) -> None:
    found = dashboard(name)
    assert [variable["name"] for variable in variables(found) if variable["type"] == "datasource"] == ["datasource"]
    sources = [target["datasource"] for panel in found["panels"] for target in panel.get("targets", ())]
    assert all(source == {"type": "prometheus", "uid": "${datasource}"} for source in sources)


def variables(found: dict[str, Any]) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = found["templating"]["list"]
    return listed
