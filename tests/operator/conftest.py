"""A namespace with worker Deployments, and operators as separate processes, as in production."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from openrouter_guard import CallNotPermitted, Guard, OpenRouterStateManager, Settings
from openrouter_guard.rules.breaker import BreakerState, Policy
from tests.chart.helm import wait_for_crd
from tests.controlplane import ControlPlane
from tests.operator.proxy import Proxy, SyncProxy
from tests.operator.samples import Clock
from tests.waiting import until

CRDS = Path(__file__).parents[2] / "crds"
KIND = "openrouterstatuses.openrouter-guard.io"
RESET_S = 2.0
"""How long the breaker stays open in these tests at first."""
LEASE_S = 4
"""Whoever follows one that was killed waits for so long; a busy machine needs a part of it to renew one."""


class Operator:
    """One operator process; *environ* adds to what every one of them gets.

    Args:
        prelude: Python that shortens what no setting does, before the operator starts.
    """

    def __init__(self, environ: dict[str, str], log: Path, prelude: str = "") -> None:
        self.log = log
        self._prelude = prelude
        self._environ = {**os.environ, **environ}
        self._process = self._start()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def freeze(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def restart(self) -> None:
        self.kill()
        self._process = self._start()

    def stop(self) -> int:
        """Ask it to end; returns its exit status."""
        self.thaw()
        self._process.terminate()
        try:
            return self._process.wait(15)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def said(self) -> str:
        return self.log.read_text()

    def _start(self) -> subprocess.Popen[bytes]:
        code = f"import runpy\n{self._prelude}\nrunpy.run_module('openrouter_guard', run_name='__main__')"
        program = ["-c", code] if self._prelude else ["-m", "openrouter_guard"]
        command = [sys.executable, *program, "operate"]
        with self.log.open("ab") as log:
            return subprocess.Popen(command, env=self._environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


class Fleet:
    """The Deployments and resources of one namespace, and the workers' view of the upstream."""

    def __init__(self, control_plane: ControlPlane, namespace: str, redis_url: str) -> None:
        self.namespace = namespace
        self._control_plane = control_plane
        self._redis_url = redis_url
        self._guard = Guard(Settings(redis_url, policy=Policy(reset_timeout_s=RESET_S), redis_timeout_s=0.5))

    def close(self) -> None:
        self._guard.close()

    # -- Kubernetes -------------------------------------------------------------------------------------------

    def kubectl(self, *words: str, stdin: str | None = None) -> str:
        return self._control_plane.kubectl(*words, f"--namespace={self.namespace}", input=stdin)

    def apply(self, *objects: dict[str, Any]) -> None:
        self.kubectl(
            "apply", "--filename=-", stdin=json.dumps({"kind": "List", "apiVersion": "v1", "items": objects})
        )

    def deploy(self, **replicas: int) -> None:
        """Worker Deployments by name, all with the label ``fleet: workers``."""
        self.apply(*(deployment(name, count) for name, count in replicas.items()))

    def watch(self, *, name: str = "default", targets: list[dict[str, Any]] | None = None, **spec: Any) -> None:
        """Apply an OpenRouterStatus that pauses every worker at once, unless *spec* says otherwise.

        Returns once the operator has taken it up.
        """
        workers = {"kind": "Deployment", "selector": {"matchLabels": {"fleet": "workers"}}}
        quick = {"pauseAfterSeconds": 0, "minPausedSeconds": 0, "resume": {"strategy": "Immediate"}}
        self.apply(resource(name, **(quick | {"targets": targets or [workers]} | spec)))
        until(lambda: self._is_taken_up(name))

    def _is_taken_up(self, name: str) -> bool:
        found = json.loads(self.kubectl("get", KIND, name, "--output=json"))
        seen = (found.get("status") or {}).get("observedGeneration")
        return bool(seen == found["metadata"]["generation"])

    def unwatch(self, name: str = "default", *words: str) -> None:
        self.kubectl("delete", KIND, name, *words)

    def scale(self, name: str, replicas: int) -> None:
        self.kubectl("scale", f"deployment/{name}", f"--replicas={replicas}")

    def deployments(self) -> dict[str, dict[str, Any]]:
        found = json.loads(self.kubectl("get", "deployments", "--output=json"))["items"]
        return {item["metadata"]["name"]: item for item in found}

    def replicas(self) -> dict[str, int]:
        return {name: item["spec"]["replicas"] for name, item in self.deployments().items()}

    def status(self, name: str = "default") -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.kubectl("get", KIND, name, "--output=json"))
        return found.get("status") or {}

    def condition(self, kind: str, name: str = "default") -> str:
        """Status and reason of a condition, as in ``True BreakerOpen``; empty while there is none."""
        found = (c for c in self.status(name).get("conditions") or () if c["type"] == kind)
        return next((f"{c['status']} {c['reason']}" for c in found), "")

    def until_replicas(self, **expected: int) -> None:
        until(lambda: self.replicas() == expected)

    def until_condition(self, kind: str, expected: str, *, name: str = "default") -> None:
        until(lambda: self.condition(kind, name).startswith(expected))

    # -- the upstream -----------------------------------------------------------------------------------------

    def succeed(self) -> None:
        """One call that ends well; while half-open it is the trial call that closes the breaker."""

        def goes_through() -> bool:
            with suppress(CallNotPermitted), self._guard.call():
                return True
            return False

        until(goes_through)
        self._guard.flush()

    def fail(self, times: int = 5) -> None:
        for _ in range(times):
            with suppress(TimeoutError, CallNotPermitted), self._guard.call():
                raise TimeoutError("upstream took too long")
        self._guard.flush()

    def force(self, kind: str) -> None:
        """Decide over the breaker's head for an hour: ``forced_open`` or ``forced_closed``."""

        async def override() -> None:
            manager = OpenRouterStateManager(self._redis_url)
            await manager.set_override(kind, who="a test", why="it is to last", for_s=3600)
            await manager.close()

        asyncio.run(override())

    def until_phase(self, phase: BreakerState) -> None:
        until(lambda: self._guard.state.phase is phase)


