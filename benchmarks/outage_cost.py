"""The cost of an outage for a fleet: calls, tasks, and work after the upstream's return, beside other libraries.

All at once, each on an upstream of its own, through the same trouble; 60 workers in six processes, calls of 5 s. The
upstream returns at a random moment, the same for all. Each row is one figure of one strategy; its peer is ours, by
``wait()`` and the transport, in the same run.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from .measuring import Effort, Row
from .outage_figures import Figures, medians
from .outage_fleet import Fleets, Size, fleets
from .outage_strategies import OFFERS
from .outage_upstream import TROUBLES, Plan

__all__ = ["Times", "measured", "run"]

OURS = "ours, wait + transport"
SIZE = Size(processes=6, workers=10)
MINUTE_S = 60.0
HEALTHY_LEAST_S = 6.0
CALL_LEAST_S = 1.5
"""Shorter calls are more of them, and one of LiteLLM's takes a core 30 ms."""
RECOVERY = ("work_lost_s", "back_s", "peak")
UNITS = {
    "calls": ("calls sent while it was down", "calls"),
    "later": ("calls after its first 5 s", "calls"),
    "lost": ("tasks lost", "tasks"),
    "work_lost_s": ("fleet's work lost after the return", "s"),
    "back_s": ("from the return to 90 % of throughput", "s"),
    "peak": ("peak calls a second at the return", "x healthy"),
    "kept": ("throughput kept", "x healthy"),
}


@dataclass(frozen=True, slots=True)
class Times:
    """How long each part lasts, in seconds, and which figures say something of it.

    Attributes:
        least_s: The trouble lasts at least so long,
        most_s: and at most.
        after_s: What comes after it is watched for so long.
    """

    least_s: float
    most_s: float
    after_s: float
    shows: Sequence[str]
    healthy_s: float = 20.0
    call_s: float = 5.0

    def plan(self, trouble: str, lot: random.Random, scale: float, began_at: float) -> Plan:
        """The next plan; everything takes *scale* as long."""
        down_s = began_at + max(self.healthy_s * scale, HEALTHY_LEAST_S)
        well_s = down_s + lot.uniform(self.least_s, self.most_s) * scale
        call_s = max(self.call_s * scale, CALL_LEAST_S)
        return Plan(TROUBLES[trouble], began_at, down_s, well_s, well_s + self.after_s * scale, call_s)


OUTAGE = Times(60, 90, 75, ("calls", "later", "lost", *RECOVERY))
TIMES = {
    "503": OUTAGE,
    "hang, 504": OUTAGE,
    "402": OUTAGE,
    "429": Times(30, 40, 60, ("calls", "lost", *RECOVERY)),
    "brown-out": Times(60, 60, 5, ("calls", "lost", "kept")),
}


def run(effort: Effort) -> Iterator[Row]:
    """Each trouble as often as asked for; medians."""
    size = SIZE._replace(processes=min(SIZE.processes, effort.processes))
    with fleets(tuple(OFFERS), size) as fleet:
        for trouble, times in TIMES.items():
            found, late_s = measured(fleet, trouble, effort.outages, effort.outage_s / MINUTE_S)
            yield from _rows(trouble, times.shows, found)
            yield Row(f"{trouble}: its upstream late by at most", late_s, "s")


def measured(fleet: Fleets, trouble: str, runs: int, scale: float) -> tuple[dict[str, Figures], float]:
    """The medians of each strategy, and by how much the upstream was late at worst, in seconds."""
    lot = random.Random(trouble)
    ends = [fleet.through(partial(TIMES[trouble].plan, trouble, lot, scale)) for _ in range(runs)]
    found = {name: medians([figures[name] for figures, _ in ends]) for name in fleet.fleets}
    return found, max(late_s for _, late_s in ends)


def _rows(trouble: str, shows: Sequence[str], found: dict[str, Figures]) -> Iterator[Row]:
    for figure in shows:
        words, unit = UNITS[figure]
        ours = getattr(found[OURS], figure)
        for name, theirs in found.items():
            peer = None if name == OURS else getattr(theirs, figure)
            yield Row(f"{trouble}: {words}: {name}", ours, unit, peer)
