"""docs/command-line.md: each command runs, and each answer looks as the page says; it names every command."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from openrouter_guard.cli.parser import parser
from openrouter_guard.store import Store
from tests.cli.commands import run
from tests.examples import is_like
from tests.store.outages import outage

pytestmark = pytest.mark.slow

TEXT = (Path(__file__).parents[2] / "docs" / "command-line.md").read_text()
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
ELSEWHERE = {"up", "serve", "operate", "simulate", "rescue", "probe"}
"""Commands that other pages describe."""


def examples() -> Iterator[tuple[str, str, str]]:
    """Each command with the block that follows it: its language and its text."""
    commands: list[str] = []
    for language, text in BLOCK.findall(TEXT):
        if language == "console":
            lines = [line.removeprefix("$ ") for line in text.splitlines() if line.startswith("$ ")]
            commands = [line for line in lines if line.startswith("openrouter-guard")]
            yield from ((command, "", "") for command in commands)
        elif commands:
            yield commands[-1], language, text


EXAMPLES = list(examples())
WITH_A_CLUSTER = re.compile(r"openrouter-guard (status .*(-A|-n )|why|plan|suspend|resume|drill)")
"""These run in test_cluster_commands.py, and drills in test_drill.py."""
WITH_REDIS = [each for each in EXAMPLES if not WITH_A_CLUSTER.match(each[0])]


@pytest.mark.parametrize(
    ("command", "language", "told"), WITH_REDIS, ids=[f"{each[0]} {each[1]}" for each in WITH_REDIS]
)
async def test_the_example_runs_and_answers_as_it_says(
    redis_url: str, store: Store, command: str, language: str, told: str
) -> None:
    await outage(store)
    done = run(*shlex.split(command, comments=True)[1:], REDIS_URL=redis_url, KUBECONFIG="")
    assert done.returncode in ({0, 3} if "doctor" in command else {0}), done.stderr
    assert done.stderr == "" or "--file" in command
    if language == "json":
        assert is_like(json.loads(told), json.loads(done.stdout)), done.stdout
    elif told:
        # Times, and the state at them, differ.
        assert first_words(told) - {"until"} <= first_words(done.stdout), done.stdout


def first_words(text: str) -> set[str]:
    return {line.split()[0] for line in text.splitlines() if line.strip()}


def test_it_describes_every_command() -> None:
    (commands,) = (action for action in parser()._actions if action.choices and action.dest == "==SUPPRESS==")
    assert commands.choices
    described = {
        name for line in re.findall(r"^### (`.*)$", TEXT, re.MULTILINE) for name in re.findall(r"`([a-z]+)", line)
    }
    assert described == set(commands.choices) - ELSEWHERE
