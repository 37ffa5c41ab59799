"""The product as a container image: this Python, the locked dependencies and a wheel of the checkout, in one layer.

It needs no registry, no base image and no daemon. The root file system holds the running interpreter, the shared
libraries that it and the dependencies link to, and nothing else, not even a shell.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PAUSE", "PRODUCT", "Image", "write_pause", "write_product"]

CHECKOUT = Path(__file__).parents[2]
SITE = "opt/site"
_NOT_COPIED = (
    "test",
    "tests",
    "idlelib",
    "tkinter",
    "turtledemo",
    "ensurepip",
    "site-packages",
    "*.a",
)
_LOADED_BY_NAME = ("libnss_files.so.2", "libnss_dns.so.2", "libresolv.so.2")
_NOBODY = "65534:65534"


@dataclass(frozen=True, slots=True)
class Image:
    """What starts in the image, and how it is called."""

    name: str
    entrypoint: Sequence[str]
    environment: Sequence[str] = ()


PAUSE = Image("localhost/pause:1", ["/pause"])
PRODUCT = Image(
    "localhost/openrouter-guard:test",
    ["openrouter-guard"],
    [f"PATH=/{SITE}/bin:/usr/bin", f"PYTHONPATH=/{SITE}", "PYTHONUNBUFFERED=1", "PYTHONDONTWRITEBYTECODE=1"],
)


def write_pause(archive: Path, program: Path) -> None:
    """Write the image whose process holds a pod's namespaces."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(program, Path(folder, "pause"))
        _write(archive, PAUSE, Path(folder))


def write_product(archive: Path) -> None:
    """Write the image of this checkout, with the versions of ``requirements/all.txt``."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        _copy_python(root)
        _install(root / SITE)
        (valkey,) = (root / SITE).rglob("valkey-server")
        _link(root, valkey.name, "/" / valkey.relative_to(root))
        _copy_libraries(root)
        _write_users(root)
        _write(archive, PRODUCT, root)


def _copy_python(root: Path) -> None:
    """Copy the interpreter and its library to the place where they are here, and link ``python`` to it."""
    program = Path(os.path.realpath(sys.executable))
    _copy(program, root)
    for library in {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}:
        shutil.copytree(
            library,
            f"{root}{library}",
            symlinks=True,
            dirs_exist_ok=True,
            ignore=shutil.ignore_patterns(*_NOT_COPIED),
        )
    for name in ("python", "python3"):
        _link(root, name, program)


def _install(site: Path) -> None:
    pip = [os.path.realpath(sys.executable), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    to = [f"--target={site}", "--root-user-action=ignore"]
    requirements = CHECKOUT / "requirements/all.txt"
    _do([*pip, *to, "--require-hashes", f"--requirement={requirements}"])
    with tempfile.TemporaryDirectory() as folder:
        wheel = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps"]
        _do([*wheel, "--no-build-isolation", f"--wheel-dir={folder}", str(CHECKOUT)])
        (built,) = Path(folder).iterdir()
        _do([*pip, *to, "--upgrade", "--no-deps", str(built)])


def _do(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}:\n{done.stderr}")


def _link(root: Path, name: str, program: Path) -> None:
    link = root / "usr/bin" / name
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.exists():
        link.symlink_to(program)


def _copy_libraries(root: Path) -> None:
    linked = {library for path in root.rglob("*") if _is_linked(path) for library in _libraries(path)}
    for library in linked:
        _copy(Path(library), root)
    for name in _LOADED_BY_NAME:
        for found in Path("/lib").glob(f"*-linux-gnu/{name}"):
            _copy(found, root)
    certificates = Path("/etc/ssl/certs/ca-certificates.crt")
    if certificates.exists():
        _copy(certificates, root)


def _is_linked(path: Path) -> bool:
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def _libraries(path: Path) -> Iterator[str]:
    said = subprocess.run(["ldd", path], capture_output=True, text=True).stdout
    for found in re.finditer(r"(?:=> )?(/\S+) \(0x", said):
        yield found[1]


def _copy(path: Path, root: Path) -> None:
    target = Path(f"{root}{path}")
    if not target.exists() and not path.is_relative_to(root):
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(os.path.realpath(path), target)


def _write_users(root: Path) -> None:
    (root / "etc").mkdir(exist_ok=True)
    (root / "etc/passwd").write_text("root:x:0:0:root:/:/none\nnobody:x:65534:65534:nobody:/:/none\n")
    (root / "etc/group").write_text("root:x:0:\nnogroup:x:65534:\n")
    (root / "etc/nsswitch.conf").write_text("passwd: files\ngroup: files\nhosts: files dns\n")
    (root / "tmp").mkdir(exist_ok=True)
    (root / "tmp").chmod(0o1777)


def _write(archive: Path, image: Image, root: Path) -> None:
    """Write a Docker archive with one layer.

    Source of the format: https://github.com/moby/docker-image-spec/blob/main/v1.2.md
    """
    layer = archive.with_suffix(".layer")
    with tarfile.open(layer, "w", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(root.iterdir()):
            tar.add(path, arcname=path.name, filter=_of_root)
    with layer.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    config = json.dumps(
        {
            "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine],
            "os": "linux",
            "config": {"Entrypoint": image.entrypoint, "Env": image.environment, "User": _NOBODY, "WorkingDir": "/"},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        }
    ).encode()
    config_name, layer_name = f"{hashlib.sha256(config).hexdigest()}.json", f"{digest}/layer.tar"
    manifest = [{"Config": config_name, "RepoTags": [image.name], "Layers": [layer_name]}]
    with tarfile.open(archive, "w") as tar:
        for name, data in ((config_name, config), ("manifest.json", json.dumps(manifest).encode())):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
        tar.add(layer, arcname=layer_name)
    layer.unlink()


def _of_root(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry
