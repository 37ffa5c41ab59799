"""A real Prometheus with the real rules, with shorter times to fire."""

from __future__ import annotations

import json
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.alerts.programs import RULES, find
from tests.ports import free_port
from tests.waiting import until

__all__ = ["Prometheus", "prometheus"]

FOR = "2s"
"""In place of the minutes that an alert waits."""


class Prometheus:
    """The HTTP API of a running one."""

    def __init__(self, url: str) -> None:
        self._url = url

    def ask(self, path: str, **parameters: str) -> Any:
        """Return the data of an answer; None while it does not answer."""
        query = urllib.parse.urlencode(parameters)
        try:
            with urllib.request.urlopen(f"{self._url}/api/v1/{path}?{query}", timeout=10) as answer:
                return json.load(answer)["data"]
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return None

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the series of an expression, now."""
        series: list[dict[str, Any]] = (self.ask("query", query=expression) or {}).get("result", [])
        return series

    def firing(self) -> dict[str, dict[str, Any]]:
        """Return the firing alerts by their names, without what all begin with."""
        found = (self.ask("alerts") or {}).get("alerts", [])
        return {
            alert["labels"]["alertname"].removeprefix("OpenRouterGuard"): alert
            for alert in found
            if alert["state"] == "firing"
        }


@contextmanager
def prometheus(folder: Path, targets: Sequence[str]) -> Iterator[Prometheus]:
    """Scrape these addresses each second, and evaluate the rules as often."""
    rules = yaml.safe_load(RULES.read_text())
    for group in rules["groups"]:
        for rule in group["rules"]:
            if "for" in rule:
                rule["for"] = FOR
    (folder / "alerts.yaml").write_text(yaml.safe_dump(rules))
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(folder / "alerts.yaml")],
        "scrape_configs": [{"job_name": "guard", "static_configs": [{"targets": list(targets)}]}],
    }
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    port = free_port()
    command = [
        find("prometheus"),
        f"--config.file={folder / 'prometheus.yaml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    found = Prometheus(f"http://127.0.0.1:{port}")
    try:
        until(lambda: process.poll() is not None or found.ask("alerts") is not None)
        assert process.poll() is None, (folder / "prometheus.log").read_text()
        yield found
    finally:
        process.terminate()
        process.wait(20)
