"""Pin another version of Kubernetes in the Go module, for the nightly run on older API servers."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

from .errors import ControlPlaneUnavailable

__all__ = ["pin"]

_MODULE = Path(__file__).parent / "modules" / "kubernetes"
_HEAD = "module openrouter-guard.io/tests/kubernetes\n\ngo {go}\n\nrequire k8s.io/kubernetes {version}\n"
_TOOLS = "tool (\n\tk8s.io/kubernetes/cmd/kube-apiserver\n\tk8s.io/kubernetes/cmd/kube-controller-manager\n)\n"


def pin(version: str, folder: Path = _MODULE) -> None:
    """Write ``go.mod`` and ``go.sum`` anew, for a version such as ``v1.30.14``.

    Raises:
        ControlPlaneUnavailable: If there is no such version, or no Go.
    """
    if not re.fullmatch(r"v1\.\d+\.\d+", version):
        raise ControlPlaneUnavailable(f"{version} is not a version of Kubernetes: write one such as v1.30.14")
    theirs = _go_mod_of(version, folder)
    staging = sorted(set(re.findall(r"^\s*(k8s\.io/\S+) v0\.0\.0(?:$|\s)", theirs, re.MULTILINE)))
    (go,) = re.findall(r"^go (\S+)", theirs, re.MULTILINE)
    published = version.replace("v1.", "v0.", 1)
    replaced = "".join(f"\t{module} => {module} {published}\n" for module in staging)
    text = _HEAD.format(go=max(go, "1.24.0", key=_order), version=version)
    (folder / "go.mod").write_text(f"{text}\nreplace (\n{replaced})\n\n{_TOOLS}")
    (folder / "go.sum").unlink(missing_ok=True)
    _go("mod", "tidy", folder=folder)


def _go_mod_of(version: str, folder: Path) -> str:
    found = json.loads(_go("mod", "download", "-json", f"k8s.io/kubernetes@{version}", folder=folder))
    return Path(found["GoMod"]).read_text()


def _go(*words: str, folder: Path) -> str:
    try:
        done = subprocess.run(["go", *words], cwd=folder, check=True, capture_output=True, text=True)
    except FileNotFoundError:
        raise ControlPlaneUnavailable("Go is not there: get it from https://go.dev/dl/") from None
    except subprocess.CalledProcessError as error:
        raise ControlPlaneUnavailable(f"go {' '.join(words)} failed: {error.stderr or error.stdout}") from None
    return done.stdout


def _order(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))
