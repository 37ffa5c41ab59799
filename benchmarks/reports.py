"""How many of a fleet's reports arrive, at what rate, and how many Redis commands they cost.

Beside it the existing scheme, in which each report is a read and a write of the whole state under one lock, and is
dropped while somebody else holds the lock.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TypeAlias

from openrouter_guard import Guard, Settings
from tests.existing import ExistingWorker

from .calling import FLUSH_S
from .fleet import Connection, Fleet
from .measuring import Effort, Row
from .valkey import commands, embedded_valkey, metrics

__all__ = ["run"]

PROCESSES = 5
"""At most; the sizes of the fleets are multiples of it, or smaller."""
PACES_S = (0.05, 1.0)
"""Between two calls of a worker that does not only report."""
CALM = 6
"""After so many reports with nothing wrong, a worker waits as long as it ever does before the next."""
_RETRY_S = 0.05


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the reports of one fleet.

    Attributes:
        made: Calls that ended and were to be reported.
        kept: Of those, what Redis knows of.
        seconds: Until the last of them was in Redis.
        commands: What Redis did for it, commands inside scripts included.
        scripts: Of those commands, the scripts.
    """

    made: int
    kept: int
    seconds: float
    commands: int
    scripts: int

    @property
    def lost_percent(self) -> float:
        return 100 * (1 - self.kept / self.made)

    def per_1000(self, number: int) -> float:
        return 1000 * number / self.kept


def run(effort: Effort) -> Iterator[Row]:
    for workers in effort.reporters:
        yield from _compared(workers, effort.reporting_s, 0.0, "calls without a pause")
    for pace_s in PACES_S:
        yield from _compared(effort.reporters[-1], effort.paced_s, pace_s, f"a call every {pace_s * 1000:g} ms")


def _compared(workers: int, seconds: float, pace_s: float, pace: str) -> Iterator[Row]:
    ours = _outcome(_guards, workers, seconds, pace_s)
    theirs = _outcome(_existing, workers, seconds, pace_s)
    yield from _rows(f"{workers} workers, {pace}", ours, theirs)


def _rows(fleet: str, ours: Outcome, theirs: Outcome) -> Iterator[Row]:
    yield Row(f"{fleet}: lost", ours.lost_percent, "%", theirs.lost_percent)
    yield Row(f"{fleet}: kept", ours.kept / ours.seconds, "calls/s", theirs.kept / theirs.seconds)
    yield Row(
        f"{fleet}: Redis commands",
        ours.per_1000(ours.commands),
        "per 1,000 calls",
        theirs.per_1000(theirs.commands),
    )
    yield Row(f"{fleet}: of those scripts", ours.per_1000(ours.scripts), "per 1,000 calls")
    yield Row(f"{fleet}: Redis commands", ours.commands / ours.seconds, "/s", theirs.commands / theirs.seconds)


Report: TypeAlias = Callable[[], object]


def _outcome(reporters: Callable[..., None], workers: int, seconds: float, pace_s: float) -> Outcome:
    processes = min(workers, PROCESSES)
    with embedded_valkey() as url, Fleet(processes, reporters, url, workers // processes, seconds, pace_s) as fleet:
        fleet.answers()
        before, known, began_at = commands(url), _reported(url), time.monotonic()
        fleet.tell("go")
        made = sum(fleet.answers())
        lasted_s, after = time.monotonic() - began_at, commands(url)
        kept = _reported(url) - known
        fleet.tell("end")
    spent = {name: count - before.get(name, 0) for name, count in after.items() if name != "info"}
    return Outcome(made, kept, lasted_s, sum(spent.values()), spent.get("evalsha", 0))


def _reported(url: str) -> int:
    return metrics(url).get("total_calls", 0)


def _guards(parent: Connection, url: str, workers: int, seconds: float, pace_s: float) -> None:
    """A process of workers that each have a guard of their own."""
    with ExitStack() as stack:
        guards = [stack.enter_context(Guard(Settings(url))) for _ in range(workers)]
        _report(parent, [_guarded(guard) for guard in guards], seconds, pace_s, guards)


def _existing(parent: Connection, url: str, workers: int, seconds: float, pace_s: float) -> None:
    """A process of workers that follow the existing scheme."""
    with ExitStack() as stack:
        existing = [stack.enter_context(ExistingWorker(url)) for _ in range(workers)]
        _report(parent, [worker.report_api_success for worker in existing], seconds, pace_s, [])


def _guarded(guard: Guard) -> Report:
    def call() -> None:
        with guard.call():
            pass

    return call


def _report(parent: Connection, reports: list[Report], seconds: float, pace_s: float, guards: list[Guard]) -> None:
    for _ in range(CALM):
        for report in reports:
            while report() is False:
                time.sleep(_RETRY_S)
        for guard in guards:
            guard.flush(FLUSH_S)
    parent.send("ready")
    parent.recv()
    made = _in_threads(reports, seconds, pace_s)
    for guard in guards:
        guard.flush(FLUSH_S)
    parent.send(made)
    parent.recv()


def _in_threads(reports: list[Report], seconds: float, pace_s: float) -> int:
    """All at once until the time is over; returns how many reports were made."""
    made: list[int] = []
    until = time.monotonic() + seconds

    def work(report: Report) -> None:
        for number in itertools.count(1):
            report()
            if pace_s:
                time.sleep(pace_s)
            if time.monotonic() > until:
                made.append(number)
                return

    threads = [threading.Thread(target=work, args=(report,)) for report in reports]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(made)
