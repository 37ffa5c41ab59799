"""``openrouter-guard simulate`` as a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from tests.controlplane.processes import free_port


@contextmanager
def simulate(port: int) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "openrouter_guard", "simulate", "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_starts_answers_and_ends_at_a_signal(number: signal.Signals) -> None:
    port = free_port()
    origin = f"http://127.0.0.1:{port}"
    with simulate(port) as process:
        assert process.stdout
        assert process.stderr
        assert f"answers at {origin}/api/v1" in process.stdout.readline()
        assert httpx.put(f"{origin}/simulate", json={"mode": "dropped"}).json()["mode"] == "dropped"
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.get(f"{origin}/api/v1/key", headers={"Authorization": "Bearer sk-or-any"})
        os.kill(process.pid, number)
        assert process.wait(10) == 0
        said = process.stdout.read()
        assert process.stderr.read() == ""
    assert f"curl -X PUT {origin}/simulate" in said
    assert "GET /api/v1/key" not in said


def test_a_port_that_is_taken_is_one_clear_line() -> None:
    port = free_port()
    with simulate(port) as first:
        assert first.stdout
        first.stdout.readline()
        with simulate(port) as second:
            said, errors = second.communicate(timeout=60)
    assert (second.returncode, said) == (1, "")
    assert errors.startswith(f"openrouter-guard: cannot listen on 127.0.0.1:{port}")
    assert errors.count("\n") == 1
