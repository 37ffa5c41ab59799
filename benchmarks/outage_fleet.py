"""The fleets of ``outage_cost``: all follow one plan, each with its own upstream and Valkey."""

from __future__ import annotations

import importlib.util
import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import redis

from .fleet import Connection, Fleet, preload
from .forms import PeersMissing
from .outage_figures import Figures, figures
from .outage_strategies import NEEDS, STRATEGIES, Fate, Place, Strategy
from .outage_upstream import HOST, Plan, serve
from .valkey import embedded_valkey

__all__ = ["Fleets", "Size", "fleets"]

REST_S = 1.0
"""So long a worker waits whose call was refused."""
STARTS_S = 1.0
"""From the word until the workers start."""
DATABASES = 16
PRELOADED = ("benchmarks.outage_strategies", *NEEDS.values())


class Size(NamedTuple):
    """Of each fleet."""

    processes: int
    workers: int


@dataclass(frozen=True, slots=True)
class Fleets:
    """Those that are measured side by side."""

    size: Size
    upstreams: Fleet
    ports: Sequence[int]
    fleets: Mapping[str, Sequence[Fleet]]
    urls: Sequence[str]
    plans: Iterator[int] = field(default_factory=itertools.count)

    def through(self, planned: Callable[[float], Plan]) -> tuple[dict[str, Figures], float]:
        """What a plan cost each of them, and by how much the upstream was ever late.

        Args:
            planned: The plan, from when it begins.
        """
        for port, url, processes in zip(self.ports, self._fresh(), self.fleets.values(), strict=True):
            for index, process in enumerate(processes):
                process.tell(Place(f"http://{HOST}:{port}/api/v1", url, index))
        for processes in self.fleets.values():
            _ = [process.answers() for process in processes]
        plan = planned(time.time() + STARTS_S)
        self.upstreams.tell(plan)
        for processes in self.fleets.values():
            for process in processes:
                process.tell((plan, self.size.workers))
        time.sleep(max(plan.ended_at - time.time(), 0.0))
        self.upstreams.tell("calls")
        ((calls, late_s),) = self.upstreams.answers()
        fates = {name: self._fates(processes) for name, processes in self.fleets.items()}
        found = zip(self.fleets, calls, strict=True)
        return {name: figures(seen, fates[name][Fate.LOST], plan) for name, seen in found}, late_s

    def _fresh(self) -> Iterator[str]:
        """Databases that are empty, and stay without what calls of the last plan still have to tell."""
        number = next(self.plans) % DATABASES
        for url in self.urls:
            with redis.Redis.from_url(url) as client:
                client.flushall()
            yield url.removesuffix("/0") + f"/{number}"

    def _fates(self, processes: Sequence[Fleet]) -> Counter[Fate]:
        return sum((counts for process in processes for counts in process.answers()), Counter[Fate]())


@contextmanager
def fleets(names: Sequence[str], size: Size) -> Iterator[Fleets]:
    """A fleet of each strategy, ready to work.

    Raises:
        PeersMissing: If a library is not installed.
    """
    missing = [library for name in names if (library := NEEDS.get(name)) and not importlib.util.find_spec(library)]
    if missing:
        raise PeersMissing(f"{missing[0]} is not installed: `make bench` does it")
    preload(PRELOADED)
    with ExitStack() as stack:
        upstreams = stack.enter_context(Fleet(1, serve, len(names)))
        (ports,) = upstreams.answers()
        urls = [stack.enter_context(embedded_valkey()) for _ in names]
        ready = {name: [stack.enter_context(Fleet(1, _work, name)) for _ in range(size.processes)] for name in names}
        yield Fleets(size, upstreams, ports, ready, urls)
        for processes in ready.values():
            for process in processes:
                process.tell(None)
        upstreams.tell(None)


def _work(parent: Connection, name: str) -> None:
    """One process of a fleet: plan after plan, until None."""
    while (place := parent.recv()) is not None:
        with STRATEGIES[name](place) as strategy:
            # A library's first call loads what it needs, and takes LiteLLM more than ten seconds on a busy machine.
            strategy.call()
            parent.send("ready")
            plan, workers = parent.recv()
            fates = _through(strategy, plan, range(place.index * workers, (place.index + 1) * workers))
        # Not before it has ended: what it still tells belongs to this plan.
        parent.send(fates)


def _through(strategy: Strategy, plan: Plan, numbers: Sequence[int]) -> Counter[Fate]:
    fates: Counter[Fate] = Counter()
    threads = [
        threading.Thread(target=_worker, args=(strategy, plan, fates, number), daemon=True) for number in numbers
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(plan.ended_at - time.time(), 0.0))
    return fates.copy()


def _worker(strategy: Strategy, plan: Plan, fates: Counter[Fate], number: int) -> None:
    # Spread, and the same in each run.
    time.sleep(max(plan.began_at - time.time(), 0.0) + number * 0.37 % 1.0 * plan.call_s)
    while time.time() < plan.ended_at and strategy.is_ready():
        fate = Fate.DONE
        try:
            strategy.call()
        except Exception as error:  # noqa: BLE001  the strategy says what it means
            fate = strategy.fate(error)
        if time.time() < plan.ended_at:
            fates[fate] += 1
        if fate is Fate.REFUSED:
            time.sleep(REST_S)
