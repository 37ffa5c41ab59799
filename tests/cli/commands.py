"""Run the command line as real processes with their own environment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.ports import free_port
from tests.waiting import until

__all__ = ["NOBODY", "Answer", "Serving", "ask", "run", "serving", "serving_on"]

NOBODY = "redis://user:hunter2@127.0.0.1:1/0"
"""An address where nothing listens."""
START_S = 20.0


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Serving:
    """A running health service."""

    url: str
    process: subprocess.Popen[bytes]
    log_file: Path

    @property
    def log(self) -> str:
        return self.log_file.read_text()


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run ``openrouter-guard`` to its end, with these variables of ours and no others."""
    return subprocess.run(_command(*arguments), env=_environ(environ), capture_output=True, text=True, timeout=120)


@contextmanager
def serving(log_file: Path, **environ: str) -> Iterator[Serving]:
    """``openrouter-guard serve`` on a free port, once it answers."""
    with serving_on(free_port(), log_file, environ) as serving:
        yield serving


@contextmanager
def serving_on(port: int, log_file: Path, environ: dict[str, str], *, scheme: str = "http") -> Iterator[Serving]:
    """The same on a port that is known before; with TLS once its log says that it runs."""
    with log_file.open("wb") as log:
        command = _command("serve", "--port", str(port))
        process = subprocess.Popen(command, env=_environ(environ), stdout=log, stderr=log)
    serving = Serving(f"{scheme}://127.0.0.1:{port}", process, log_file)

    def answers() -> object:
        return ask(f"{serving.url}/livez") if scheme == "http" else f"running on {serving.url}" in serving.log

    try:
        until(lambda: process.poll() is not None or answers(), seconds=START_S)
        assert process.poll() is None, serving.log
        yield serving
    finally:
        process.terminate()
        process.wait(10)


def ask(url: str) -> Answer | None:
    """What it answers; None if nobody listens."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return Answer(answer.status, json.load(answer))
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, json.load(error))
    except OSError:
        return None


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "openrouter_guard", *arguments]


def _environ(ours: dict[str, str]) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("OPENROUTER", "REDIS"))}
    return inherited | ours
