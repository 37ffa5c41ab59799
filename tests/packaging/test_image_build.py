"""The images, built for real from the Dockerfile: by buildah, without a daemon, on a base made of this Python."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from release.versions import checked_version
from tests.cli.commands import ask
from tests.ports import free_port
from tests.product_image import BASE, COPIED, REVISION, Buildah, built
from tests.waiting import until

ROOT = Path(__file__).parents[2]
MOST_MB = 75
"""Of the layer that we add: together with the 125 MB of ``python:3.13-slim``, an image has at most 200."""
MOST_START_S = 10.0
"""On a busy machine; it takes 1 to 2."""

_UNCHECKED = 1
"""The first byte after the magic number of bytecode that has a hash, which is not checked (PEP 552)."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to build an image without a daemon"),
    pytest.mark.skipif(not shutil.which("buildah"), reason="needs buildah: apt-get install buildah"),
]


@dataclass(frozen=True, slots=True)
class Image:
    """An image of ours, and its file system."""

    config: dict[str, Any]
    root: Path

    @property
    def environment(self) -> Path:
        """The folder that we add to the base."""
        return self.root / "opt/openrouter-guard"

    def run(self, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, as the image's user, on a root file system that is read-only."""
        return subprocess.run(self._command(words, environ), env={}, capture_output=True, text=True, timeout=120)

    @contextmanager
    def running(self, log_file: Path, *words: str, **environ: str) -> Iterator[None]:
        with log_file.open("w") as log:
            process = subprocess.Popen(self._command(words, environ), env={}, stdout=log, stderr=log)
        try:
            yield
            assert process.poll() is None, log_file.read_text()
        finally:
            process.terminate()
            process.wait(60)

    def _command(self, words: Sequence[str], environ: dict[str, str]) -> list[str]:
        read_only = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'
        variables = [*self.config["Env"], *(f"{name}={value}" for name, value in environ.items())]
        inside = [
            shutil.which("chroot") or "chroot",
            f"--userspec={self.config['User']}",
            str(self.root),
            *self.config["Entrypoint"],
        ]
        shell = ["/usr/bin/env", f"PATH={os.environ['PATH']}", "unshare", "--mount", "sh", "-c", read_only]
        return [*shell, str(self.root), "env", *variables, *inside, *words]


@pytest.fixture(scope="module")
def image_of() -> Iterator[Callable[[str], Image]]:
    with Buildah() as buildah:

        def image_of(target: str) -> Image:
            container = buildah("from", f"docker-archive:{built(target)}")
            config = json.loads(buildah("inspect", container))["OCIv1"]["config"]
            return Image(config, Path(buildah("mount", container)))

        yield image_of


@pytest.fixture(scope="module")
def service(image_of: Callable[[str], Image]) -> Image:
    return image_of("service")


@pytest.fixture(scope="module")
def operator(image_of: Callable[[str], Image]) -> Image:
    return image_of("operator")


@pytest.fixture(scope="module")
def both(image_of: Callable[[str], Image]) -> Image:
    return image_of("")


@pytest.fixture(params=["service", "operator", "both"])
def image(request: pytest.FixtureRequest) -> Image:
    found: Image = request.getfixturevalue(request.param)
    return found


def test_a_change_of_what_the_dockerfile_copies_builds_a_new_image() -> None:
    lines = [line.split() for line in (ROOT / "Dockerfile").read_text().splitlines()]
    copied = {
        word.rstrip("/") for line in lines if line[:1] == ["COPY"] and "--from" not in line[1] for word in line[1:-1]
    }
    assert copied == {*COPIED}


def test_an_image_says_what_it_is_and_runs_as_nobody(image: Image) -> None:
    assert image.config["User"] == "65534:65534"
    labels = {name.removeprefix("org.opencontainers.image."): text for name, text in image.config["Labels"].items()}
    assert (labels["version"], labels["revision"]) == (checked_version(None), REVISION)
    assert labels["base.name"] == BASE
    assert image.run("--version").stdout.strip() == f"openrouter-guard {checked_version(None)}"


def test_an_image_adds_little_and_no_installer(image: Image) -> None:
    files = [path for path in image.environment.rglob("*") if path.is_file() and not path.is_symlink()]
    megabytes = sum(path.stat().st_size for path in files) / 1e6
    print(f"{megabytes:.0f} MB")
    assert megabytes < MOST_MB
    assert not [path for path in files if path.name in {"pip", "pip3", "ensurepip"}]


def test_bytecode_is_not_compared_with_its_source(image: Image) -> None:
    bytecode = [*image.environment.glob("lib/python3*/site-packages/**/__pycache__/*.pyc")]
    assert any("openrouter_guard/" in str(path) for path in bytecode)
    assert [path for path in bytecode if path.read_bytes()[4] != _UNCHECKED] == []


def test_the_health_service_starts_and_a_probe_reads_the_state(
    service: Image, redis_url: str, tmp_path: Path
) -> None:
    port = free_port()
    began = time.monotonic()
    with service.running(tmp_path / "log", *service.config["Cmd"][:-1], str(port), REDIS_URL=redis_url):
        until(lambda: (found := ask(f"http://127.0.0.1:{port}/readyz")) and found.status == 200)
        took_s = time.monotonic() - began
    print(f"ready after {took_s:.1f} s")
    assert took_s < MOST_START_S
    done = service.run("probe", REDIS_URL=redis_url)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("words", [("operate",), ("rescue", "--all-namespaces")])
def test_the_operator_and_the_rescue_start_and_miss_only_their_cluster(operator: Image, words: list[str]) -> None:
    done = operator.run(*words, REDIS_URL="redis://127.0.0.1:1/0")
    assert done.returncode == 1
    assert "no Kubernetes cluster" in done.stderr
