"""The images of the Dockerfile, built for real: by buildah, without a daemon, on a base made of this Python.

Each is built once for the same files, into ``$XDG_CACHE_HOME/openrouter-guard/images``, as an archive.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from release.versions import checked_version
from tests.base_image import fill

__all__ = ["BASE", "COPIED", "PRODUCT", "REVISION", "Buildah", "built"]

ROOT = Path(__file__).parents[1]
BASE = "localhost/base:tests"
PRODUCT = f"registry.example/openrouter-guard:{checked_version(None)}"
"""The name that the README gives to the image built from the Dockerfile."""
REVISION = "abc"
COPIED = ("LICENSE", "README.md", "crds", "image", "operator", "pyproject.toml", "requirements", "service")
"""What the Dockerfile copies from the checkout."""
_OTHERS = ("Dockerfile", ".dockerignore", "tests/base_image.py", "tests/product_image.py")
_PATIENCE_S = 500.0


class Buildah:
    """buildah, with a storage of its own for as long as the context lasts."""

    def __init__(self) -> None:
        self._storage = Path(tempfile.mkdtemp(prefix="buildah-"))

    def __enter__(self) -> Buildah:
        return self

    def __exit__(self, *_: object) -> None:
        self("rm", "--all")
        shutil.rmtree(self._storage)

    def __call__(self, *words: str) -> str:
        """Return what a command prints.

        Raises:
            RuntimeError: If it fails, with the end of what it said.
        """
        options = ["--root", str(self._storage / "root"), "--runroot", str(self._storage / "run")]
        command = ["buildah", *options, "--storage-driver", "vfs", *words]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=_PATIENCE_S)
        if done.returncode:
            raise RuntimeError(f"buildah {' '.join(words)}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        return done.stdout.strip()


def built(target: str = "") -> Path:
    """Return the archive of the image of a target of the Dockerfile, or of its last stage: :data:`PRODUCT`."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(home, "openrouter-guard", "images")
    folder.mkdir(parents=True, exist_ok=True)
    archive = folder / f"{target or 'both'}-{_fingerprint()}.tar"
    with (folder / f"{target or 'both'}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not archive.exists():
            for older in folder.glob(f"{target or 'both'}-*"):
                older.unlink()
            _build(archive, target)
    return archive


def _build(archive: Path, target: str) -> None:
    name = f"localhost/{target}:tests" if target else PRODUCT
    arguments = [f"--build-arg=PYTHON_IMAGE={BASE}", f"--build-arg=REVISION={REVISION}"]
    chosen = [f"--target={target}"] if target else []
    unfinished = archive.with_suffix(".unfinished")
    with Buildah() as buildah:
        _make_base(buildah)
        buildah("bud", "--isolation=chroot", "--pull-never", *arguments, *chosen, f"--tag={name}", str(ROOT))
        buildah("push", name, f"docker-archive:{unfinished}:{name}")
    unfinished.rename(archive)


def _make_base(buildah: Buildah) -> None:
    with tempfile.TemporaryDirectory() as folder:
        fill(Path(folder))
        Path(folder).chmod(0o755)
        container = buildah("from", "scratch")
        buildah("add", container, folder, "/")
    buildah("config", "--env=PATH=/usr/local/bin:/usr/bin:/bin", container)
    buildah("commit", "--rm", container, BASE)


def _fingerprint() -> str:
    said = hashlib.sha256(sys.version.encode())
    for path in sorted(_files()):
        said.update(f"{path.relative_to(ROOT)} {path.stat().st_mode:o}".encode())
        said.update(path.read_bytes())
    return said.hexdigest()[:12]


def _files() -> Iterator[Path]:
    for name in (*COPIED, *_OTHERS):
        path = ROOT / name
        for file in path.rglob("*") if path.is_dir() else [path]:
            if file.is_file() and "__pycache__" not in file.parts:
                yield file
