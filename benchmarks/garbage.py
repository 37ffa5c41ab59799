"""Write arbitrary values under our keys: nothing fails, an outage is still detected, and the state heals.

A health service, three workers, a manager, the operator's reading and the probe on one Valkey. In each round one to
three values are damaged, everything is used, all calls fail, the damage is taken away, and all is well again.
"""

from __future__ import annotations

import asyncio
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field

from hypothesis import strategies as st

from tests.garbage import System, damages

from .measuring import Effort, Row, percentile
from .valkey import embedded_valkey

__all__ = ["run"]


@dataclass(slots=True)
class _Found:
    rounds: int = 0
    values: int = 0
    wrong: list[str] = field(default_factory=list)
    times_s: list[float] = field(default_factory=list)


def run(effort: Effort) -> Iterator[Row]:
    found = asyncio.run(_damaged(effort.damaged_s))
    for what in found.wrong:
        print(f"  {what}")
    yield Row("values written under our keys", found.values, "")
    yield Row("rounds, each with an outage", found.rounds, "")
    yield Row("what did not hold: an exception, no protection, no recovery", len(found.wrong), "")
    for percent in (50, 99):
        yield Row(f"a round, with outage and recovery: p{percent}", percentile(found.times_s, percent), "s")


async def _damaged(seconds: float) -> _Found:
    found, any_damage = _Found(), st.lists(damages, min_size=1, max_size=3)
    with embedded_valkey() as url:
        async with System.on(url) as system:
            ends_s = time.monotonic() + seconds
            while time.monotonic() < ends_s:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # meant for people who try an example by hand
                    damage = any_damage.example()
                began_at = time.monotonic()
                await system.round(damage)
                found.times_s.append(time.monotonic() - began_at)
                found.rounds, found.values = found.rounds + 1, found.values + len(damage)
                found.wrong += [f"{what}, after {damage!r:.300}" for what in system.wrong]
                system.wrong.clear()
    return found
