"""How many calls of a waiting fleet reach a failing upstream at each trial; and a killed trial call.

The fleet: processes that call without a pause whatever their breaker says. Beside ours a breaker whose state is
shared through Redis as well.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any

import redis

from openrouter_guard import CallNotPermitted, Guard, Settings
from openrouter_guard.rules.breaker import BreakerState, Policy
from openrouter_guard.store import Store
from tests.waiting import until

from .calling import WAIT_S, goes, opened
from .fleet import Connection, Fleet
from .forms import peer
from .measuring import Effort, Row
from .upstream import ask, most_at_once, upstream
from .valkey import embedded_valkey

__all__ = ["run"]

RESET_S = 0.5
PEERS_RESET_S = 1.0
"""It keeps its times in whole seconds."""
_LOOK_S = 0.01
_HOLDERS = Policy().permits

_policy = Policy(reset_timeout_s=RESET_S, max_reset_timeout_s=RESET_S, next_trial_s=0.0)


def run(effort: Effort) -> Iterator[Row]:
    yield from _rounds(effort)
    yield _after_a_kill(effort.lease_s)


# -- rounds -------------------------------------------------------------------------------------------------------


def _rounds(effort: Effort) -> Iterator[Row]:
    calls, verdicts_s = _ours(effort)
    ours = _trials(calls, verdicts_s)
    peers_rounds = max(2, effort.rounds // 4)
    theirs = _theirs(effort.processes, peers_rounds)
    fleet = f"half-open, {effort.processes} processes"
    yield Row(f"{fleet}: most at once", most_at_once(ours), "calls", most_at_once(theirs))
    each, peers = len(ours) / effort.rounds, len(theirs) / peers_rounds
    yield Row(f"{fleet}: at upstream", each, "calls a round", peers)
    yield Row(f"{fleet}: after the verdict, in {effort.rounds} rounds", _late(calls, verdicts_s), "calls")


def _ours(effort: Effort) -> tuple[list[tuple[float, float]], list[float]]:
    """The calls that came, and when the verdicts fell."""
    with (
        embedded_valkey() as url,
        upstream() as down,
        Fleet(effort.processes, _press, _guarded, url, down.port) as fleet,
    ):
        fleet.answers()
        fleet.tell("go")
        verdicts_s = _waited(lambda: asyncio.run(_verdicts_s(url)), effort.rounds + 1)
        fleet.tell("end")
        fleet.answers()
        return down.calls, verdicts_s


def _waited(verdicts_s: Callable[[], list[float]], wanted: int) -> list[float]:
    deadline = time.monotonic() + WAIT_S + 2 * wanted * RESET_S
    while len(found := verdicts_s()) < wanted and time.monotonic() < deadline:
        time.sleep(RESET_S / 4)
    return found[:wanted]


async def _verdicts_s(url: str) -> list[float]:
    store = Store.from_url(url)
    entries = await store.history(1000)
    await store.close()
    return sorted(
        datetime.fromisoformat(entry["at"]).timestamp() for entry in entries if entry["to"] == BreakerState.OPEN
    )


def _trials(calls: list[tuple[float, float]], verdicts_s: list[float]) -> list[tuple[float, float]]:
    """The calls of the half-open rounds: not those that opened the breaker, nor what came after the last verdict."""
    return [call for call in calls if verdicts_s[0] + RESET_S / 2 < call[0] < verdicts_s[-1]]


def _late(calls: list[tuple[float, float]], verdicts_s: list[float]) -> int:
    """Calls that came after a verdict, before the next trial was due."""
    return sum(at < came_s < at + RESET_S / 2 for at in verdicts_s[1:] for came_s, _ in calls)


def _theirs(processes: int, rounds: int) -> list[tuple[float, float]]:
    with embedded_valkey() as url, upstream() as down, Fleet(processes, _press, _pybreaker, url, down.port) as fleet:
        fleet.answers()
        fleet.tell("go")
        # The failures that open it come first, and are over well before the first trial.
        time.sleep(PEERS_RESET_S * 0.75)
        before = len(down.calls)
        time.sleep(rounds * PEERS_RESET_S)
        fleet.tell("end")
        fleet.answers()
        return down.calls[before:]


Attempt = Callable[[], object]


def _press(parent: Connection, guarded: Any, url: str, port: int) -> None:
    """A worker that tries all the time until it is told to stop."""
    with guarded(url, port) as attempt:
        parent.send("ready")
        parent.recv()
        while not parent.poll(_LOOK_S):
            with suppress(Exception):
                attempt()
        parent.send("ended")


@contextmanager
def _guarded(url: str, port: int) -> Iterator[Attempt]:
    def attempt() -> None:
        with guard.call():
            ask(port)

    with Guard(Settings(url, policy=_policy)) as guard:
        yield attempt


@contextmanager
def _pybreaker(url: str, port: int) -> Iterator[Attempt]:
    pybreaker, client = peer("pybreaker"), redis.Redis.from_url(url)
    storage = pybreaker.CircuitRedisStorage(pybreaker.STATE_CLOSED, client)
    breaker = pybreaker.CircuitBreaker(reset_timeout=PEERS_RESET_S, state_storage=storage)
    yield lambda: breaker.call(ask, port)
    client.close()


# -- a killed trial call ------------------------------------------------------------------------------------------


def _after_a_kill(lease_s: float) -> Row:
    """From ``kill -9`` of whoever holds the permits until a call goes."""
    policy = Policy(reset_timeout_s=RESET_S, permit_lease_s=lease_s, next_trial_s=0.0)
    with embedded_valkey() as url, Guard(Settings(url, policy=policy)) as guard:
        opened(guard, BreakerState.HALF_OPEN)
        with Fleet(_HOLDERS, _hold, url, policy) as holders:
            holders.answers()
            holders.kill()
            killed_at = time.monotonic()
            until(lambda: goes(guard), seconds=WAIT_S)
            return Row(
                f"kill -9 of a trial call, lease {lease_s:g} s: until calls go", time.monotonic() - killed_at, "s"
            )


def _hold(parent: Connection, url: str, policy: Policy) -> None:
    with Guard(Settings(url, policy=policy)) as guard:
        while True:
            with suppress(CallNotPermitted), guard.call():
                parent.send("held")
                threading.Event().wait()
