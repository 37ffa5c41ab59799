"""The cost of one call for its caller while the breaker is closed, beside other breakers; and with its report."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

from openrouter_guard import Guard, Settings

from .calling import FLUSH_S
from .forms import OURS, PEERS, Form, Names, refuses, timed
from .measuring import Effort, Row, interleaved
from .valkey import embedded_valkey

__all__ = ["run"]

_US = 1e6
_ROUNDS = 10
"""So many samples' calls are reported together."""


def run(effort: Effort) -> Iterator[Row]:
    with embedded_valkey() as url, asyncio.Runner() as runner:
        for ours in OURS:
            peers = [peer for peer in PEERS if peer.kind == ours.kind and _is_comparable(peer, url, runner)]
            yield from _compared(ours, peers, effort, url, runner)
        yield _with_reports(effort, url)


def _is_comparable(peer: Form, url: str, runner: asyncio.Runner) -> bool:
    comparable = refuses(peer, url, runner.run)
    if not comparable:
        print(f"left out: {peer.library}, {peer.kind}: it goes on calling while its breaker is open")
    return comparable


def _compared(ours: Form, peers: list[Form], effort: Effort, url: str, runner: asyncio.Runner) -> Iterator[Row]:
    work = _done if ours.is_async else _do
    with ExitStack() as stack:
        loops: dict[str, Callable[[], float]] = {}
        for form in (ours, *peers):
            names = stack.enter_context(form.names(work, url, runner.run))
            loops[form.library] = _settled(timed(form, names, effort.calls, runner.run), names)
            loops[form.library]()
        least = interleaved(loops, effort.samples)
    mine = least.pop(ours.library)
    for library, theirs in least.items():
        yield Row(f"one call, {ours.kind}: {library}", mine * _US, "us", theirs * _US)


def _settled(sample: Callable[[], float], names: Names) -> Callable[[], float]:
    """A sample that leaves nothing to do in the background while somebody else is timed."""
    flush = names.get("flush", lambda: None)

    def settled() -> float:
        seconds = sample()
        flush()
        return seconds

    return settled


def _with_reports(effort: Effort, url: str) -> Row:
    """The call and its report: processor time of all threads, until everything is in Redis."""
    with Guard(Settings(url)) as guard:

        def spent_s() -> float:
            began_at = time.process_time()
            for _ in range(effort.calls * _ROUNDS):
                with guard.call():
                    pass
            guard.flush(FLUSH_S)
            return time.process_time() - began_at

        least_s = min(spent_s() for _ in range(effort.samples)) / effort.calls / _ROUNDS
    return Row("one call and its report, processor time of all threads", least_s * _US, "us")


def _do() -> None:
    return None


async def _done() -> Any:
    return None
