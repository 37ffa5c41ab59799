"""Attack a replica with clients that have no token: how long its probes wait, and how much memory it gains.

The attackers are a process of their own, so that what they cost is not taken for what the service costs. All attacks
strike one process, one after the other: what one leaves behind shows in the next.

On a machine that does much else a probe waits for that too. So it is said besides how long the service itself was on
a core meanwhile: that is what a probe waits for where the machine does nothing else.
"""

from __future__ import annotations

import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.cli.commands import serving
from tests.service.attacks import ATTACKS

from .fleet import Connection, Fleet
from .load import request
from .measuring import Effort, Row, percentile
from .serving import Served
from .valkey import embedded_valkey

__all__ = ["run"]

PROBE, PAGES = (
    "/livez",
    ("/livez", "/readyz", "/api/v1/openrouter/status", "/metrics", "/", "/page/swagger/swagger-ui-bundle.js"),
)
PROBE_S = 30.0
PACE_S = 0.02
QUIET = 20
"""Probes before the first attack: what is loaded at first use is no growth."""
STAY_S = 2.0
"""So long the attackers hold their connections once all was sent."""
_MIB = 2**20


@dataclass(slots=True)
class Struck:
    """What an attack did.

    Attributes:
        waits_s: How long each probe waited, and
        cpu_s: how long of that the service was on a core.
        memory: The service's meanwhile, in bytes.
    """

    waits_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)

    def look(self, served: Served) -> None:
        before_s = served.cpu_s
        self.waits_s.append(_asked_at(served.port, PROBE))
        self.cpu_s.append(served.cpu_s - before_s)
        self.memory.append(served.memory)
        time.sleep(PACE_S)

    def add(self, other: Struck) -> None:
        self.waits_s += other.waits_s
        self.cpu_s += other.cpu_s
        self.memory += other.memory


def run(effort: Effort) -> Iterator[Row]:
    with (
        embedded_valkey() as url,
        tempfile.TemporaryDirectory() as folder,
        serving(Path(folder) / "log", REDIS_URL=url) as service,
    ):
        served = Served(int(service.url.rpartition(":")[2]), service.process.pid)
        calm = Struck()
        for page in PAGES * QUIET:
            _asked_at(served.port, page)
        for _ in range(QUIET):
            calm.look(served)
        yield Row("no attack: /livez, the slowest", 1000 * max(calm.waits_s), "ms")
        yield Row("no attack: memory", max(calm.memory) / _MIB, "MiB")
        all_of_them = Struck()
        for number, (attack, count) in enumerate(ATTACKS):
            struck = _struck(served, number, min(count, effort.attackers))
            name = f"{count} x {attack.__name__.replace('_', ' ')}"
            yield Row(f"{name}: /livez, the slowest", 1000 * max(struck.waits_s), "ms")
            yield Row(f"{name}: of that on a core", 1000 * max(struck.cpu_s), "ms")
            yield Row(f"{name}: memory gained since the start", _gained_mib(calm, struck), "MiB")
            all_of_them.add(struck)
        for percent in (50, 99, 100):
            yield Row(f"all attacks: /livez, p{percent}", 1000 * percentile(all_of_them.waits_s, percent), "ms")
        yield Row("all attacks: on a core for one probe, at the most", 1000 * max(all_of_them.cpu_s), "ms")
        yield Row("all attacks: memory gained at the most", _gained_mib(calm, all_of_them), "MiB")


def _gained_mib(before: Struck, after: Struck) -> float:
    return max(max(after.memory) - max(before.memory), 0) / _MIB


def _struck(served: Served, number: int, clients: int) -> Struck:
    struck = Struck()
    with Fleet(1, _attack, number, served.port, clients) as attackers:
        attackers.answers()  # it is there
        attackers.tell("go")
        while not attackers.has_answered:
            struck.look(served)
        attackers.answers()
    struck.look(served)
    return struck


def _asked_at(port: int, path: str) -> float:
    """How long a probe waits, whose kubelet opens a connection for each."""
    began_at = time.perf_counter()
    with socket.create_connection(("127.0.0.1", port), timeout=PROBE_S) as client:
        client.sendall(request(path, "Connection: close"))
        answer = b"".join(iter(lambda: client.recv(65_536), b""))
    if not answer.startswith(b"HTTP/1.1 200 "):
        raise ConnectionError(f"{path} was answered {answer[:40]!r}")
    return time.perf_counter() - began_at


def _attack(parent: Connection, number: int, port: int, clients: int) -> None:
    attack, _ = ATTACKS[number]
    parent.send("here")
    parent.recv()
    held = []
    for _ in range(clients):
        with suppress(OSError):
            client = socket.create_connection(("127.0.0.1", port), timeout=5)
            client.settimeout(0.5)
            held.append(client)
    for client in held:
        attack(client)
    time.sleep(STAY_S)
    for client in held:
        client.close()
    parent.send("done")
