"""How many calls reach OpenRouter from four replicas with many clients, half of which force a fresh check.

Beside it the existing scheme, which asks where its cache is old and at each forced request, and the way before that,
which asks at each request. OpenRouter is simulated and slow; its ten seconds are shortened, and the minute from one
check to the next with them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from openrouter_guard import Settings
from openrouter_guard.api import create_app
from openrouter_guard.settings import Thresholds
from openrouter_guard.testing import SimulatedOpenRouter, running

from .existing_status import PATH, existing_app
from .load import Answers, burst, closed_loop, request
from .measuring import Effort, Row
from .serving import serving
from .valkey import embedded_valkey

__all__ = ["Outcome", "outcome", "ours", "run", "thresholds"]

REPLICAS, CLIENTS, AT_ONCE = 4, 64, 200
PERIODS = 2
PACE_OF_PERIOD = 1 / 60
"""Each client asks again after so much of a fresh period: once a second, in a real one."""
SLOW_OF_PERIOD = 1 / 6
KEY = "sk-or-v1-bench"
_PLAIN, _FORCED = request(PATH), request(f"{PATH}?force_refresh=true")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one way made of the same clients.

    Attributes:
        cold_calls: How many calls so many requests at once to cold replicas made.
        calls: How many calls all later requests made.
        live: Requests that took longer than half a call: they waited for one.
    """

    cold: Answers
    cold_calls: int
    later: Answers
    calls: int
    period_s: float

    @property
    def slow_s(self) -> float:
        return self.period_s * SLOW_OF_PERIOD

    @property
    def live(self) -> int:
        return sum(time_s > self.slow_s / 2 for time_s in self.later.times_s)

    @property
    def saved_percent(self) -> float:
        return 100 * (1 - self.calls / len(self.later.times_s))

    @property
    def cached_percent(self) -> float:
        return 100 * (1 - self.live / len(self.later.times_s))

    @property
    def calls_a_period(self) -> float:
        return self.calls / (self.later.lasted_s / self.period_s)

    def calls_long(self, answers: Answers) -> float:
        """The longest wait, as a multiple of what one call takes."""
        return max(answers.times_s) / self.slow_s


def run(effort: Effort) -> Iterator[Row]:
    period_s = effort.period_s
    found = outcome(ours, period_s)
    existing = outcome(lambda url, base_url, _: (existing_app, url, base_url, period_s), period_s)
    old = outcome(lambda url, base_url, _: (existing_app, url, base_url, 0.0), period_s)
    for name, peer in (("the existing scheme", existing), ("a call each", old)):
        cold = f"{AT_ONCE} requests to cold replicas, beside {name}"
        yield Row(f"{cold}: calls", found.cold_calls, "in all", peer.cold_calls)
        yield Row(f"{cold}: the longest wait", found.calls_long(found.cold), "calls long", peer.calls_long(peer.cold))
        beside = f"{CLIENTS} clients, beside {name}"
        yield Row(f"{beside}: calls", found.calls_a_period, "a fresh period", peer.calls_a_period)
        yield Row(f"{beside}: calls saved", found.saved_percent, "%", peer.saved_percent)
        yield Row(f"{beside}: from cache", found.cached_percent, "%", peer.cached_percent)
        for percent in (50, 99):
            yield Row(f"{beside}: p{percent}", found.later.ms(percent), "ms", peer.later.ms(percent))
        waits = found.calls_long(found.later), peer.calls_long(peer.later)
        yield Row(f"{beside}: the longest wait", waits[0], "calls long", waits[1])
        yield Row(
            f"{beside}: bad answers", found.later.bad + found.cold.bad, "of all", peer.later.bad + peer.cold.bad
        )


def thresholds(period_s: float) -> Thresholds:
    """The defaults, with a minute that lasts *period_s*."""
    return Thresholds(period_s, period_s * 5, period_s, period_s / 3)


def ours(url: str, base_url: str, period_s: float) -> tuple[Any, ...]:
    return create_app, Settings(url, api_key=KEY, base_url=base_url, thresholds=thresholds(period_s))


def outcome(app: Callable[[str, str, float], tuple[Any, ...]], period_s: float) -> Outcome:
    """What becomes of a burst on cold replicas and of the clients after it, for the app and its arguments."""
    simulated = SimulatedOpenRouter()
    simulated.switch("slow", delay_s=period_s * SLOW_OF_PERIOD)
    with embedded_valkey() as url, running(simulated) as base_url, ExitStack() as stack:
        served = stack.enter_context(serving(*app(url, base_url, period_s), replicas=REPLICAS))
        ports = [each.port for each in served]
        cold = asyncio.run(burst(ports, [_PLAIN, _FORCED], AT_ONCE))
        cold_calls = sum(simulated.requests.values())
        load = closed_loop(ports, _asks(), CLIENTS, PERIODS * period_s, pace_s=period_s * PACE_OF_PERIOD)
        later = asyncio.run(load)
        return Outcome(cold, cold_calls, later, sum(simulated.requests.values()) - cold_calls, period_s)


def _asks() -> list[bytes]:
    """For each client what it asks: dealt out so that each replica has as many of both kinds."""
    return [_PLAIN] * REPLICAS + [_FORCED] * REPLICAS
