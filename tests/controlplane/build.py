"""Build a program from the Go module that pins it, once, into a cache outside the checkout.

The cache is ``$XDG_CACHE_HOME/openrouter-guard/controlplane/<program>-<version>-<fingerprint>/``. The fingerprint is
that of the module's files and the link flags, so that a new version never meets an old program.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from .errors import ControlPlaneUnavailable
from .processes import run_with_children, terminate_as_interrupt

__all__ = ["GO_NEEDED", "Program", "Report", "build", "cached_path", "pinned_version", "progress"]

Report: TypeAlias = Callable[[str], None]

GO_NEEDED = (1, 26)
_MODULES = Path(__file__).parent / "modules"
_VERSION_PACKAGES = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")


@dataclass(frozen=True, slots=True)
class Program:
    """A program, the folder of the Go module that pins it, its Go package, and who to ask if it cannot be built.

    Attributes:
        release: The Go module whose version is the program's.
        otherwise: What the user can do who has no Go.
    """

    name: str
    folder: str
    package: str
    release: str
    otherwise: str


def progress(line: str) -> None:
    """The default report: stderr, since stdout is for what a shell may evaluate."""
    print(line, file=sys.stderr, flush=True)


def cached_path(program: Program) -> Path:
    """Where the built program is, or will be."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    entry = f"{program.name}-{pinned_version(program)}-{_fingerprint(program)}"
    return Path(home, "openrouter-guard", "controlplane", entry, program.name)


def pinned_version(program: Program) -> str:
    """The version, such as ``v1.37.2``, from the module's ``go.mod``: the only place that says it."""
    go_mod = _MODULES / program.folder / "go.mod"
    pinned = re.search(rf"^\s*(?:require )?{re.escape(program.release)} (v\S+)", go_mod.read_text(), re.MULTILINE)
    if not pinned:
        raise ValueError(f"{go_mod} does not require {program.release}: add it")
    return pinned[1]


def build(program: Program, report: Report = progress) -> Path:
    """Build the program into the cache, unless another process has just done so.

    Raises:
        ControlPlaneUnavailable: If Go is missing or too old, or the build fails.
    """
    go = _find_go(program)
    target = cached_path(program)
    with terminate_as_interrupt(), _locked(target.parent):
        if not target.exists():
            _build_and_time(go, program, target, report)
    return target


def _build_and_time(go: str, program: Program, target: Path, report: Report) -> None:
    label = f"{program.name} {pinned_version(program)}"
    report(f"building {label}: once, minutes if Go's own cache is cold …")
    began_at = time.monotonic()
    # Only a finished program gets its place: whoever finds it may run it.
    with tempfile.TemporaryDirectory(prefix="unfinished-", dir=target.parent) as folder:
        unfinished = Path(folder, program.name)
        _go_build(go, program, unfinished)
        unfinished.replace(target)
    report(f"built {label} in {time.monotonic() - began_at:.0f} s")


def _go_build(go: str, program: Program, output: Path) -> None:
    done = run_with_children(
        [go, "build", "-trimpath", f"-ldflags={_link_flags(program)}", "-o", str(output), program.package],
        cwd=_MODULES / program.folder,
        env=_go_environ(temporary=output.parent),
    )
    if done.returncode:
        raise ControlPlaneUnavailable(f"building {program.name} failed:\n{done.stdout[-2000:]}")


def _go_environ(temporary: Path) -> dict[str, str]:
    return {
        **os.environ,
        # What is built is pinned by go.mod and go.sum, whatever the user has set for other work.
        "GOFLAGS": "-mod=readonly -buildvcs=false",
        "GOWORK": "off",
        "CGO_ENABLED": "0",
        "GOTMPDIR": str(temporary),  # an interrupted Go leaves its temporary files behind
    }


def _link_flags(program: Program) -> str:
    """No debug tables, a third of the size; for Kubernetes the version, which clients insist on parsing."""
    stamps = _version_stamps(pinned_version(program)) if program.release == "k8s.io/kubernetes" else {}
    words = [f"-X {package}.{name}={value}" for name, value in stamps.items() for package in _VERSION_PACKAGES]
    return " ".join(["-s -w", *words])


def _version_stamps(version: str) -> dict[str, str]:
    major, minor, _ = version.removeprefix("v").split(".", 2)
    return {
        "gitVersion": version,
        "gitMajor": major,
        "gitMinor": minor,
        "gitTreeState": "clean",
        "gitCommit": "tests",
        "buildDate": "1970-01-01T00:00:00Z",
    }


def _fingerprint(program: Program) -> str:
    folder = _MODULES / program.folder
    parts = ((folder / "go.mod").read_bytes(), (folder / "go.sum").read_bytes(), _link_flags(program).encode())
    return hashlib.sha256(b"".join(parts)).hexdigest()[:12]


def _find_go(program: Program) -> str:
    go = shutil.which("go")
    said = subprocess.run([go, "version"], capture_output=True, text=True).stdout.strip() if go else ""
    version = re.search(r"go(\d+)\.(\d+)", said)
    if go and version and (int(version[1]), int(version[2])) >= GO_NEEDED:
        return go
    fault = f"Go is too old to build it ({said})" if go else "Go is not there to build it"
    needed = "{}.{}".format(*GO_NEEDED)
    raise ControlPlaneUnavailable(
        f"{program.name} is missing, and {fault}. Install Go {needed} or newer, or {program.otherwise}."
    )


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Let one process build at a time; the others wait, and find it done."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
