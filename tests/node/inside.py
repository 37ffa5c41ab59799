"""The programs in the node's namespaces: a control plane, containerd, kubelet, kube-proxy, scheduler and DNS.

``python -m tests.node.inside IMAGE.tar…`` writes a line of JSON to its output once the node is ready. Each line of
its input names a program that it kills and starts again. It runs until its input is closed.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.controlplane import ControlPlane, ControlPlaneFailed, NodeBinaries, find_or_build_node
from tests.controlplane.commands import SERVICES

from . import image, settings

__all__: list[str] = []

_START_S = 120.0
_POLL_S = 0.1
_OUR_OWN = ("/dev/shm", "/run", "/var/log", "/var/lib/cni")
"""Folders that these programs write to, whatever they are told; here they get empty ones.

The first is that of control planes. The processes of others are not seen from here, so their folders would look
abandoned, and be removed.
"""


def main(archives: Sequence[str]) -> None:
    binaries = find_or_build_node()
    _set_up_network()
    for folder in _OUR_OWN:
        Path(folder).mkdir(exist_ok=True)
        _do("mount", "-t", "tmpfs", "tmpfs", folder)
    with ControlPlane(settings.ADDRESS) as control_plane:
        _start(control_plane, binaries, archives)
        print(json.dumps({"kubeconfig": str(control_plane.kubeconfig)}), flush=True)
        for line in sys.stdin:
            (process,) = (each for each in control_plane.processes if each.name == line.strip())
            process.restart()
            print("restarted", flush=True)


def _set_up_network() -> None:
    _do("ip", "link", "set", "lo", "up")
    _do("ip", "link", "add", settings.BRIDGE, "type", "bridge")
    _do("ip", "address", "add", f"{settings.ADDRESS}/24", "dev", settings.BRIDGE)
    _do("ip", "link", "set", settings.BRIDGE, "up")
    # The way to Services from the node itself; kube-proxy gives the packets their destination.
    _do("ip", "route", "add", SERVICES, "dev", settings.BRIDGE)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


def _start(control_plane: ControlPlane, binaries: NodeBinaries, archives: Sequence[str]) -> None:
    workdir = control_plane.workdir
    _write_files(workdir)
    _start_containerd(control_plane, archives)
    user = control_plane.kubeconfig_for
    control_plane.run(binaries.scheduler, settings.kube_scheduler(user("system:kube-scheduler")))
    control_plane.run(
        binaries.kubelet, settings.kubelet(workdir, user(f"system:node:{settings.NAME}", ["system:nodes"]))
    )
    control_plane.run(binaries.proxy, settings.kube_proxy(user("system:kube-proxy")))
    (workdir / "Corefile").write_text(settings.coredns(control_plane.kubeconfig))
    control_plane.run(binaries.coredns, ["-conf", "Corefile"])
    _wait(control_plane, lambda: _is_ready(control_plane), "the node is not ready")


def _write_files(workdir: Path) -> None:
    for folder in ("cni", "kubelet", "pod-logs", "volume-plugins"):
        (workdir / folder).mkdir()
    (workdir / "cni/pods.conflist").write_text(settings.cni(workdir))
    (workdir / "containerd.toml").write_text(settings.containerd(workdir, image.PAUSE.name))
    (workdir / "kubelet.json").write_text(settings.kubelet_config(workdir))
    (workdir / "resolv.conf").write_text("# no other name server\n")


def _start_containerd(control_plane: ControlPlane, archives: Sequence[str]) -> None:
    control_plane.run(Path(shutil.which("containerd") or "containerd"), ["--config=containerd.toml"])
    ctr = ["ctr", f"--address={control_plane.workdir}/containerd.sock", "--namespace=k8s.io"]
    _wait(control_plane, lambda: _succeeds(*ctr, "version"), "containerd does not answer")
    for archive in archives:
        _do(*ctr, "images", "import", archive)


def _is_ready(control_plane: ControlPlane) -> bool:
    nodes = control_plane.get("nodes")["items"]
    conditions = [each for node in nodes for each in node["status"].get("conditions", ())]
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def _wait(control_plane: ControlPlane, holds: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + _START_S
    while not holds():
        ended = [each for each in control_plane.processes if each.has_ended]
        if ended or time.monotonic() > deadline:
            last = ended[0] if ended else control_plane.processes[-1]
            raise ControlPlaneFailed(f"{otherwise}; {last.name} says:\n{last.log_tail()}")
        time.sleep(_POLL_S)


def _succeeds(*command: str) -> bool:
    return subprocess.run(command, capture_output=True).returncode == 0


def _do(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise ControlPlaneFailed(f"{' '.join(command)}: {done.stderr.strip()}")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except ControlPlaneFailed as error:
        sys.exit(str(error))
