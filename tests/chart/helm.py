"""Helm as the tests use it: with a home of its own, and with what it renders as parsed objects."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from tests.controlplane import ControlPlane
from tests.waiting import until

__all__ = [
    "CHART",
    "CRD",
    "CRD_NAME",
    "MINIMAL",
    "Helm",
    "HelmFailed",
    "Manifest",
    "Manifests",
    "Release",
    "installed",
    "wait_for_crd",
]

Manifest: TypeAlias = dict[str, Any]
Values: TypeAlias = Mapping[str, Any]

_ROOT = Path(__file__).parents[2]
CHART = _ROOT / "charts" / "openrouter-guard"
CRD = _ROOT / "crds" / "openrouterstatuses.yaml"
CRD_NAME = "openrouterstatuses.openrouter-guard.io"
MINIMAL: Values = {"redis": {"existingSecret": {"name": "redis"}}}
"""What nobody can do without."""


class HelmFailed(Exception):
    """Helm ended with an error; the message holds what it wrote."""


@dataclass(frozen=True, slots=True)
class Manifests:
    """What a chart renders."""

    objects: tuple[Manifest, ...]

    def all(self, *kinds: str) -> list[Manifest]:
        return [each for each in self.objects if each["kind"] in kinds]

    def one(self, kind: str, name: str) -> Manifest:
        (found,) = (each for each in self.all(kind) if each["metadata"]["name"] == name)
        return found

    @property
    def names(self) -> set[str]:
        """Kind and name of each, as kubectl prints them."""
        return {f"{each['kind']}/{each['metadata']['name']}" for each in self.objects}


@dataclass(frozen=True, slots=True)
class Helm:
    """Runs one program; *home* keeps it from the user's settings and caches."""

    program: Path
    home: Path

    def run(self, *words: str, values: Values | None = None, kubeconfig: Path | None = None) -> str:
        """What Helm prints.

        Raises:
            HelmFailed: If it fails.
        """
        command = [str(self.program), *words, *(["--values=-"] if values is not None else [])]
        environ = {name: value for name, value in os.environ.items() if not name.startswith("HELM_")}
        environ |= {f"HELM_{kind}_HOME": str(self.home / kind.lower()) for kind in ("CACHE", "CONFIG", "DATA")}
        environ |= {"KUBECONFIG": str(kubeconfig or os.devnull)}
        done = subprocess.run(command, input=json.dumps(values), env=environ, capture_output=True, text=True)
        if done.returncode:
            raise HelmFailed(f"helm {' '.join(words)}: {done.stderr.strip()}\n{done.stdout.strip()}")
        return done.stdout

    def render(self, values: Values = MINIMAL, *words: str, release: str = "openrouter-guard") -> Manifests:
        """The objects of a release in the namespace ``guard``, without those of hooks."""
        return self.render_all(values, "--no-hooks", *words, release=release)

    def render_all(self, values: Values = MINIMAL, *words: str, release: str = "openrouter-guard") -> Manifests:
        """Those of hooks too."""
        text = self.run("template", release, str(CHART), "--namespace=guard", *words, values=values)
        return Manifests(tuple(each for each in yaml.safe_load_all(text) if each))


@dataclass(frozen=True, slots=True)
class Release:
    """An installed chart, and the names of what it consists of."""

    namespace: str
    name: str = "openrouter-guard"
    health_service: str = field(default="openrouter-guard", init=False)
    operator: str = field(default="openrouter-guard-operator", init=False)
    service_account: str = field(default="openrouter-guard-operator", init=False)


def wait_for_crd(control_plane: ControlPlane, name: str = CRD_NAME) -> None:
    """Return once its resources can be made. (``kubectl wait`` gives up on a CRD that has no status yet.)"""

    def is_established() -> bool:
        conditions = control_plane.get("crd", name).get("status", {}).get("conditions") or []
        return {"Established"} <= {each["type"] for each in conditions if each["status"] == "True"}

    until(is_established, seconds=10)


@contextmanager
def installed(
    helm: Helm, control_plane: ControlPlane, namespace: str, values: Values = MINIMAL, chart: Path = CHART
) -> Iterator[Release]:
    """The chart in a namespace, until the end of the context; whether it brings the CRD, the values say."""
    release = Release(namespace)
    where = (f"--namespace={namespace}",)
    try:
        helm.run("install", release.name, str(chart), *where, values=values, kubeconfig=control_plane.kubeconfig)
        yield release
    finally:
        # There are no nodes on which the Job of a hook could run.
        gone = ("--ignore-not-found", "--no-hooks", *where)
        helm.run("uninstall", release.name, *gone, kubeconfig=control_plane.kubeconfig)
