"""The panels of the two dashboards, and their queries as Grafana would send them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["DASHBOARDS", "FOLDER", "Query", "dashboard", "queries"]

FOLDER = Path(__file__).parents[2] / "charts" / "openrouter-guard" / "files" / "dashboards"
DASHBOARDS = ("fleet", "operator")
_VARIABLES = {"$scope": "default", "$__rate_interval": "10s"}


class Query(NamedTuple):
    """One query, and the title of the panel that it is for."""

    panel: str
    expression: str


def dashboard(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return found


def queries(name: str) -> Iterator[Query]:
    """Yield the queries of all panels, with values in place of the variables."""
    for panel in dashboard(name)["panels"]:
        for target in panel.get("targets", ()):
            expression = target["expr"]
            for variable, value in _VARIABLES.items():
                expression = expression.replace(variable, value)
            yield Query(panel["title"], expression)
