"""The format of a log line: text with key=value pairs, or JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.commands import NOBODY, run, serving

FACTS = {"redis": "redis://redis:6379/0", "why": 'it said "no"\nand left', "none": "", "calls": 3}


def line(form: str, error: str | None = None, of: str = "away") -> str:
    """What a process of its own writes, for logging is set up once in each."""
    script = f"""
import logging
from openrouter_guard.cli import logs
logs.configure({{"OPENROUTER_GUARD_LOG_FORMAT": {form!r}}})
logging.getLogger("a.b").warning("Redis is %s", {of!r}, extra={FACTS!r}, exc_info={error})
"""
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120).stderr


def test_text_ends_with_the_facts_each_in_one_piece() -> None:
    said = line("text")
    assert said.count("\n") == 1
    assert said.partition(" a.b ")[2] == (
        'Redis is away redis=redis://redis:6379/0 why="it said \\"no\\"\\nand left" none="" calls=3\n'
    )


def test_json_is_one_object_a_line_with_the_facts() -> None:
    told = json.loads(line("json"))
    assert told.pop("time").endswith("+00:00")
    assert told == {"level": "WARNING", "logger": "a.b", "message": "Redis is away"} | FACTS


@pytest.mark.parametrize("form", ["text", "json"])
def test_no_words_of_others_begin_a_line_or_command_a_terminal(form: str) -> None:
    said = line(form, of="away\n2026-03-01 CRITICAL all is lost\x1b[2J\x9b2J\u202e\u2028")
    assert said.removesuffix("\n").isprintable()
    assert r"away\n2026-03-01 CRITICAL all is lost\u001b[2J\u009b2J\u202e\u2028" in said


def test_json_keeps_a_traceback_in_its_line() -> None:
    said = line("json", "ValueError('two\\nlines')")
    assert said.count("\n") == 1
    assert json.loads(said)["traceback"] == "ValueError: two\nlines"


def test_a_service_writes_nothing_but_json(tmp_path: Path) -> None:
    faults = {"REDIS_URL": NOBODY, "OPENROUTER_GUARD_FRESH": "20", "OPENROUTER_GUARD_REDIS_TIMEOUT_SECONDS": "0.3"}
    with serving(tmp_path / "log", OPENROUTER_GUARD_LOG_FORMAT="json", **faults) as service:
        pass
    told = [json.loads(each) for each in service.log.splitlines()]
    assert any("OPENROUTER_GUARD_FRESH is not a setting" in each["message"] for each in told)
    assert {"time", "level", "logger", "message"} <= set.intersection(*map(set, told))


def test_another_form_is_one_line() -> None:
    done = run("serve", "--port", "0", REDIS_URL=NOBODY, OPENROUTER_GUARD_LOG_FORMAT="xml")
    assert done.returncode == 1
    assert done.stderr == "openrouter-guard: OPENROUTER_GUARD_LOG_FORMAT is 'xml': write text or json\n"
