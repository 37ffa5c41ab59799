"""From the failure that opens the breaker until it opens and every worker refuses, with push and without."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from itertools import cycle

from openrouter_guard import Guard, Settings
from openrouter_guard.rules.breaker import BreakerState, Policy
from tests.waiting import until

from .calling import FLUSH_S, WAIT_S, fail, goes
from .fleet import Connection, Fleet
from .measuring import Effort, Row, percentile
from .valkey import embedded_valkey, without_push

__all__ = ["run"]

WORKERS_EACH = 10
FEW = 5
RESET_S = 2.0
"""Longer than anybody takes to notice, and the same each time."""
REPORTERS = 3
"""A run of failures must come from so many."""
_VERDICT_S = 0.5
"""Longer than the answer to the question to the fleet takes."""
_LOOK_S = 0.005
_MS = 1000.0

_policy = Policy(reset_timeout_s=RESET_S, max_reset_timeout_s=RESET_S, ramp_s=0.001)
"""Without a ramp: who has just seen it close must be able to open it again."""


def run(effort: Effort) -> Iterator[Row]:
    # Twenty processes on two cores say how busy the cores are, rather than how fast a push is.
    for processes in sorted({min(FEW, effort.processes), effort.processes}):
        workers = f"{processes * WORKERS_EACH} workers in {processes} processes"
        for means in ("push", "poll alone"):
            with embedded_valkey() as url:
                address = url if means == "push" else without_push(url)
                opened_s, refused_s = _delays_s(address, processes, effort.openings)
            yield Row(f"{workers}, {means}: opens, p50", percentile(opened_s, 50) * _MS, "ms")
            for percent in (50, 99):
                yield Row(f"{workers}, {means}: refuse, p{percent}", percentile(refused_s, percent) * _MS, "ms")


def _delays_s(url: str, processes: int, openings: int) -> tuple[list[float], list[float]]:
    """How long each opening took from the failure that caused it, and each worker until it refused."""
    opened_s: list[float] = []
    refused_s: list[float] = []
    with ExitStack() as stack:
        fleet = stack.enter_context(Fleet(processes, _watch, url))
        fleet.answers()
        failing = [stack.enter_context(Guard(Settings(url, policy=_policy))) for _ in range(REPORTERS)]
        for _ in range(openings):
            fleet.tell(True)
            began_at = _opened(failing)
            refused_s += (at - began_at for answer in fleet.answers() for at in answer)
            # Redis' clock, which is this machine's.
            opened_s.append(_opened_at(failing[0]) - time.time() + time.monotonic() - began_at)
            _succeed(failing[0])
            fleet.answers()
        fleet.tell(False)
    return opened_s, refused_s


def _opened_at(guard: Guard) -> float:
    transitions = guard._core.view.record.transitions  # noqa: SLF001
    return max(each.at for each in transitions if each.after is BreakerState.OPEN)


def _opened(guards: list[Guard]) -> float:
    """Fail until the breaker opens; returns when the failure that opened it began to be reported.

    A fleet that has just recovered stands more failures than one that was well for long.
    """
    for guard in guards:
        _succeed(guard)
    for guard in cycle(guards):
        began_at = time.monotonic()
        fail(guard)
        with suppress(AssertionError):
            until(lambda: guards[0].state.phase is not BreakerState.CLOSED, seconds=_VERDICT_S)
            return began_at
    raise AssertionError("no guard fails")


def _succeed(guard: Guard) -> None:
    """Call until one call has succeeded, the trial call if need be, and all is well after it."""
    until(lambda: _went_well(guard), seconds=WAIT_S)


def _went_well(guard: Guard) -> bool:
    went = goes(guard)
    # Who did not know yet that the breaker is open knows it now.
    guard.flush(FLUSH_S)
    return went and guard.state.phase is BreakerState.CLOSED


def _closes(guard: Guard) -> None:
    until(lambda: guard.state.phase is BreakerState.CLOSED, seconds=WAIT_S)


def _watch(parent: Connection, url: str) -> None:
    """A process of workers; tells when each of them began to refuse, on the clock that all processes share."""
    with ExitStack() as stack:
        guards = [stack.enter_context(Guard(Settings(url, policy=_policy))) for _ in range(WORKERS_EACH)]
        for guard in guards:
            _succeed(guard)
        parent.send("ready")
        while parent.recv():
            parent.send(_refusing_since(guards))
            for guard in guards:
                _closes(guard)
            parent.send("closed")


def _refusing_since(guards: list[Guard]) -> list[float]:
    since: dict[Guard, float] = {}
    while len(since) < len(guards):
        for guard in guards:
            if guard not in since and guard.state.phase is not BreakerState.CLOSED:
                since[guard] = time.monotonic()
        time.sleep(_LOOK_S)
    return list(since.values())
