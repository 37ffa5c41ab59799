"""docs/configuration.md: every variable that is read, and no other."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from openrouter_guard.settings import Settings
from openrouter_guard.variables import NAMES, PREFIX
from openrouter_operator.settings import OperatorSettings

DOCUMENT = Path("docs/configuration.md")
AT_THE_EDGE = {"OPENROUTER_GUARD_LOG_LEVEL", "OPENROUTER_GUARD_LOG_FORMAT"}
"""Read before there are settings."""


class Asked(Mapping[str, str]):
    """An environment that remembers what it was asked for."""

    def __init__(self, **known: str) -> None:
        self._known = known
        self.names: set[str] = set()

    def __getitem__(self, name: str) -> str:
        self.names.add(name)
        return self._known[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)


def documented() -> set[str]:
    rows = re.findall(r"^\| (`[^|]+`) \|", DOCUMENT.read_text(), re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`([A-Z0-9_<>]+)`", row)}


def test_every_variable_that_is_read_is_documented_and_no_other() -> None:
    asked = Asked(REDIS_URL="redis://redis:6379/0", OPENROUTER_GUARD_FURTHER_SCOPES="team-a")

    OperatorSettings.from_env(asked)

    read = {name.replace("TEAM_A", "<SCOPE>") for name in asked.names}
    assert read | AT_THE_EDGE == documented()


def test_a_name_that_is_documented_is_not_taken_for_a_typo() -> None:
    ours = {name for name in documented() if name.startswith(PREFIX)}
    assert {PREFIX + name for name in NAMES} == ours


def test_a_default_that_is_a_number_is_the_one_that_holds() -> None:
    rows = re.findall(r"^\| `OPENROUTER_GUARD_([A-Z_]+)` \| ([0-9.]+) \|", DOCUMENT.read_text(), re.MULTILINE)
    given = {f"OPENROUTER_GUARD_{name}": value for name, value in rows}
    assert len(given) > 20

    redis_url = "redis://redis:6379/0"
    assert Settings.from_env({"REDIS_URL": redis_url, **given}) == Settings.from_env({"REDIS_URL": redis_url})


@pytest.mark.parametrize("document", ["README.md", "docs/breaker.md", "docs/worker.md"])
def test_who_looks_for_all_settings_is_sent_here(document: str) -> None:
    assert re.search(r"\]\((docs/)?configuration\.md(#[a-z-]+)?\)", Path(document).read_text())
