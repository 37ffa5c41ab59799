"""The Celery recipe runs in an environment with just the extra and the SDK that it imports."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import openrouter_guard
from tests.recipes.code import code_under, environment

pytestmark = pytest.mark.slow

_RUN = """
import sys

sys.path[:0] = {paths!r}
import importlib.util

from celery.contrib.testing.worker import start_worker

import tasks

for other in ("fastapi", "kopf", "pydantic_settings", "pytest"):
    assert importlib.util.find_spec(other) is None, other
with start_worker(tasks.app, pool="solo", perform_ping_check=False):
    print(tasks.answer.delay("Are you there?").get(timeout=30))
tasks.guard.close()
"""


def closure(*wanted: str) -> dict[str, Distribution]:
    """What an installer brings for these requirements, by name."""
    found: dict[str, Distribution] = {}
    seen: set[str] = set()
    todo = [Requirement(text) for text in wanted]
    while todo:
        requirement = todo.pop()
        if str(requirement) in seen:
            continue
        seen.add(str(requirement))
        held = found.setdefault(canonicalize_name(requirement.name), distribution(requirement.name))
        assert requirement.specifier.contains(held.version, prereleases=True), requirement
        extras = requirement.extras or {""}
        needed = map(Requirement, held.requires or ())
        todo += [each for each in needed if each.marker is None or _holds(each.marker, extras)]
    return found


def _holds(marker: Marker, extras: Iterable[str]) -> bool:
    return any(marker.evaluate({"extra": extra}) for extra in extras)


def site_with(folder: Path, distributions: dict[str, Distribution]) -> Path:
    """A folder to import from, with the files of these distributions and no others."""
    for held in distributions.values():
        for file in held.files or ():
            top = folder / file.parts[0]
            if file.parts[0] not in {"..", "__pycache__"} and not top.exists():
                top.symlink_to(Path(str(held.locate_file(file.parts[0]))))
    return folder


def test_it_runs_with_just_that_extra(redis_url: str, base_url: str, tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    brought = closure("openrouter-guard[celery]", "openai")
    assert {"celery", "kombu", "redis"} <= brought.keys()
    site_with(site, {name: held for name, held in brought.items() if name != "openrouter-guard"})
    (site / "openrouter_guard").symlink_to(Path(str(openrouter_guard.__file__)).parent)
    (recipe,) = code_under("Celery")
    (tmp_path / "tasks.py").write_text(recipe)
    script = _RUN.format(paths=[str(tmp_path), str(site)])
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script],
        env=environment(redis_url, base_url),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "This is a simulated answer.\n"


def test_the_extra_lets_celery_say_which_redis_py_it_can_use() -> None:
    asked = {
        name for text in distribution("kombu").requires or () for name in [Requirement(text).name] if "extra" in text
    }
    assert "redis" in asked
    extra = [Requirement(text) for text in distribution("openrouter-guard").requires or () if "celery" in text]
    assert [(each.name, each.extras) for each in extra] == [("celery", {"redis"})]
