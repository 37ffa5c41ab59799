"""Start, use and stop a control plane."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from . import commands
from .audit import AuditLog
from .binaries import Binaries, find_or_build, kubectl
from .certificates import Authority, write_service_account_keys
from .errors import ControlPlaneFailed, KubectlFailed, PortTaken
from .kubeconfig import encode, write_kubeconfig
from .lifecycle import Running
from .processes import Process, free_port, terminate_as_interrupt
from .workdir import fresh_workdir

__all__ = ["ControlPlane"]

_START_S = 60.0
_POLL_S = 0.1
_PORT_TRIES = 5


class ControlPlane(Running):
    """etcd, API server and controller manager, for as long as the context lasts.

    There are no nodes: pods stay pending, unless you add one (``tests.node``). Enter it from the main thread.
    Whatever ends the process, nothing is left running.

    Args:
        address: Where the API server listens.

    Attributes:
        url: The API server's address.
        kubeconfig: A kubeconfig that may do everything.
        workdir: The folder with logs and data, gone afterwards.
        processes: In the order of their start.

    Raises:
        ControlPlaneUnavailable: On entering, if a program is missing and cannot be built.
        ControlPlaneFailed: On entering, if one does not start.
    """

    url: str
    kubeconfig: Path
    workdir: Path
    processes: list[Process]

    def __init__(self, address: str = commands.LOOPBACK) -> None:
        super().__init__()
        self._address = address
        self._kubectl = kubectl()
        self._numbers = itertools.count(1)

    def _begin(self) -> None:
        self._start_on_some_port(find_or_build())

    # -- use ----------------------------------------------------------------------------------------------------

    def kubectl(
        self,
        *words: str,
        input: str | None = None,  # noqa: A002 - as in subprocess.run
        kubeconfig: Path | None = None,
    ) -> str:
        """What kubectl prints, as administrator unless *kubeconfig* says otherwise.

        Raises:
            KubectlFailed: If it fails, with what it wrote to stderr.
        """
        done = self._run_kubectl(words, stdin=input, kubeconfig=kubeconfig)
        if done.returncode:
            raise KubectlFailed(f"kubectl {' '.join(words)}: {done.stderr.strip()}")
        return done.stdout

    def get(self, *words: str) -> Any:
        """One object, or a list of them, as parsed JSON."""
        return json.loads(self.kubectl("get", *words, "--output=json"))

    def apply(self, manifest: str | Path) -> str:
        """Apply YAML, or the file or folder of it that a ``Path`` names."""
        if isinstance(manifest, Path):
            return self.kubectl("apply", f"--filename={manifest}")
        return self.kubectl("apply", "--filename=-", input=manifest)

    def kubeconfig_for(self, user: str, groups: Sequence[str] = ()) -> Path:
        """A new kubeconfig with which a client is *user* in *groups*."""
        return self._write_kubeconfig(self._fresh_path(user), self._certificate_for(user, groups))

    def kubeconfig_for_service_account(self, namespace: str, name: str) -> Path:
        """A new kubeconfig with a token of the ServiceAccount, good for 2 h."""
        token = self.kubectl("create", "token", name, f"--namespace={namespace}", "--duration=2h").strip()
        return self._write_kubeconfig(self._fresh_path(f"{namespace}-{name}"), {"token": token})

    def audit_events(self) -> list[dict[str, Any]]:
        """The requests that were answered so far, oldest first; an answer may arrive a little before its event."""
        return AuditLog(self.workdir / commands.AUDIT_LOG, 0).more()

    def audit_log(self) -> AuditLog:
        """The requests that are answered from now on."""
        path = self.workdir / commands.AUDIT_LOG
        return AuditLog(path, path.stat().st_size)

    # -- faults -------------------------------------------------------------------------------------------------

    @contextmanager
    def pause_apiserver(self) -> Iterator[None]:
        """Let the API server accept connections and answer none."""
        self._api_server.pause()
        try:
            yield
        finally:
            self._api_server.resume()

    def kill_apiserver(self) -> None:
        self._api_server.kill()

    def restart_apiserver(self) -> None:
        """Start it again, killed first if it runs, on the same port, and wait until it is ready."""
        self._api_server.restart()
        self._wait_until_it_answers("/readyz")

    # -- start --------------------------------------------------------------------------------------------------

    def _start_on_some_port(self, binaries: Binaries) -> None:
        for _ in range(_PORT_TRIES - 1):
            try:
                return self._start(binaries, free_port())
            except PortTaken:
                self._cleanup.close()
        return self._start(binaries, free_port())

    def _start(self, binaries: Binaries, port: int) -> None:
        self._cleanup.enter_context(terminate_as_interrupt())
        self.workdir = self._cleanup.enter_context(fresh_workdir())
        self.url = f"https://{self._address}:{port}"
        self.processes = []
        self._write_files()
        self.run(binaries.etcd, commands.etcd())
        self._api_server = self.run(binaries.api_server, commands.api_server(self._address, port))
        self._wait_until_it_answers("/readyz")
        self.run(binaries.controller_manager, commands.controller_manager())
        self._wait_until_it_answers("/api/v1/namespaces/default/serviceaccounts/default")

    def _write_files(self) -> None:
        self._authority = Authority()
        certificate, key = self._authority.issue_server([commands.LOOPBACK, commands.API_SERVICE, self._address])
        (self.workdir / commands.AUTHORITY).write_bytes(self._authority.certificate)
        (self.workdir / commands.API_CERTIFICATE).write_bytes(certificate)
        (self.workdir / commands.API_KEY).write_bytes(key)
        (self.workdir / commands.AUDIT_POLICY).write_text(commands.AUDIT_POLICY_TEXT)
        certificate, key = self._authority.issue_user("kube-apiserver-kubelet-client", ["system:masters"])
        (self.workdir / commands.KUBELET_CLIENT_CERTIFICATE).write_bytes(certificate)
        (self.workdir / commands.KUBELET_CLIENT_KEY).write_bytes(key)
        write_service_account_keys(self.workdir / commands.TOKEN_KEY, self.workdir / commands.TOKEN_PUBLIC_KEY)
        controllers = self._certificate_for("system:kube-controller-manager")
        self._write_kubeconfig(self.workdir / commands.CONTROLLER_KUBECONFIG, controllers)
        administrator = self._certificate_for("admin", ["system:masters"])
        self.kubeconfig = self._write_kubeconfig(self.workdir / "admin.kubeconfig", administrator)

    def run(self, program: Path, arguments: Sequence[str]) -> Process:
        """Run one more program in the folder, until the control plane stops."""
        process = Process(program, arguments, self.workdir)
        self._cleanup.callback(process.stop)
        self.processes.append(process)
        return process

    def _wait_until_it_answers(self, path: str) -> None:
        deadline = time.monotonic() + _START_S
        while self._run_kubectl(["get", f"--raw={path}", "--request-timeout=2s"]).returncode:
            self._check_that_all_run()
            if time.monotonic() > deadline:
                last = self.processes[-1]
                raise ControlPlaneFailed(f"no {path} within {_START_S:g} s; {last.name} says:\n{last.log_tail()}")
            time.sleep(_POLL_S)

    def _check_that_all_run(self) -> None:
        for process in self.processes:
            if process.has_ended:
                log = process.log_tail()
                kind = PortTaken if "address already in use" in log else ControlPlaneFailed
                raise kind(f"{process.name} ended:\n{log}")

    # -- helpers ------------------------------------------------------------------------------------------------

    def _run_kubectl(
        self, words: Sequence[str], *, stdin: str | None = None, kubeconfig: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        command = [str(self._kubectl), f"--kubeconfig={kubeconfig or self.kubeconfig}", *words]
        # Neither the user's kubectl preferences nor the user's cache have a part in this.
        environ = {**os.environ, "KUBERC": "off", "KUBECACHEDIR": str(self.workdir / "kubectl-cache")}
        return subprocess.run(command, input=stdin, env=environ, capture_output=True, text=True)

    def _certificate_for(self, user: str, groups: Sequence[str] = ()) -> Mapping[str, str]:
        certificate, key = self._authority.issue_user(user, groups)
        return {"client-certificate-data": encode(certificate), "client-key-data": encode(key)}

    def _write_kubeconfig(self, path: Path, credentials: Mapping[str, str]) -> Path:
        return write_kubeconfig(path, url=self.url, authority=self._authority.certificate, credentials=credentials)

    def _fresh_path(self, user: str) -> Path:
        slug = re.sub(r"[^\w.-]", "-", user)
        return self.workdir / f"{slug}-{next(self._numbers)}.kubeconfig"
