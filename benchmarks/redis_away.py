"""The cost of a call while Redis is frozen (it accepts and never answers) or gone (it refuses), in each state.

Beside it a breaker that asks Redis at each call, with a client that waits one second at most, as ours does. With
the client's own settings it would wait for ever.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial

import redis

from openrouter_guard import Guard, Settings
from openrouter_guard.rules.breaker import BreakerState, Policy

from .calling import FLUSH_S, goes, opened
from .forms import peer
from .measuring import Effort, Row, percentile
from .valkey import embedded_valkey, frozen, kill

__all__ = ["run"]

PAUSE_S = 0.002
TRIALS = 10
"""Calls while half-open: each may wait for a permit."""
PEERS_CALLS = 2
_SOON = Policy(reset_timeout_s=0.3, max_reset_timeout_s=0.3)
_MS = 1000.0


def run(effort: Effort) -> Iterator[Row]:
    for how, away in (("frozen", frozen), ("gone", _gone)):
        with embedded_valkey() as url, ExitStack() as stack:
            states = {name: stack.enter_context(guard) for name, guard in _guards(url).items()}
            theirs = stack.enter_context(_pybreaker(url))
            with away(url):
                yield from _cold(url, how, effort)
                for name in ("closed", "open"):
                    peers_s = _times_s(theirs, PEERS_CALLS) if name == "closed" else None
                    yield from _rows(
                        f"{how}, {name}", _times_s(partial(goes, states[name]), effort.away_calls), peers_s
                    )
                yield from _half_open(how, states["half-open"])
                yield Row(f"Redis {how}: close()", _seconds(states["closed"].close), "s")
                # While Redis is still away: a guard that is not closed would end when it is back.
                stack.close()


def _rows(name: str, ours_s: list[float], peers_s: list[float] | None = None) -> Iterator[Row]:
    for percent in (50, 99):
        theirs = percentile(peers_s, percent) * _MS if peers_s else None
        yield Row(f"Redis {name}: a call, p{percent}", percentile(ours_s, percent) * _MS, "ms", theirs)


def _cold(url: str, how: str, effort: Effort) -> Iterator[Row]:
    """A process that starts while Redis is away: its first call, and those after it."""
    with Guard(Settings(url)) as guard:
        yield Row(f"Redis {how}, cold start: first call", _seconds(partial(goes, guard)) * _MS, "ms")
        yield from _rows(f"{how}, cold start", _times_s(partial(goes, guard), effort.away_calls))


def _half_open(how: str, guard: Guard) -> Iterator[Row]:
    went: list[bool] = []
    yield from _rows(f"{how}, half-open", _times_s(lambda: went.append(goes(guard)), TRIALS))
    yield Row(f"Redis {how}, half-open: calls that go", sum(went), f"of {TRIALS}")


def _guards(url: str) -> dict[str, Guard]:
    """A guard in each state, on a state of its own."""
    closed = Guard(Settings(url, scope="closed"))
    goes(closed)
    closed.flush(FLUSH_S)
    return {
        "closed": closed,
        "open": opened(Guard(Settings(url, scope="open")), BreakerState.OPEN),
        "half-open": opened(Guard(Settings(url, scope="half-open", policy=_SOON)), BreakerState.HALF_OPEN),
    }


@contextmanager
def _pybreaker(url: str) -> Iterator[Callable[[], object]]:
    pybreaker = peer("pybreaker")
    client = redis.Redis.from_url(url, socket_timeout=1.0, socket_connect_timeout=1.0)
    breaker = pybreaker.CircuitBreaker(state_storage=pybreaker.CircuitRedisStorage(pybreaker.STATE_CLOSED, client))

    def call() -> None:
        with suppress(redis.RedisError):
            breaker.call(lambda: None)

    call()
    yield call
    client.close()


@contextmanager
def _gone(url: str) -> Iterator[None]:
    kill(url)
    yield


def _times_s(call: Callable[[], object], calls: int) -> list[float]:
    return [_seconds(call, after_s=PAUSE_S) for _ in range(calls)]


def _seconds(call: Callable[[], object], *, after_s: float = 0.0) -> float:
    time.sleep(after_s)
    began_at = time.perf_counter()
    call()
    return time.perf_counter() - began_at
