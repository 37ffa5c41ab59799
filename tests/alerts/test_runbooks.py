"""docs/runbooks: a page for each alert, with commands that exist; and the list of them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from openrouter_guard.cli.parser import parser
from tests.alerts.programs import RUNBOOKS, alerts

HEADINGS = ["Meaning", "Impact", "Diagnosis", "Mitigation"]
_ROOT = Path(__file__).parents[2]
_IN_A_BLOCK = re.compile(r"^\$ (openrouter-guard .*)$", re.MULTILINE)
_IN_A_LINE = re.compile(r"`(openrouter-guard [^`]*)`")
PARSER = parser()
_LIST = RUNBOOKS / "README.md"


def pages() -> dict[str, str]:
    return {page.stem: page.read_text() for page in sorted(RUNBOOKS.glob("OpenRouterGuard*.md"))}


def commands() -> list[tuple[str, str]]:
    """Each command of ours, with its page."""
    return [
        (name, command)
        for name, text in pages().items()
        for command in dict.fromkeys([*_IN_A_BLOCK.findall(text), *_IN_A_LINE.findall(text)])
    ]


def listed() -> list[str]:
    """Return the rows of the list, as they should be."""
    return [_row(name, rule) for name, rule in alerts().items()]


def _row(name: str, rule: dict[str, Any]) -> str:
    return f"| [{name}]({name}.md) | {rule['labels']['severity']} | {rule.get('for', 'at once')} |"


def test_each_alert_has_a_page_and_each_page_an_alert() -> None:
    assert pages().keys() == alerts().keys()


@pytest.mark.parametrize("name", alerts())
def test_the_address_in_the_alert_is_that_of_its_page(name: str) -> None:
    address = alerts()[name]["annotations"]["runbook_url"]
    assert address == f"docs/runbooks/{name}.md"
    assert (_ROOT / address).is_file()


@pytest.mark.parametrize("name", alerts())
def test_a_page_says_what_one_needs_in_the_night(name: str) -> None:
    text = pages()[name]
    assert text.startswith(f"# {name}\n")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == HEADINGS
    assert "$ " in text.partition("## Diagnosis")[2].partition("## Mitigation")[0], "no command to diagnose with"


@pytest.mark.parametrize(("name", "command"), commands(), ids=lambda value: value)
def test_each_command_exists(name: str, command: str) -> None:
    assert PARSER.parse_args(shlex.split(command)[1:]), name


def test_the_list_is_that_of_the_alerts() -> None:
    rows = [line for line in _LIST.read_text().splitlines() if line.startswith("| [")]
    assert rows == listed()
