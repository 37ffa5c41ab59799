"""A node with the chart installed on it and a fleet of workers, as a platform team would have them."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.chart.helm import CHART
from tests.controlplane import ControlPlaneUnavailable, helm, kubectl
from tests.waiting import until

from . import Node
from .manifests import (
    GUARD,
    TEAM,
    UPSTREAM,
    VALUES,
    api_key,
    namespaces,
    openrouter_status,
    simulated_openrouter,
    workers,
)

_IS_REQUIRED = os.environ.get("TESTS_REQUIRE_PODS") == "1"
_PATIENCE_S = 180.0
_TIMES = pytest.StashKey[dict[str, float]]()


@dataclass(frozen=True, slots=True)
class Fleet:
    """The workers, the guard, and the upstream that they call."""

    node: Node
    times: dict[str, float]
    """How many seconds what took; printed at the end of the run."""

    def switch(self, mode: str) -> float:
        """Let the upstream be ``healthy``, in ``outage`` and so on; returns when, as of the monotonic clock."""
        self._upstream("PUT", {"mode": mode})
        return time.monotonic()

    def calls(self) -> int:
        """Return how many calls the upstream got so far; each of them is served while it is healthy."""
        calls: int = self._upstream("GET")["requests"].get("/chat/completions", 0)
        return calls

    def pods(self, namespace: str = TEAM) -> list[Any]:
        """Return the pods of Deployments and StatefulSets that are there, also those that end."""
        pods = self.node.get("pods", f"--namespace={namespace}")["items"]
        owned = [pod for pod in pods if pod["metadata"].get("ownerReferences")]
        return [pod for pod in owned if pod["metadata"]["ownerReferences"][0]["kind"] != "Job"]

    def ready(self) -> int:
        """Return how many of the workers' pods are ready and are to stay."""
        return sum(
            condition["type"] == "Ready" and condition["status"] == "True"
            for pod in self.pods()
            if "deletionTimestamp" not in pod["metadata"]
            for condition in pod["status"].get("conditions", ())
        )

    def state(self) -> str:
        """Return the line of ``kubectl get openrouterstatus``."""
        return self.node.kubectl("get", "openrouterstatus", "default", f"--namespace={TEAM}", "--no-headers").strip()

    def until(self, holds: Callable[[], bool]) -> float:
        """Wait, and return when it held, as of the monotonic clock.

        Raises:
            AssertionError: If it does not in three minutes; says how the cluster looks.
        """
        try:
            until(holds, seconds=_PATIENCE_S)
        except AssertionError as late:
            raise AssertionError(f"{late}\n{self._looks()}") from None
        return time.monotonic()

    def _looks(self) -> str:
        everywhere = ("get", "openrouterstatus,deployments,statefulsets,cronjobs,pods", "--all-namespaces")
        logs = ("logs", f"--namespace={GUARD}", "--selector=app.kubernetes.io/component=operator", "--tail=30")
        return "\n".join(self.node.run(str(kubectl()), *words).stdout for words in (everywhere, logs))

    def helm(self, *words: str, values: Any = None) -> str:
        """Return what Helm prints."""
        given = ["--values=-"] if values is not None else []
        done = self.node.run(str(helm()), *words, f"--namespace={GUARD}", *given, stdin=json.dumps(values or {}))
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    def upgrade(self, **values: Any) -> None:
        """Upgrade the release, with these values instead of those it was installed with."""
        words = ["upgrade", "openrouter-guard", str(CHART), "--wait", "--timeout=120s"]
        self.helm(*words, values={**VALUES, **values})

    def _upstream(self, method: str, body: Any = None) -> Any:
        data = ["--json", json.dumps(body)] if body else []
        service = self.node.get("service", "openrouter", f"--namespace={UPSTREAM}")
        url = f"http://{service['spec']['clusterIP']}/simulate"
        # Its pod is not ready for a moment if the machine is busy, and is not reached then.
        patience = ("--retry", "60", "--retry-delay", "1", "--retry-connrefused")
        done = self.node.run("curl", "--silent", "--fail", *patience, "--request", method, *data, url)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture(scope="session")
def node(pytestconfig: pytest.Config) -> Iterator[Node]:
    """A node of its own for all tests here; without one the tests are skipped, with the reason."""
    times = pytestconfig.stash[_TIMES] = {}
    began = time.monotonic()
    try:
        with Node() as node:
            times["image, control plane and node"] = time.monotonic() - began
            yield node
    except ControlPlaneUnavailable as missing:
        if _IS_REQUIRED:
            pytest.fail(str(missing))
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def installed(node: Node, pytestconfig: pytest.Config) -> Fleet:
    """The chart, the simulated upstream and the workers, installed once."""
    fleet = Fleet(node, pytestconfig.stash[_TIMES])
    apply = [*namespaces(), api_key(), *simulated_openrouter()]
    node.kubectl("apply", "--filename=-", stdin=_as_list(apply))
    began = time.monotonic()
    fleet.helm("install", "openrouter-guard", str(CHART), "--wait", "--timeout=180s", values=VALUES)
    fleet.times["helm install --wait"] = time.monotonic() - began
    node.kubectl("apply", "--filename=-", stdin=_as_list([*workers(), openrouter_status()]))
    return fleet


@pytest.fixture
def fleet(installed: Fleet) -> Fleet:
    """A healthy upstream, and every worker at work."""
    installed.switch("healthy")
    installed.until(lambda: installed.ready() == 6 and " closed " in installed.state())
    return installed


def _as_list(manifests: list[dict[str, Any]]) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests})


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print what the tests timed. It fails none of them, since it says how busy the machine is too."""
    if times := config.stash.get(_TIMES, {}):
        terminalreporter.section("times on the node")
        for name, seconds in times.items():
            terminalreporter.write_line(f"{name:<50} {seconds:6.1f} s")
