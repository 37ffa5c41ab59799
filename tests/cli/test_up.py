"""``openrouter-guard up``, which is ``make run``: all parts on embedded defaults, and an outage."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.ports import free_port
from tests.waiting import until

pytestmark = pytest.mark.slow


@dataclass(frozen=True, slots=True)
class Up:
    """Everything, running."""

    process: subprocess.Popen[bytes]
    log_file: Path

    @property
    def said(self) -> str:
        return self.log_file.read_text()

    def url(self, pattern: str) -> str:
        """The first address in the output that the pattern captures."""
        until(lambda: re.search(pattern, self.said), seconds=15)
        found: str = re.findall(pattern, self.said)[0]
        return found

    def status(self) -> dict[str, object]:
        answer = httpx.get(self.url(r"curl (\S+/status)\n"))
        assert answer.status_code == 200
        body: dict[str, object] = answer.json()
        return body

    def is_open(self) -> bool:
        return bool(self.status()["circuit_breaker_open"])

    def switch(self, mode: str) -> None:
        httpx.put(self.url(r"curl -X PUT (\S+/simulate)"), json={"mode": mode}).raise_for_status()


@contextmanager
def up(log_file: Path, *words: str) -> Iterator[Up]:
    ours = ("OPENROUTER", "REDIS", "KUBECONFIG")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    environ |= {"OPENROUTER_GUARD_RESET_TIMEOUT_SECONDS": "2"}
    command = [sys.executable, "-m", "openrouter_guard", "up", *words]
    with log_file.open("wb") as log:
        process = subprocess.Popen(command, env=environ, stdout=log, stderr=log, start_new_session=True)
    try:
        yield Up(process, log_file)
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Up]:
    with up(tmp_path / "up.log", f"--port={free_port()}") as running:
        until(lambda: "startup complete" in running.said, seconds=20)
        yield running


def test_an_outage_opens_the_breaker_within_a_second_and_its_end_closes_it(running: Up) -> None:
    until(lambda: running.status()["status"] == "active", seconds=10)
    assert running.status()["cache_hit"] is True
    running.switch("outage")
    until(running.is_open, seconds=3)
    running.switch("healthy")
    until(lambda: not running.is_open(), seconds=15)
    assert "calls go through again" in running.said


def test_ctrl_c_ends_everything(running: Up) -> None:
    os.killpg(running.process.pid, signal.SIGINT)
    assert running.process.wait(15) == 0
    assert "Traceback" not in running.said
    with pytest.raises(httpx.TransportError):
        running.status()
    with pytest.raises(httpx.TransportError):
        running.switch("outage")


def test_killed_it_leaves_nothing_behind(running: Up) -> None:
    ports = [running.url(rf"{name} .*//127.0.0.1:(\d+)") for name in ("health service", "redis", "upstream")]
    assert all(is_there(int(port)) for port in ports)
    running.process.kill()
    until(lambda: not any(is_there(int(port)) for port in ports))


def is_there(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_port_that_is_taken_is_said_and_another_one_used(running: Up, tmp_path: Path) -> None:
    taken = running.url(r"health service  http://127.0.0.1:(\d+)")
    with up(tmp_path / "second.log", f"--port={taken}") as second:
        until(lambda: "startup complete" in second.said, seconds=20)
        assert f"(port {taken} is taken)" in second.said
        until(lambda: second.status()["status"] == "active", seconds=10)
