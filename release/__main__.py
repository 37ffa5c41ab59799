"""Build everything that a release publishes into ``dist/``, and check it: ``python -m release [--tag v0.1.0]``.

The release workflow runs the same with the tag, and then signs and uploads the files. Images are built there.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
from functools import cache

from tests.controlplane import helm

from . import site
from .boms import requirements_of
from .notes import notes
from .versions import ROOT, ReleaseError, checked_version

DIST = ROOT / "dist"
CHART = ROOT / "charts" / "openrouter-guard"
BOMS = {
    "openrouter-guard": ("all",),
    "openrouter-guard-image": ("service", "operator"),
    "openrouter-guard-image-service": ("service",),
    "openrouter-guard-image-operator": ("operator",),
}
"""The locks of each bill of materials; an image has those that its target in the Dockerfile installs."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m release", description=__doc__)
    parser.add_argument("--tag", help="the tag of the release: all versions must be the same")
    tag = parser.parse_args().tag
    try:
        version = checked_version(tag)
        text = notes(version, is_released=tag is not None)
        shutil.rmtree(DIST, ignore_errors=True)
        DIST.mkdir()
        (DIST / "notes.md").write_text(text)
        _packages()
        _boms(version)
        _chart()
        site.build()
    except ReleaseError as error:
        print(error, file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        return error.returncode
    _sums()
    return 0


def _packages() -> None:
    packages = DIST / "python"
    _run(sys.executable, "-m", "hatchling", "build", "--directory", str(packages))
    _run(sys.executable, "-m", "twine", "check", "--strict", *map(str, sorted(packages.iterdir())))


def _boms(version: str) -> None:
    for name, locks in BOMS.items():
        target = DIST / f"{name}-{version}.cdx.json"
        words = ("requirements", "--pyproject", "pyproject.toml", "--output-reproducible", "--validate")
        _run(
            sys.executable, "-m", "cyclonedx_py", *words, f"--output-file={target}", "-", stdin=requirements_of(locks)
        )


def _chart() -> None:
    program = str(helm())
    _run(program, "lint", "--strict", str(CHART))
    _run(program, "package", str(CHART), "--destination", str(DIST))


def _run(*command: str, stdin: str = "") -> None:
    environ = {**os.environ, "SOURCE_DATE_EPOCH": _commit_time()}
    subprocess.run(command, cwd=ROOT, env=environ, input=stdin, text=True, check=True)


@cache
def _commit_time() -> str:
    """Return when the commit was made, in Unix seconds: the same files then give the same archives."""
    command = ["git", "log", "-1", "--format=%ct"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.strip()
    return said or "315532800"  # 1980, the earliest that a ZIP archive can name


def _sums() -> None:
    files = sorted(path for path in DIST.rglob("*") if path.is_file())
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files]
    (DIST / "SHA256SUMS").write_text("".join(lines))
    print(*lines, sep="")


if __name__ == "__main__":
    sys.exit(main())
