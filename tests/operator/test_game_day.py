"""A game day with a real Prometheus: an outage, its alert, the commands of the runbook, and the recovery."""

from __future__ import annotations

import re
import shlex
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from openrouter_guard import Guard, OpenRouterGuardError
from openrouter_guard.httpx import GuardedTransport
from openrouter_guard.settings import Settings
from openrouter_guard.testing import SimulatedOpenRouter, running
from tests.alerts.dashboards import queries
from tests.alerts.programs import RUNBOOKS
from tests.alerts.prometheus import Prometheus, prometheus
from tests.cli.commands import run, serving_on
from tests.controlplane import ControlPlane
from tests.operator.conftest import Fleet
from tests.ports import free_port
from tests.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

ALERT = "BreakerOpen"
LONG = {"OPENROUTER_GUARD_FIRST_WAIT_SECONDS": "15"}
"""The breaker waits for so long between trial calls: a person can know sooner that OpenRouter is well again."""
KEY = "sk-or-1"
HEADERS = {"Authorization": f"Bearer {KEY}"}
REQUEST = {"model": "m/one", "messages": [{"role": "user", "content": "Why?"}]}
OF_A_PAUSE = {"Paused workloads", "Paused pods"}
OF_TROUBLE = {"Resources that are not well"}
"""Panels without data while all is well."""
_COMMAND = re.compile(r"^\$ openrouter-guard (.*)$", re.MULTILINE)


class Runbook:
    """The commands of an alert's page, and their output."""

    def __init__(self, alert: str, namespace: str, **environ: str) -> None:
        self._page = (RUNBOOKS / f"OpenRouterGuard{alert}.md").read_text().replace("team-a", namespace)
        self._environ = environ

    def diagnose(self) -> str:
        """Run each command of the diagnosis; return what a person then reads."""
        return "\n".join(map(self._run, self._commands("Diagnosis")))

    def mitigate(self) -> Iterator[str]:
        """Run the commands of the mitigation, one at a time."""
        return map(self._run, self._commands("Mitigation"))

    def _commands(self, heading: str) -> list[str]:
        section = self._page.partition(f"## {heading}")[2].partition("\n## ")[0]
        found: list[str] = _COMMAND.findall(section)
        assert found, f"no commands under {heading}"
        return found

    def _run(self, command: str) -> str:
        done = run(*shlex.split(command), **self._environ)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout


@contextmanager
def working(base_url: str, environ: dict[str, str]) -> Iterator[None]:
    """A worker that calls all the time, as docs/worker.md shows it."""
    is_over = threading.Event()
    with (
        Guard(Settings.from_env(environ)) as guard,
        httpx.Client(base_url=base_url, headers=HEADERS, transport=GuardedTransport(guard), timeout=5) as client,
    ):

        def work() -> None:
            while not is_over.wait(0.1):
                with suppress(httpx.HTTPError, OpenRouterGuardError):
                    client.post("/chat/completions", json=REQUEST)

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield
        finally:
            is_over.set()
            thread.join()


def environment(redis_url: str, base_url: str) -> dict[str, str]:
    return LONG | {"REDIS_URL": redis_url, "OPENROUTER_BASE_URL": base_url, "OPENROUTER_API_KEY": KEY}


def is_firing(watcher: Prometheus, alert: str) -> bool:
    return alert in watcher.firing()


def without_data(watcher: Prometheus) -> set[str]:
    """The panels of the operator's dashboard whose queries return nothing."""
    return {query.panel for query in queries("operator") if not watcher.query(query.expression)}


def test_from_the_outage_over_the_runbook_to_the_recovery(
    fleet: Fleet, start: Any, control_plane: ControlPlane, redis_url: str, tmp_path: Path
) -> None:
    service, operator = free_port(), free_port()
    simulated = SimulatedOpenRouter()
    fleet.deploy(chat=3)
    with (
        running(simulated) as base_url,
        prometheus(tmp_path, [f"127.0.0.1:{service}", f"127.0.0.1:{operator}"]) as watcher,
        serving_on(service, tmp_path / "service.log", environment(redis_url, base_url)),
        working(base_url, environment(redis_url, base_url)),
    ):
        start(OPENROUTER_GUARD_OPERATOR_PORT=str(operator))
        fleet.watch()
        until(lambda: not watcher.firing() and watcher.query("openrouter_guard_operator_leader == 1"))

        simulated.switch("outage")
        fleet.fail()  # the other worker meets it too
        until(lambda: is_firing(watcher, ALERT))
        fleet.until_replicas(chat=0)
        until(lambda: not OF_A_PAUSE & without_data(watcher))

        runbook = Runbook(ALERT, fleet.namespace, REDIS_URL=redis_url, KUBECONFIG=str(control_plane.kubeconfig))
        read = runbook.diagnose()
        assert "Service unavailable" in read, "the words of OpenRouter"
        assert "service_unavailable" in read, "the reason"
        assert "by worker-" in read, "who opened it"
        assert "BreakerOpen" in read, "why the workload is paused"

        simulated.switch("healthy")
        let_calls_go = runbook.mitigate()
        next(let_calls_go)
        fleet.until_replicas(chat=3)
        until(lambda: not is_firing(watcher, ALERT))
        until(lambda: without_data(watcher) <= OF_A_PAUSE | OF_TROUBLE)
        next(let_calls_go)  # and leave the breaker to itself again
        until(lambda: watcher.query('openrouter_guard_breaker_state{state="closed"} == 1'))
        until(lambda: not is_firing(watcher, ALERT))
        fleet.until_replicas(chat=3)
