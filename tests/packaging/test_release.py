"""The contents of a release, without building it; ``make release-check`` builds it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from release import notes, versions
from release.__main__ import BOMS
from release.boms import requirements_of
from tests.packaging.test_locks import pins

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
CHANGELOG = """# Changelog

## [Unreleased]

- Soon ([docs](docs/breaker.md), [keep](https://example.com)).

## [0.2.0] - 2026-12-01

- Now.

## [0.1.0] - 2026-11-01

"""


def test_all_places_name_one_version() -> None:
    assert len(set(versions.named_versions().values())) == 1
    assert versions.checked_version(None) == versions.checked_version(f"v{versions.checked_version(None)}")


def test_a_tag_of_another_version_is_refused_with_every_place() -> None:
    with pytest.raises(versions.ReleaseError, match=r"Chart\.yaml is .*, VERSION in Dockerfile is .*, the tag is 9"):
        versions.checked_version("v9.0.0")


@pytest.fixture
def changelog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG)
    monkeypatch.setattr(notes, "ROOT", tmp_path)


@pytest.mark.usefixtures("changelog")
def test_the_notes_are_the_section_of_the_version() -> None:
    assert notes.notes("0.2.0", is_released=True) == "- Now.\n"
    before = "- Soon ([docs](../../blob/v0.3.0/docs/breaker.md), [keep](https://example.com)).\n"
    assert notes.notes("0.3.0", is_released=False) == before


@pytest.mark.usefixtures("changelog")
@pytest.mark.parametrize("version", ["0.1.0", "0.3.0", "0x2.0"])
def test_a_release_without_a_section_is_refused(version: str) -> None:
    with pytest.raises(versions.ReleaseError, match=r"rename \[Unreleased\]"):
        notes.notes(version, is_released=True)


@pytest.mark.parametrize("locks", BOMS.values(), ids=BOMS)
def test_a_bill_of_materials_has_each_pin_of_its_locks_once(locks: tuple[str, ...]) -> None:
    found = re.findall(r"^(\S+==\S+)", requirements_of(locks), re.MULTILINE)
    assert sorted(found) == sorted({pin.split()[0] for lock in locks for pin in pins(lock)})


def test_the_image_of_a_target_has_a_bill_of_materials_of_what_it_installs() -> None:
    installs = re.findall(
        r"^RUN sh image/install\.sh dependencies (.+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE
    )
    assert sorted(installs) == sorted(" ".join(locks) for name, locks in BOMS.items() if "image" in name)
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text())["jobs"]
    suffixes = {each["suffix"] for each in jobs["images"]["strategy"]["matrix"]["include"]}
    assert {f"openrouter-guard-image{suffix}" for suffix in suffixes} == {name for name in BOMS if "image" in name}


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_are_pinned_by_commit_with_their_version(workflow: Path) -> None:
    used = re.findall(r"\buses: (.+)", workflow.read_text())
    assert used
    for action in used:
        assert re.fullmatch(r"\S+@[0-9a-f]{40} # v\d+\.\d+\.\d+|\$/\.github/\S+", action)


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_may_only_read_unless_a_job_says_more(workflow: Path) -> None:
    assert yaml.safe_load(workflow.read_text())["permissions"] in ({}, {"contents": "read"})
