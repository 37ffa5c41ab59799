"""What Prometheus scrapes from an operator, in its text format: a dozen numbers, for which no client is needed.

Source: https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["CONTENT_TYPE", "Family", "Histogram", "Sample", "counter", "gauge", "text"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_PREFIX = "openrouter_guard_operator_"
_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Sample(NamedTuple):
    """One number; ``suffix`` is what follows the family's name."""

    value: float
    labels: Mapping[str, str] = {}
    suffix: str = ""


@dataclass(frozen=True, slots=True)
class Family:
    """All numbers of one name; ``kind`` is as Prometheus calls it."""

    name: str
    kind: str
    help: str
    samples: tuple[Sample, ...]


def gauge(name: str, words: str, samples: Iterable[Sample] | float) -> Family:
    return Family(name, "gauge", words, _samples(samples))


def counter(name: str, words: str, samples: Iterable[Sample] | float) -> Family:
    return Family(name, "counter", words, _samples(samples))


def _samples(samples: Iterable[Sample] | float) -> tuple[Sample, ...]:
    return (Sample(samples),) if isinstance(samples, (int, float)) else tuple(samples)


class Histogram:
    """How long something took, in seconds."""

    def __init__(self) -> None:
        self._counts = [0] * len(_BUCKETS_S)
        self._count, self._sum_s = 0, 0.0

    def observe(self, seconds: float) -> None:
        self._count, self._sum_s = self._count + 1, self._sum_s + seconds
        for place, bound_s in enumerate(_BUCKETS_S):
            self._counts[place] += seconds <= bound_s

    def family(self, name: str, words: str) -> Family:
        counts = zip((*map(str, _BUCKETS_S), "+Inf"), (*self._counts, self._count), strict=True)
        buckets = [Sample(count, {"le": bound}, "_bucket") for bound, count in counts]
        return Family(
            name,
            "histogram",
            words,
            (*buckets, Sample(self._sum_s, suffix="_sum"), Sample(self._count, suffix="_count")),
        )


def text(families: Iterable[Family]) -> str:
    return "".join(f"{line}\n" for family in families for line in _lines(family))


def _lines(family: Family) -> Iterator[str]:
    name = _PREFIX + family.name
    yield f"# HELP {name} {family.help}"
    yield f"# TYPE {name} {family.kind}"
    for sample in family.samples:
        labels = ",".join(f'{label}="{_escaped(value)}"' for label, value in sample.labels.items())
        yield (
            f"{name}{sample.suffix}{{{labels}}} {sample.value!r}"
            if labels
            else (f"{name}{sample.suffix} {sample.value!r}")
        )


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
