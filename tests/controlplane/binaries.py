"""Find the programs, or have them built.

Order: what the environment names (``KUBEBUILDER_ASSETS``, as for envtest; ``HELM``, ``HELM_3``), our cache, a build
with Go.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from .build import Program, Report, build, cached_path, progress
from .errors import ControlPlaneUnavailable

__all__ = [
    "Binaries",
    "NodeBinaries",
    "find_or_build",
    "find_or_build_node",
    "helm",
    "helm_3",
    "kubectl",
    "node_is_built",
]

_ASSETS = "KUBEBUILDER_ASSETS"
_HELM_NEEDED = (3, 14)

ETCD = Program(
    name="etcd",
    folder="tools",
    package="go.etcd.io/etcd/server/v3",
    release="go.etcd.io/etcd/server/v3",
    otherwise=f"set {_ASSETS} to the folder of envtest's programs",
)
API_SERVER = Program(
    name="kube-apiserver",
    folder="kubernetes",
    package="k8s.io/kubernetes/cmd/kube-apiserver",
    release="k8s.io/kubernetes",
    otherwise=f"set {_ASSETS} to the folder of envtest's programs",
)
CONTROLLER_MANAGER = Program(
    name="kube-controller-manager",
    folder="kubernetes",
    package="k8s.io/kubernetes/cmd/kube-controller-manager",
    release="k8s.io/kubernetes",
    otherwise=f"put it, which envtest does not bring, into the folder that {_ASSETS} names",
)
HELM = Program(
    name="helm",
    folder="tools",
    package="helm.sh/helm/v4/cmd/helm",
    release="helm.sh/helm/v4",
    otherwise="install Helm {}.{} or newer, or set HELM to its path".format(*_HELM_NEEDED),
)
HELM_3 = Program(
    name="helm",
    folder="helm3",
    package="helm.sh/helm/v3/cmd/helm",
    release="helm.sh/helm/v3",
    otherwise="set HELM_3 to the path of a Helm 3",
)


def _of_a_node(name: str) -> Program:
    package, release = f"k8s.io/kubernetes/cmd/{name}", "k8s.io/kubernetes"
    return Program(name, "node", package, release, otherwise=_NO_NODE)


def _addon(name: str) -> Program:
    return Program(name, "addons", f"./{name}", "github.com/coredns/coredns", otherwise=_NO_NODE)


_NO_NODE = "run the tests without a node"
KUBELET = _of_a_node("kubelet")
SCHEDULER = _of_a_node("kube-scheduler")
PROXY = _of_a_node("kube-proxy")
COREDNS = _addon("coredns")
PAUSE = _addon("pause")
_NODE = (KUBELET, SCHEDULER, PROXY, COREDNS, PAUSE)


@dataclass(frozen=True, slots=True)
class Binaries:
    """Paths of the control plane's programs."""

    etcd: Path
    api_server: Path
    controller_manager: Path


def find_or_build(report: Report = progress) -> Binaries:
    """The control plane's programs. A first build takes some minutes; *report* gets a line for each.

    Raises:
        ControlPlaneUnavailable: If one is missing and cannot be built.
    """
    return Binaries(
        etcd=_asset(ETCD) or _cached(ETCD) or build(ETCD, report),
        api_server=_asset(API_SERVER) or _cached(API_SERVER) or build(API_SERVER, report),
        controller_manager=(
            _asset(CONTROLLER_MANAGER, optional=True)
            or _cached(CONTROLLER_MANAGER)
            or build(CONTROLLER_MANAGER, report)
        ),
    )


@dataclass(frozen=True, slots=True)
class NodeBinaries:
    """Paths of the programs that make a machine a node, beside the container runtime."""

    kubelet: Path
    scheduler: Path
    proxy: Path
    coredns: Path
    pause: Path


def find_or_build_node(report: Report = progress) -> NodeBinaries:
    """Return a node's programs. A first build takes some minutes; *report* gets a line for each.

    Raises:
        ControlPlaneUnavailable: If one is missing and cannot be built.
    """
    return NodeBinaries(*(_cached(program) or build(program, report) for program in _NODE))


def node_is_built() -> bool:
    """Whether :func:`find_or_build_node` has nothing to build."""
    return all(map(_cached, _NODE))


def helm(report: Report = progress) -> Path:
    """Helm: the one that ``HELM`` names, ours if it was built before, a recent one on ``PATH``, or ours built now.

    Raises:
        ControlPlaneUnavailable: If there is none and it cannot be built.
    """
    return _named("HELM") or _cached(HELM) or _recent_helm_on_path() or build(HELM, report)


def helm_3(report: Report = progress) -> Path:
    """Helm 3, which many still upgrade with: the one that ``HELM_3`` names, or ours, built now if it never was.

    Raises:
        ControlPlaneUnavailable: If there is none and it cannot be built.
    """
    return _named("HELM_3") or _cached(HELM_3) or build(HELM_3, report)


def kubectl() -> Path:
    """The kubectl beside this Python, whose version is pinned, else the one on ``PATH``.

    Raises:
        ControlPlaneUnavailable: If there is none.
    """
    beside = Path(sys.executable).with_name("kubectl")
    found = beside if beside.exists() else shutil.which("kubectl")
    if not found:
        raise ControlPlaneUnavailable("kubectl is missing: install the development dependencies (`make`), or kubectl")
    return Path(found)


def _asset(program: Program, *, optional: bool = False) -> Path | None:
    folder = os.environ.get(_ASSETS)
    if not folder:
        return None
    path = Path(folder, program.name).absolute()
    if path.exists():
        return path
    if optional:
        return None
    raise ControlPlaneUnavailable(f"{_ASSETS} names {folder}, where there is no {program.name}: correct or unset it")


def _cached(program: Program) -> Path | None:
    path = cached_path(program)
    return path if path.exists() else None


def _named(variable: str) -> Path | None:
    named = os.environ.get(variable)
    if not named:
        return None
    found = shutil.which(named)
    if not found:
        raise ControlPlaneUnavailable(f"{variable} names {named}, which is no program: correct or unset it")
    return Path(found)


def _recent_helm_on_path() -> Path | None:
    found = shutil.which("helm")
    if not found:
        return None
    said = subprocess.run([found, "version", "--template={{.Version}}"], capture_output=True, text=True).stdout
    version = re.match(r"v(\d+)\.(\d+)", said)
    recent = version is not None and (int(version[1]), int(version[2])) >= _HELM_NEEDED
    return Path(found) if recent else None
