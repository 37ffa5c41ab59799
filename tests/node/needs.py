"""The prerequisites of a machine that runs pods, and how to install them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.controlplane import ControlPlaneUnavailable

__all__ = ["NodeUnavailable", "check"]

CNI_PLUGINS = Path("/usr/lib/cni")
_PACKAGES = {
    "buildah": "buildah",
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "ip": "iproute2",
    "curl": "curl",
    "iptables": "iptables",
    "nft": "nftables",
    "conntrack": "conntrack",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "mount": "mount",
}


class NodeUnavailable(ControlPlaneUnavailable):
    """This machine cannot run pods; the message says what is missing."""


def check() -> None:
    """Return if pods can run here.

    Raises:
        NodeUnavailable: If not; says all that is missing.
    """
    missing = [*_missing()]
    if missing:
        raise NodeUnavailable(f"Pods cannot run on this machine: {'; '.join(missing)}.")


def _missing() -> Iterator[str]:
    if os.geteuid() != 0:
        yield "run it as root"
        return
    packages = sorted({package for program, package in _PACKAGES.items() if not shutil.which(program)})
    if not (CNI_PLUGINS / "bridge").exists():
        packages.append("containernetworking-plugins")
    if packages:
        yield f"apt-get install --no-install-recommends {' '.join(packages)}"
        return
    tried = subprocess.run(
        ["unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc", "true"], capture_output=True, text=True
    )
    if tried.returncode:
        yield f"namespaces are not allowed here ({tried.stderr.strip()})"
    if not os.access("/sys/fs/cgroup", os.W_OK):
        yield "the control groups in /sys/fs/cgroup cannot be written"
