"""The command line in general: help, versions, unknown commands, interrupts."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.cli.commands import run


def test_help_names_every_command() -> None:
    done = run("--help")
    assert done.returncode == 0
    of_people = ("status", "history", "workers", "models", "override", "why", "plan", "suspend", "resume", "config")
    for_help = ("doctor", "report", "completion", "version")
    for command in (*of_people, *for_help, "up", "serve", "operate", "rescue", "simulate", "probe"):
        assert re.search(rf"^    {command}\b", done.stdout, re.MULTILINE), command


def test_an_unknown_command_is_a_usage_error() -> None:
    done = run("fly")
    assert done.returncode == 2
    assert "invalid choice: 'fly'" in done.stderr


@pytest.mark.parametrize(
    ("command", "missing"),
    [("serve", "fastapi"), ("operate", "kopf")],
)
def test_an_extra_that_is_not_installed_is_named(command: str, missing: str) -> None:
    script = (
        "import os, sys\n"
        "os.environ['REDIS_URL'] = 'redis://127.0.0.1:1/0'\n"
        f"sys.modules[{missing!r}] = None\n"
        "from openrouter_guard.cli import main\n"
        "sys.exit(main([sys.argv[1]]))\n"
    )
    done = subprocess.run([sys.executable, "-c", script, command], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr.startswith(f"openrouter-guard: {missing} is not installed: in a checkout, pip install '.[")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("command", ["up", "serve", "simulate"])
@pytest.mark.parametrize("port", ["99999", "-1", "http"])
def test_a_port_that_cannot_be_is_a_usage_error(command: str, port: str) -> None:
    done = run(command, f"--port={port}")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"argument --port: '{port}': write a port from 0 to 65535" in done.stderr
