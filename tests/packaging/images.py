"""The environment of an image: the installed packages without the files that its build removes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import Distribution
from pathlib import Path
from shutil import copy2, copytree, ignore_patterns

from tests.packaging.test_celery_extra import closure

__all__ = ["Image", "installed", "prune"]

ROOT = Path(__file__).parents[2]
CODE = "import sys; sys.path.insert(0, {site!r}); from openrouter_guard.cli import main; sys.exit(main())"


@dataclass(frozen=True, slots=True)
class Image:
    """The site-packages of an image, run by this Python with nothing else to import."""

    site: Path

    def run(self, code: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-I", "-S", "-c", code.format(site=str(self.site))]
        return subprocess.run(command, capture_output=True, text=True, timeout=120)

    def command(self, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
        started = self._arguments(words)
        return subprocess.run(started, env=_environ(environ), capture_output=True, text=True, timeout=120)

    @contextmanager
    def running(self, log_file: Path, *words: str, **environ: str) -> Iterator[subprocess.Popen[bytes]]:
        with log_file.open("wb") as log:
            process = subprocess.Popen(self._arguments(words), env=_environ(environ), stdout=log, stderr=log)
        try:
            yield process
            assert process.poll() is None, log_file.read_text()
        finally:
            process.terminate()
            process.wait(30)

    def _arguments(self, words: tuple[str, ...]) -> list[str]:
        return [sys.executable, "-I", "-S", "-c", CODE.format(site=str(self.site)), *words]


def _environ(ours: dict[str, str]) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("OPENROUTER", "REDIS"))}
    return inherited | ours


def installed(site: Path) -> Image:
    """Fill the folder with what the image has."""
    for held in closure("openrouter-guard[service,operator]").values():
        _install(held, site)
    for package in ("service/openrouter_guard", "operator/openrouter_operator"):
        ours = site / Path(package).name
        copytree(ROOT / package, ours, ignore=ignore_patterns("__pycache__"), dirs_exist_ok=True)
    prune(site)
    return Image(site)


def _install(held: Distribution, site: Path) -> None:
    for file in held.files or ():
        if ".." not in file.parts and file.suffix != ".pyc":
            (site / file).parent.mkdir(parents=True, exist_ok=True)
            _link(Path(str(held.locate_file(file))), site / file)


def _link(source: Path, target: Path) -> None:
    with suppress(OSError):  # another file system
        target.hardlink_to(source)
        return
    copy2(source, target)


def prune(site: Path) -> str:
    script = str(ROOT / "image" / "prune.py")
    return subprocess.run([sys.executable, script, str(site)], check=True, capture_output=True, text=True).stdout
