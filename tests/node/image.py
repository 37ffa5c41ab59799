"""The product as a container image: this Python, the locked dependencies and a wheel of the checkout, in one layer.

It needs no registry and no daemon. The root file system is that of :mod:`tests.base_image`, with the shared libraries
that the dependencies link to.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.base_image import add_libraries, fill

__all__ = ["PAUSE", "PRODUCT", "Image", "write_pause", "write_product"]

CHECKOUT = Path(__file__).parents[2]
SITE = "opt/site"
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
    [
        f"PATH=/{SITE}/bin:/usr/local/bin",
        f"PYTHONPATH=/{SITE}",
        "HOME=/",
        "PYTHONUNBUFFERED=1",
        "PYTHONDONTWRITEBYTECODE=1",
    ],
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
        fill(root)
        _install(root / SITE)
        (valkey,) = (root / SITE).rglob("valkey-server")
        (root / "usr/local/bin" / valkey.name).symlink_to("/" / valkey.relative_to(root))
        add_libraries(root, filter(_is_linked, (root / SITE).rglob("*")))
        _write(archive, PRODUCT, root)


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


def _is_linked(path: Path) -> bool:
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


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
