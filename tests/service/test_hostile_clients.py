"""One client without a token does not take the service down: the real process, on real sockets, under attack."""

from __future__ import annotations

import os
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.cli.commands import Serving, ask, serving
from tests.service.attacks import ATTACKS, CLIENTS, STATUS, a_large_file_that_nobody_reads, a_page, half_a_head
from tests.waiting import until

pytestmark = pytest.mark.slow

MIB = 1024 * 1024
LOADED = ("/livez", "/readyz", STATUS.decode(), "/metrics", "/", "/?scope=x", "/page/swagger/swagger-ui-bundle.js")
GROWTH_MAX = 32 * MIB
"""Of all attacks in a row."""
ANSWER_CPU_S = 2.0
"""Processor time of the service until a probe is answered.

It shares the processor with its attackers and other tests, so it may take longer. Without limits, a flood of pages
took seven.
"""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, valkey_server: object) -> Iterator[Serving]:
    url = f"redis://{valkey_server.host}:{valkey_server.port}/0"  # type: ignore[attr-defined]
    with serving(tmp_path_factory.mktemp("serve") / "log", REDIS_URL=url) as service:
        for path in LOADED:
            ask_plainly(service, path)  # what is loaded at first use is no growth
        yield service


@pytest.fixture(scope="module")
def memory_at_start(service: Serving) -> int:
    return memory(service)


@contextmanager
def clients(service: Serving, count: int = 1) -> Iterator[Sequence[socket.socket]]:
    with ExitStack() as stack:
        yield [stack.enter_context(connected(service)) for _ in range(count)]


def connected(service: Serving) -> socket.socket:
    port = int(service.url.rpartition(":")[2])
    client = socket.create_connection(("127.0.0.1", port), timeout=5)
    client.settimeout(0.5)
    return client


def ask_plainly(service: Serving, path: str) -> bytes:
    with connected(service) as client:
        client.settimeout(60)
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        return b"".join(iter(lambda: client.recv(65536), b""))


def probe_cpu_s(service: Serving) -> float:
    """How long the service was on a core until a probe was answered."""
    before_s = cpu_s(service)
    for probe in ("/livez", "/readyz"):
        assert ask_plainly(service, probe).startswith(b"HTTP/1.1 200 "), probe
    return (cpu_s(service) - before_s) / 2


def cpu_s(service: Serving) -> float:
    fields = Path(f"/proc/{service.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(service: Serving) -> int:
    status = Path(f"/proc/{service.process.pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


@pytest.mark.parametrize(
    ("attack", "count"), [pytest.param(*each, id=f"{each[1]} {each[0].__name__}") for each in ATTACKS]
)
def test_probes_are_answered_and_memory_stays(
    service: Serving, memory_at_start: int, attack: Callable[[socket.socket], None], count: int
) -> None:
    slowest_cpu_s, most = attacked(service, attack, count)
    assert slowest_cpu_s < ANSWER_CPU_S
    assert most - memory_at_start < GROWTH_MAX
    until(lambda: ask(f"{service.url}{STATUS.decode()}"))
    assert "Traceback" not in service.log  # a client that goes is no mistake of ours


@pytest.mark.parametrize("attack", [a_page, a_large_file_that_nobody_reads], ids=lambda attack: attack.__name__)
def test_clients_that_have_gone_leave_nothing_behind(
    service: Serving, memory_at_start: int, attack: Callable[[socket.socket], None]
) -> None:
    # Each time, most of them go before their request has begun.
    most = max(attacked(service, attack, CLIENTS)[1] for _ in range(6))
    assert most - memory_at_start < GROWTH_MAX


def attacked(service: Serving, attack: Callable[[socket.socket], None], count: int) -> tuple[float, int]:
    """Slowest probe meanwhile, as processor time of the service, and its most memory."""
    most = memory(service)
    with clients(service, count) as attackers:
        attacking = threading.Thread(target=lambda: deque(map(attack, attackers), maxlen=0))
        attacking.start()
        slowest_cpu_s, rounds = 0.0, 0
        while attacking.is_alive() or rounds < 3:
            slowest_cpu_s = max(slowest_cpu_s, probe_cpu_s(service))
            most = max(most, memory(service))
            rounds += 1
        attacking.join()
    return slowest_cpu_s, most


def test_who_never_ends_a_request_is_cut_off_and_the_log_says_so_once(service: Serving) -> None:
    with clients(service, 50) as attackers:
        for each in attackers:
            half_a_head(each)
            each.settimeout(30)
        answers = [b"".join(iter(lambda each=each: each.recv(4096), b"")) for each in attackers]  # type: ignore[misc]
    assert all(answer.startswith(b"HTTP/1.1 408 ") for answer in answers)
    assert service.log.count("clients were cut off or refused") < 10  # once in a while, and not for each
