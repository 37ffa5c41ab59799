"""Build a base image from the running Python, for machines without access to a registry.

It has that Python, pip, a shell and the shared libraries of the three, all at the paths that they have here.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

import pip

__all__ = ["add_libraries", "fill"]

NOT_NEEDED = ("*.a", "config-*", "idlelib", "test", "tkinter", "site-packages", "dist-packages")
"""Parts of the standard library that a small image of Python leaves out as well."""
LOADED_BY_NAME = (
    "libdl.so.2",
    "libgcc_s.so.1",
    "libnss_dns.so.2",
    "libnss_files.so.2",
    "libpthread.so.0",
    "libresolv.so.2",
    "librt.so.1",
    "libstdc++.so.6",
    "libutil.so.1",
)
"""Libraries that Debian's image has too, for wheels that are built on an older one and for the C library itself."""
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
PIP = '#!/bin/sh\nPYTHONPATH=/opt/pip exec python -m pip "$@"\n'


def fill(root: Path) -> None:
    """Write the file system of the image into an empty folder."""
    python = Path(sys._base_executable).resolve()  # type: ignore[attr-defined]
    shell = Path("/bin/sh").resolve()
    for program in (python, shell):
        _copy(program, root)
    standard = Path(sysconfig.get_path("stdlib"))
    ignored = shutil.ignore_patterns(*NOT_NEEDED, "EXTERNALLY-MANAGED")
    shutil.copytree(standard, _inside(root, standard), ignore=ignored, symlinks=True)
    shutil.copytree(Path(pip.__file__).parent, root / "opt/pip/pip", ignore=shutil.ignore_patterns("__pycache__"))
    named = [found for name in LOADED_BY_NAME for found in Path("/lib").glob(f"*-linux-gnu/{name}")]
    add_libraries(root, [python, shell, *(standard / "lib-dynload").glob("*.so"), *named])
    for library in named:
        _copy(library, root)
    _link(root / "usr/local/bin/python", python)
    _link(root / "usr/local/bin/python3", python)
    _link(root / "bin/sh", shell)
    _settings(root)


def add_libraries(root: Path, files: Iterable[Path]) -> None:
    """Add the shared libraries that these files need, and the loader, to the file system."""
    for library in _libraries(files):
        if not library.is_relative_to(root):
            _copy(library, root)


def _settings(root: Path) -> None:
    files = {
        "usr/local/bin/pip": PIP,
        "etc/passwd": "root:x:0:0:root:/root:/bin/sh\n",
        "etc/group": "root:x:0:\n",
        "etc/pip.conf": f"[global]\ncert = {AUTHORITIES}\n" if AUTHORITIES.exists() else "",
    }
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (root / "usr/local/bin/pip").chmod(0o755)
    (root / "tmp").mkdir(mode=0o777)
    (root / "tmp").chmod(0o1777)
    if AUTHORITIES.exists():
        _copy(AUTHORITIES, root)


def _libraries(files: Iterable[Path]) -> Iterator[Path]:
    """Yield the libraries by the paths at which they are looked for."""
    listed = subprocess.run(["ldd", *map(str, files)], capture_output=True, text=True).stdout
    words = {
        word for line in listed.splitlines() for word in line.split() if word.startswith("/") and ":" not in word
    }
    yield from (Path(word) for word in sorted(words))


def _inside(root: Path, path: Path) -> Path:
    return root / path.relative_to("/")


def _copy(path: Path, root: Path) -> None:
    target = _inside(root, path)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(path, target)


def _link(path: Path, target: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        path.symlink_to(os.fspath(target))
