"""The locks in requirements/: one resolution for all, so that users install the versions that the tests used."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
AUDIENCES = ("worker", "service", "operator", "all", "build")
Pins: TypeAlias = Mapping[str, frozenset[str]]
"""What is installed: a requirement with its version and marker, and the hashes of its files."""


def pins(audience: str) -> Pins:
    text = (ROOT / "requirements" / f"{audience}.txt").read_text().replace("\\\n", " ")
    lines = [line.split("--hash=") for line in text.splitlines() if line and not line.lstrip().startswith("#")]
    return {" ".join(pin.split()): frozenset(map(str.strip, hashes)) for pin, *hashes in lines}


def names(found: Pins) -> set[str]:
    return {canonicalize_name(Requirement(pin).name) for pin in found}


def versions(found: Pins) -> dict[str, str]:
    """The versions by name, on whatever machine: a marker says who needs it."""
    return {canonicalize_name(each.name): str(each.specifier) for each in map(Requirement, found)}


def project() -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return table


def asked_for(audience: str) -> set[str]:
    """The distributions that an audience asks for itself, its extras and those of these taken apart."""
    table = project()
    wanted: set[str] = set()
    extras = [] if audience == "worker" else [audience]
    todo = [*table["dependencies"]]
    while todo or extras:
        while extras:
            todo += table["optional-dependencies"][extras.pop()]
        requirement = Requirement(todo.pop())
        if requirement.name == table["name"]:
            extras += requirement.extras
        else:
            wanted.add(canonicalize_name(requirement.name))
    return wanted


@pytest.mark.parametrize("audience", AUDIENCES)
def test_everybody_gets_the_versions_and_files_that_the_tests_ran_with(audience: str) -> None:
    assert pins(audience).items() <= pins("dev").items()


@pytest.mark.parametrize("addition", ["bench", "release"])
def test_what_is_added_for_benchmarks_or_a_release_changes_no_version(addition: str) -> None:
    dev, more = versions(pins("dev")), versions(pins(addition))
    assert {name: more[name] for name in more.keys() & dev.keys()}.items() <= dev.items()


@pytest.mark.parametrize("audience", ["worker", "service", "operator", "all"])
def test_a_lock_has_all_that_its_audience_asks_for(audience: str) -> None:
    assert asked_for(audience) <= names(pins(audience))


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_a_lock_pins_and_hashes_everything_and_names_no_index(lock: Path) -> None:
    for pin, hashes in pins(lock.stem).items():
        assert re.match(r"[a-z0-9._-]+(\[[a-z,]+\])?==\S+", pin)
        assert hashes
    assert not re.search(r"://|--(extra-)?index|--find-links", lock.read_text())


def test_make_run_installs_what_it_needs_and_not_the_development_lock() -> None:
    command = ["make", "--dry-run", "--always-make", "run"]
    told = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert set(re.findall(r"requirements/(\w+)\.txt", told)) == {"all", "build"}


def test_the_lock_of_the_typescript_tools_has_hashes_and_names_no_index() -> None:
    lock = json.loads((ROOT / "tests" / "clients" / "typescript" / "package-lock.json").read_text())
    packages = [package for name, package in lock["packages"].items() if name]
    assert packages
    assert all(package["integrity"].startswith("sha512-") and "resolved" not in package for package in packages)
