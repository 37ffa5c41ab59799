"""How the benchmarks measure, and the format of their results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

__all__ = ["FULL", "QUICK", "TINY", "WIDTH", "Effort", "Row", "interleaved", "line", "percentile"]


WIDTH = 76
"""Of the longest name of a row."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How much to measure.

    Attributes:
        samples: How often each form of a call is timed; the least counts.
        calls: Calls in one sample.
        reporters: Sizes of the fleets that report.
        names: How many models a fleet calls.
        batches: Reports of each such fleet that are timed.
        reporting_s: How long such a fleet works without a pause,
        paced_s: and how long with one: longer than results may wait.
        processes: Of a fleet whose reaction is timed; there are ten workers in each.
        openings: How often that fleet's breaker is opened.
        rounds: How often it is half-open with every worker waiting.
        lease_s: Of a permit whose holder is killed.
        away_calls: Calls that are timed while Redis is away.
        serving_samples: How often each app that serves the status is loaded; the median counts.
        serving_s: For how long each time.
        soak_s: How long the service is asked while its store comes and goes.
        period_s: How long an answer of OpenRouter counts as fresh, where that is shortened.
        damaged_s: For how long values under our keys are damaged.
        simulated_h: Hours in the life of a simulated fleet.
        pauses: How often ten Deployments are paused and restored.
        targets: How many Deployments are paused and restored at once, each number by an operator of its own.
        resources: How many ``OpenRouterStatus`` one operator looks after.
        idle_s: For how long an operator with nothing to do is looked at.
        crashes: Stories in which the operator is killed.
        stories: Stories in which people, specs and the breaker do anything.
        exploring_s: For how long the interleavings of a small fleet are tried.
        outages: How often each kind of outage strikes the fleets that are compared.
        outage_s: For how long at least.
        simulated_outages: Outages that each figure of the waits is the mean of.
        attackers: How many connections one attack on the service has at the most.
    """

    samples: int
    calls: int
    reporters: tuple[int, ...]
    names: tuple[int, ...]
    batches: int
    reporting_s: float
    paced_s: float
    processes: int
    openings: int
    rounds: int
    lease_s: float
    away_calls: int
    serving_samples: int
    serving_s: float
    period_s: float
    soak_s: float
    damaged_s: float
    simulated_h: float
    pauses: int
    targets: tuple[int, ...]
    resources: int
    idle_s: float
    crashes: int
    exploring_s: float
    stories: int
    outages: int
    outage_s: float
    simulated_outages: int
    attackers: int


QUICK = Effort(
    samples=21,
    calls=1000,
    reporters=(1, 5, 20, 100),
    names=(10, 500, 20_000),
    batches=100,
    reporting_s=1.5,
    paced_s=40.0,
    processes=20,
    openings=3,
    rounds=20,
    lease_s=2.0,
    away_calls=300,
    serving_samples=9,
    serving_s=0.3,
    period_s=6.0,
    soak_s=20.0,
    damaged_s=20.0,
    simulated_h=2.0,
    pauses=20,
    targets=(0, 1000),
    resources=500,
    idle_s=20.0,
    crashes=200,
    exploring_s=600.0,
    stories=20,
    outages=1,
    outage_s=60.0,
    simulated_outages=300,
    attackers=1100,
)
FULL = Effort(
    samples=101,
    calls=5000,
    reporters=(1, 5, 20, 100),
    names=(10, 500, 20_000, 100_000),
    batches=1000,
    reporting_s=10.0,
    paced_s=120.0,
    processes=20,
    openings=20,
    rounds=100,
    lease_s=15.0,
    away_calls=3000,
    serving_samples=15,
    serving_s=2.0,
    period_s=30.0,
    soak_s=600.0,
    damaged_s=600.0,
    simulated_h=24.0,
    pauses=60,
    targets=(0, 1000, 5000),
    resources=500,
    idle_s=240.0,
    crashes=200,
    exploring_s=3600.0,
    stories=400,
    outages=5,
    outage_s=60.0,
    simulated_outages=300,
    attackers=1100,
)
TINY = Effort(
    samples=3,
    calls=20,
    reporters=(2,),
    names=(2, 100),
    batches=2,
    reporting_s=0.3,
    paced_s=0.3,
    processes=2,
    openings=1,
    rounds=2,
    lease_s=0.5,
    away_calls=20,
    serving_samples=1,
    serving_s=0.1,
    period_s=0.6,
    soak_s=2.0,
    damaged_s=1.0,
    simulated_h=0.01,
    pauses=1,
    targets=(0, 5),
    resources=2,
    idle_s=0.5,
    crashes=1,
    exploring_s=1.0,
    stories=1,
    outages=1,
    outage_s=3.0,
    simulated_outages=3,
    attackers=3,
)


@dataclass(frozen=True, slots=True)
class Row:
    """One figure; ``peer`` is another's in the same run, None where there is nothing to compare with."""

    name: str
    ours: float
    unit: str
    peer: float | None = None

    @property
    def ratio(self) -> float | None:
        """Ours as a multiple of the peer's: below 1 is better for a time, above 1 for a rate."""
        return self.ours / self.peer if self.peer else None

    def fields(self) -> dict[str, str | float | None]:
        return {"name": self.name, "ours": self.ours, "peer": self.peer, "ratio": self.ratio, "unit": self.unit}


def interleaved(timed: Mapping[str, Callable[[], float]], samples: int) -> dict[str, float]:
    """The least of each: what else the machine does only adds to it. In turns, so that it meets all of them alike."""
    found: dict[str, list[float]] = {name: [] for name in timed}
    for turn in range(samples):
        for name in list(timed)[:: -1 if turn % 2 else 1]:
            found[name].append(timed[name]())
    return {name: min(values) for name, values in found.items()}


def percentile(values: Sequence[float], percent: float) -> float:
    """The value that *percent* of the *values* do not exceed."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * percent / 100), len(ordered) - 1)]


def line(row: Row) -> str:
    """The row as one line of a table."""
    ratio = "" if row.ratio is None else f"{_short(row.ratio)}x"
    return f"{row.name:<{WIDTH}}  {_short(row.ours):>10}  {_short(row.peer):>10}  {ratio:>9}  {row.unit}"


def _short(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
