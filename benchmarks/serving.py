"""ASGI apps in processes of their own, all behind the same server with the same settings."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn

from openrouter_guard.api.server import Server, configured, listening

from .fleet import Connection, Fleet

__all__ = ["Served", "clients_apart", "serving"]

_CORES = sorted(os.sched_getaffinity(0))


@dataclass(frozen=True, slots=True)
class Served:
    """A process that serves an app."""

    port: int
    pid: int

    @property
    def cpu_s(self) -> float:
        """How long its main thread has been on a core."""
        return int(Path(f"/proc/{self.pid}/schedstat").read_text().split()[0]) / 1e9

    @property
    def memory(self) -> int:
        """What it holds in memory, in bytes."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def serving(make_app: Callable[..., Any], *args: object, replicas: int = 1) -> Iterator[Sequence[Served]]:
    """So many processes that serve ``make_app(*args)``; a single one has a core of its own."""
    cores = {_CORES[0]} if replicas == 1 else set(_CORES)
    with Fleet(replicas, _serve, cores, make_app, args) as fleet:
        served = [Served(*answer) for answer in fleet.answers()]
        yield served
        fleet.tell("end")


@contextmanager
def clients_apart() -> Iterator[None]:
    """Keep this process off the core that servers have, where there is another."""
    try:
        os.sched_setaffinity(0, {_CORES[-1]})
        yield
    finally:
        os.sched_setaffinity(0, _CORES)


def _serve(parent: Connection, cores: set[int], make_app: Callable[..., Any], args: Sequence[Any]) -> None:
    os.sched_setaffinity(0, cores)
    asyncio.run(_until_told(parent, make_app(*args)))


async def _until_told(parent: Connection, app: Any) -> None:
    config = configured(app)
    config.lifespan = "auto"  # some have none
    with listening("127.0.0.1", 0) as listener:
        server = _Server(config, lambda: parent.send((listener.getsockname()[1], os.getpid())))
        running = asyncio.create_task(server.serve([listener]))
        await asyncio.to_thread(parent.recv)
        server.should_exit = True
        await running


class _Server(Server):
    def __init__(self, config: uvicorn.Config, tell: Callable[[], None]) -> None:
        super().__init__(config, on_stop=lambda: None)
        self._tell = tell

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._tell()
