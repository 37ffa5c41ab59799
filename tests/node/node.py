"""Start, use and stop a node, from outside of its namespaces."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.controlplane import ControlPlaneFailed, KubectlFailed, find_or_build, find_or_build_node, kubectl
from tests.controlplane.lifecycle import Running
from tests.product_image import built

from . import image, needs

__all__ = ["Node"]

_PATIENCE_S = 30.0
_NAMESPACES = ("--net", "--mount", "--pid")
_CONTROL_GROUPS = Path("/sys/fs/cgroup")
_LOCK = Path(tempfile.gettempdir(), "openrouter-guard-node.lock")


class Node(Running):
    """A control plane with one node, for as long as the context lasts.

    One at a time runs on a machine: a second one waits. Its images are that of the Dockerfile, Valkey's and that
    of the pods' own process; nothing is pulled.

    Attributes:
        kubeconfig: A kubeconfig that may do everything, for programs that run in the node's namespaces.

    Raises:
        NodeUnavailable: On entering, if this machine cannot run pods.
        ControlPlaneFailed: On entering, if something does not start.
    """

    kubeconfig: Path

    def _begin(self) -> None:
        needs.check()
        find_or_build()
        self._start()

    # -- use ----------------------------------------------------------------------------------------------------

    def run(
        self, *command: str, stdin: str | None = None, timeout_s: float = 300.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the node's namespaces to its end."""
        into = ["nsenter", f"--target={self._pid}", *_NAMESPACES, "--", *command]
        return subprocess.run(
            into, input=stdin, env=self._environ(), capture_output=True, text=True, timeout=timeout_s
        )

    def kubectl(self, *words: str, stdin: str | None = None) -> str:
        """Return what kubectl prints.

        Raises:
            KubectlFailed: If it fails, with what it wrote to stderr.
        """
        done = self.run(str(kubectl()), *words, stdin=stdin)
        if done.returncode:
            raise KubectlFailed(f"kubectl {' '.join(words)}: {done.stderr.strip()}")
        return done.stdout

    def get(self, *words: str) -> Any:
        """Return one object, or a list of them, as parsed JSON."""
        return json.loads(self.kubectl("get", *words, "--output=json"))

    def _environ(self) -> Mapping[str, str]:
        return {**os.environ, "KUBECONFIG": str(self.kubeconfig), "KUBERC": "off"}

    def restart(self, program: str) -> None:
        """Kill one of the node's programs, such as ``kubelet``, and start it again."""
        if self._inside.stdin is None or self._inside.stdout is None:
            raise ControlPlaneFailed("the node does not run")
        self._inside.stdin.write(f"{program}\n")
        self._inside.stdin.flush()
        self._inside.stdout.readline()

    # -- start and end ------------------------------------------------------------------------------------------

    def _start(self) -> None:
        lock = self._cleanup.enter_context(_LOCK.open("w"))
        fcntl.flock(lock, fcntl.LOCK_EX)
        archives = self._write_images()
        self._cleanup.callback(_remove_control_groups)
        self._inside = self._unshare([sys.executable, "-m", "tests.node.inside", *archives])
        said = self._inside.stdout.readline() if self._inside.stdout else ""
        if not said:
            raise ControlPlaneFailed(f"the node did not start:\n{self._log.read_text()[-4000:]}")
        self.kubeconfig = Path(json.loads(said)["kubeconfig"])
        pid = self._inside.pid
        (self._pid,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()

    def _write_images(self) -> Sequence[str]:
        folder = Path(self._cleanup.enter_context(tempfile.TemporaryDirectory()))
        self._log = folder / "node.log"
        pause, valkey = folder / "pause.tar", folder / "valkey.tar"
        image.write_pause(pause, find_or_build_node().pause)
        image.write_valkey(valkey)
        return [str(pause), str(valkey), str(built())]

    def _unshare(self, command: Sequence[str]) -> subprocess.Popen[str]:
        alone = ["unshare", *_NAMESPACES, "--fork", "--kill-child", "--mount-proc", "--propagation=slave"]
        log = self._cleanup.enter_context(self._log.open("w"))
        child = subprocess.Popen(
            [*alone, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
            cwd=image.CHECKOUT,
        )
        self._cleanup.callback(_end, child)
        return child


def _end(child: subprocess.Popen[str]) -> None:
    """Let the node's first process tidy up; with its end, the kernel ends all others."""
    if child.stdin:
        child.stdin.close()
    try:
        child.wait(_PATIENCE_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    if child.stdout:
        child.stdout.close()


def _remove_control_groups() -> None:
    """Remove those of the pods, which outlive their processes."""
    for group in (*_CONTROL_GROUPS.glob("*/kubepods"), *_CONTROL_GROUPS.glob("kubepods")):
        for folder in sorted((path for path in group.rglob("*") if path.is_dir()), reverse=True):
            with suppress(OSError):
                folder.rmdir()
        with suppress(OSError):
            group.rmdir()
