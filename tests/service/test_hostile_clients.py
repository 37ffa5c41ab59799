"""One client without a token does not take the service down: the real process, on real sockets, under attack."""

from __future__ import annotations

import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from tests.cli.commands import Serving, ask, serving
from tests.waiting import until

pytestmark = pytest.mark.slow

MIB = 1024 * 1024
GROWTH_MAX = 32 * MIB
ANSWER_S = 5.0
"""A probe shares the processor with its attackers here, and with other tests; alone it is answered within 1 s."""
CLIENTS = 1100
"""More than are let in."""
STATUS = b"/api/v1/openrouter/status"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, valkey_server: object) -> Iterator[Serving]:
    url = f"redis://{valkey_server.host}:{valkey_server.port}/0"  # type: ignore[attr-defined]
    with serving(tmp_path_factory.mktemp("serve") / "log", REDIS_URL=url) as service:
        for path in ("/livez", "/readyz", STATUS.decode(), "/metrics", "/"):
            ask_plainly(service, path)  # what is loaded at first use is no growth
        yield service


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
        client.settimeout(10)
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        return b"".join(iter(lambda: client.recv(65536), b""))


def probe_s(service: Serving) -> float:
    """How long a probe waits for its answer, in seconds."""
    began_s = time.monotonic()
    for probe in ("/livez", "/readyz"):
        assert ask_plainly(service, probe).startswith(b"HTTP/1.1 200 "), probe
    return (time.monotonic() - began_s) / 2


def memory(service: Serving) -> int:
    status = Path(f"/proc/{service.process.pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


def sent(client: socket.socket, data: bytes) -> bool:
    """Whether the service took it; it may well have hung up."""
    with suppress(OSError):
        client.sendall(data)
        return True
    return False


# -- the attacks ------------------------------------------------------------------------------------------------


def half_a_head(client: socket.socket) -> None:
    sent(client, b"GET /livez HTTP/1.1\r\nHost: x\r\nX-half: ")


def nothing(_client: socket.socket) -> None:
    pass


def almost_too_large_a_head(client: socket.socket) -> None:
    sent(client, b"GET /livez HTTP/1.1\r\nHost: x\r\nX-a: " + b"a" * 60_000)


def many_small_headers(client: socket.socket) -> None:
    sent(client, b"GET /livez HTTP/1.1\r\nHost: x\r\n")
    headers = b"".join(b"H%d: b\r\n" % number for number in range(100_000))
    for _ in range(16 * MIB // len(headers)):
        sent(client, headers)


def one_endless_header(client: socket.socket) -> None:
    sent(client, b"GET /livez HTTP/1.1\r\nHost: x\r\nX-a: ")
    for _ in range(64):
        sent(client, b"a" * MIB)


def one_endless_path(client: socket.socket) -> None:
    sent(client, b"GET /")
    for _ in range(64):
        sent(client, b"a" * MIB)


def a_body_that_nobody_asked_for(client: socket.socket) -> None:
    sent(client, b"GET %s HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n" % STATUS + b"a" * 300_000)


def a_slow_body(client: socket.socket) -> None:
    sent(client, b"POST /api/v1/openrouter/reports HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n{")


def a_trickle_of_chunks(client: socket.socket) -> None:
    sent(client, b"POST %s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" % STATUS)
    for _ in range(200):
        sent(client, b"1;" + b"x" * 1000 + b"\r\na\r\n")


def an_endless_trailer(client: socket.socket) -> None:
    sent(client, b"POST %s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-a: " % STATUS)
    for _ in range(16):
        sent(client, b"a" * MIB)


def many_trailers(client: socket.socket) -> None:
    sent(client, b"POST %s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" % STATUS)
    for _ in range(16):
        sent(client, b"T: a\r\n" * 200_000)


def a_pipeline_that_nobody_reads(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sent(client, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 20_000)


def a_pipeline_behind_a_body(client: socket.socket) -> None:
    body = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\na"
    sent(client, body + b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 5_000)


def empty_lines(client: socket.socket) -> None:
    sent(client, b"\r\n" * 500_000)


def a_large_body_without_a_token(client: socket.socket) -> None:
    head = b"POST /api/v1/openrouter/reports HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    sent(client, head + b"Content-Length: 900000\r\n\r\n" + b"[" * 300_000)


def a_stream_that_nobody_reads(client: socket.socket) -> None:
    sent(client, b"GET /api/v1/openrouter/events HTTP/1.1\r\nHost: x\r\n\r\n")


def a_forced_check(client: socket.socket) -> None:
    sent(client, b"GET %s?force_refresh=true HTTP/1.1\r\nHost: x\r\n\r\n" % STATUS)


def no_http(client: socket.socket) -> None:
    sent(client, bytes(range(256)) * 100)


ONE = (many_small_headers, one_endless_header, one_endless_path, an_endless_trailer, many_trailers)
FEW = (a_pipeline_that_nobody_reads, a_pipeline_behind_a_body, a_trickle_of_chunks, empty_lines)
MANY = (
    nothing, half_a_head, almost_too_large_a_head, a_body_that_nobody_asked_for, a_slow_body, no_http,
    a_large_body_without_a_token, a_stream_that_nobody_reads, a_forced_check,
)  # fmt: skip
ATTACKS = [(each, count) for attacks, count in ((ONE, 1), (FEW, 100), (MANY, CLIENTS)) for each in attacks]


@pytest.mark.parametrize(
    ("attack", "count"), [pytest.param(*each, id=f"{each[1]} {each[0].__name__}") for each in ATTACKS]
)
def test_probes_are_answered_and_memory_stays(
    service: Serving, attack: Callable[[socket.socket], None], count: int
) -> None:
    before = most = memory(service)
    # On a machine that does much else, nobody is answered at once.
    usual_s = max(probe_s(service) for _ in range(10))
    with clients(service, count) as attackers:
        attacking = threading.Thread(target=lambda: deque(map(attack, attackers), maxlen=0))
        attacking.start()
        slowest_s, rounds = 0.0, 0
        while attacking.is_alive() or rounds < 3:
            slowest_s = max(slowest_s, probe_s(service))
            most = max(most, memory(service))
            rounds += 1
        attacking.join()
    usual_s = max(usual_s, *(probe_s(service) for _ in range(10)))
    assert slowest_s < ANSWER_S + 10 * usual_s
    assert most - before < GROWTH_MAX
    until(lambda: ask(f"{service.url}{STATUS.decode()}"))
    assert "Traceback" not in service.log  # a client that goes is no mistake of ours


def test_who_never_ends_a_request_is_cut_off_and_the_log_says_so_once(service: Serving) -> None:
    with clients(service, 50) as attackers:
        for each in attackers:
            half_a_head(each)
            each.settimeout(30)
        answers = [b"".join(iter(lambda each=each: each.recv(4096), b"")) for each in attackers]  # type: ignore[misc]
    assert all(answer.startswith(b"HTTP/1.1 408 ") for answer in answers)
    assert service.log.count("clients were cut off or refused") <= 2