def deployment(name: str, replicas: int, **labels: str) -> dict[str, Any]:
    pod = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "worker", "image": "worker"}]}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": {"fleet": "workers"} | labels},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": pod},
    }


def resource(name: str = "default", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "openrouter-guard.io/v1alpha1",
        "kind": "OpenRouterStatus",
        "metadata": {"name": name},
        "spec": spec,
    }


@pytest.fixture(scope="session")
def crd(control_plane: ControlPlane) -> None:
    control_plane.apply(CRDS)
    wait_for_crd(control_plane)


@pytest.fixture
def fleet(control_plane: ControlPlane, crd: None, namespace: str, redis_url: str) -> Iterator[Fleet]:
    fleet = Fleet(control_plane, namespace, redis_url)
    fleet.succeed()
    yield fleet
    with suppress(Exception):
        # The namespace goes with whatever is in it; a finalizer whose operator is gone would hold it back.
        for item in json.loads(fleet.kubectl("get", KIND, "--output=json"))["items"]:
            patch = '{"metadata": {"finalizers": null}}'
            fleet.kubectl("patch", KIND, item["metadata"]["name"], "--type=merge", f"--patch={patch}")
    fleet.close()


@pytest.fixture
def proxy(control_plane: ControlPlane, tmp_path: Path) -> Iterator[Proxy]:
    """A way to the API server, for an operator that is given its kubeconfig."""
    with SyncProxy(Proxy(control_plane, tmp_path / "proxy.kubeconfig")) as proxy:
        yield proxy


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def start(fleet: Fleet, control_plane: ControlPlane, redis_url: str, tmp_path: Path) -> Iterator[Any]:
    """Starts operators that look after the namespace alone, with a Lease of their own."""
    running: list[Operator] = []

    def start(kubeconfig: Path | None = None, prelude: str = "", **environ: str) -> Operator:
        ours = {
            "KUBECONFIG": str(kubeconfig or control_plane.kubeconfig),
            "REDIS_URL": redis_url,
            "OPENROUTER_GUARD_NAMESPACES": fleet.namespace,
            "OPENROUTER_GUARD_LEASE_NAMESPACE": fleet.namespace,
            "OPENROUTER_GUARD_LEASE_SECONDS": str(LEASE_S),
            "OPENROUTER_GUARD_OPERATOR_PORT": "0",
            "OPENROUTER_GUARD_RESET_TIMEOUT_SECONDS": str(RESET_S),
            "OPENROUTER_GUARD_REDIS_TIMEOUT_SECONDS": "0.5",
        }
        operator = Operator(ours | environ, tmp_path / f"operator-{len(running)}.log", prelude)
        running.append(operator)
        return operator

    with ExitStack() as stack:
        stack.callback(lambda: [operator.stop() for operator in running if not operator.has_ended])
        yield start
    for operator in running:
        assert "Traceback" not in operator.said(), operator.said()


@pytest.fixture
def operator(start: Any) -> Operator:
    started: Operator = start()
    return started
