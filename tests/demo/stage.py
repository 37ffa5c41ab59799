"""The processes of the demo: start, wait for, and stop them."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx

from openrouter_guard.devtools.embedded import embedded_valkey
from tests.controlplane import ControlPlane, KubectlFailed
from tests.controlplane.processes import Process, free_port

from .errors import DemoFailed

__all__ = ["Stage", "running"]

RESET_S = "6"
"""How long the breaker stays open before a trial call: two minutes in real life."""
_TRY_S = 1
_POLL_S = 0.1
_ANSWER_S = 5.0
_LEFT_OUT = ("OPENROUTER", "REDIS", "KUBE", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
"""Variables of the user that begin so have no part in this: all is here, and nothing is reached through a proxy."""


class Stage:
    """The control plane and the programs around it.

    Attributes:
        control_plane: Where the operator works.
    """

    def __init__(self, control_plane: ControlPlane, cleanup: ExitStack) -> None:
        self.control_plane = control_plane
        self._cleanup = cleanup
        self._programs: dict[str, Process] = {}
        self._simulator = f"http://127.0.0.1:{free_port()}"
        self._service = f"http://127.0.0.1:{free_port()}"

    # -- starting -----------------------------------------------------------------------------------------------

    def start_state_and_workers(self) -> None:
        """Start Valkey, the simulated OpenRouter, the workers and the health service."""
        redis_url = self._cleanup.enter_context(embedded_valkey())
        self._cleanup.enter_context(_environment(self._settings(redis_url)))
        self._start("simulator", "openrouter_guard", "simulate", f"--port={_port(self._simulator)}")
        self._start("workers", "openrouter_guard.testing.fleet")
        self._start("service", "openrouter_guard", "serve", f"--port={_port(self._service)}")
        self.expect("the health service answers", lambda: self.health()["status"] == "active")

    def start_operator(self) -> None:
        self._start("operator", "openrouter_guard", "operate")

    def _settings(self, redis_url: str) -> Mapping[str, str]:
        return {
            "REDIS_URL": redis_url,
            "OPENROUTER_API_KEY": "sk-or-simulated",
            "OPENROUTER_BASE_URL": f"{self._simulator}/api/v1",
            "OPENROUTER_GUARD_RESET_TIMEOUT_SECONDS": RESET_S,
            "OPENROUTER_GUARD_MAX_RESET_TIMEOUT_SECONDS": RESET_S,
            "OPENROUTER_GUARD_OPERATOR_PORT": "0",
            "PYTHONUNBUFFERED": "1",
            "KUBECONFIG": str(self.control_plane.kubeconfig),
            "KUBERC": "off",
            "KUBECACHEDIR": str(self.control_plane.workdir / "kubectl-cache"),
        }

    def _start(self, name: str, *words: str) -> None:
        folder = self.control_plane.workdir / name
        folder.mkdir()
        program = Process(Path(sys.executable), ["-m", *words], folder)
        self._cleanup.callback(program.stop)
        self._programs[name] = program

    # -- using --------------------------------------------------------------------------------------------------

    def simulate(self, mode: str, **more: float) -> None:
        """Let the simulated OpenRouter behave otherwise."""
        httpx.put(f"{self._simulator}/simulate", json={"mode": mode, **more}).raise_for_status()

    def health(self) -> dict[str, Any]:
        """What the health service says."""
        answer = httpx.get(f"{self._service}/api/v1/openrouter/status", timeout=_ANSWER_S)
        return dict(answer.raise_for_status().json())

    # -- waiting ------------------------------------------------------------------------------------------------

    def await_cluster(self, what: str, *words: str, seconds: float = 20.0) -> None:
        """Let ``kubectl wait`` with these words come true.

        Raises:
            DemoFailed: If it does not.
        """

        def comes_true() -> bool:
            try:
                self.control_plane.kubectl("wait", *words, f"--timeout={_TRY_S}s")
            except KubectlFailed:  # not yet, or nothing there yet
                return False
            return True

        self.expect(what, comes_true, seconds=seconds)

    def expect(self, what: str, holds: Callable[[], bool], *, seconds: float = 20.0) -> None:
        """Return as soon as *holds*.

        Raises:
            DemoFailed: If it does not in that time, or if a program ends meanwhile.
        """
        deadline = time.monotonic() + seconds
        while not _holds(holds):
            ended = [name for name, program in self._programs.items() if program.has_ended]
            if ended:
                raise DemoFailed(f"not reached: {what}. Ended by itself: {', '.join(ended)}")
            if time.monotonic() > deadline:
                raise DemoFailed(f"not reached within {seconds:g} s: {what}")
            time.sleep(_POLL_S)

    def log_tails(self) -> str:
        """The last lines of every program's log."""
        return "\n".join(f"-- {name}\n{program.log_tail()}" for name, program in self._programs.items())


@contextmanager
def running() -> Iterator[Stage]:
    """A stage with nothing on it but the control plane; all that is started on it ends with the block.

    Raises:
        ControlPlaneUnavailable: If a program of the control plane is missing and cannot be built.
        ControlPlaneFailed: If one does not start.
    """
    with ControlPlane() as control_plane, ExitStack() as cleanup:
        yield Stage(control_plane, cleanup)


@contextmanager
def _environment(ours: Mapping[str, str]) -> Iterator[None]:
    """Give *ours* to everything that is started, in place of the user's own settings."""
    before = dict(os.environ)
    for name in before:
        if name.upper().startswith(_LEFT_OUT):
            del os.environ[name]
    os.environ.update(ours)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _holds(condition: Callable[[], bool]) -> bool:
    try:
        return condition()
    except httpx.HTTPError:  # it has not started yet
        return False


def _port(url: str) -> str:
    return url.rpartition(":")[2]
