"""The course of a drill: the times at which workloads went and came back, and whether they meet the goals; pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Course", "Goals", "Seen"]


@dataclass(frozen=True, slots=True)
class Goals:
    """Seconds within which the last workload should be paused, and be back."""

    pause_s: float
    resume_s: float


@dataclass(frozen=True, slots=True)
class Seen:
    """The paused workloads at a moment, and the number of pods that the targets have; None if that is not known."""

    paused: frozenset[str]
    pods: int | None = None


@dataclass(slots=True)
class Course:
    """The times of a drill: ``None`` for all that has not happened.

    Attributes:
        paused: All workloads that were paused during the drill.
        first_paused_s: Seconds from the start to the first paused workload.
        last_paused_s: The same to the last one.
        pods_gone_s: The same to the fewest pods.
        first_back_s: Seconds from the end of the override to the first workload that is no longer paused.
        all_back_s: The same to the last one.
        pods_back_s: The same to as many pods as before.
    """

    before: Seen
    paused: set[str] = field(default_factory=set)
    fewest: int | None = None
    first_paused_s: float | None = None
    last_paused_s: float | None = None
    pods_gone_s: float | None = None
    first_back_s: float | None = None
    all_back_s: float | None = None
    pods_back_s: float | None = None

    def go(self, seen: Seen, after_s: float) -> None:
        """Take a look during the override, *after_s* seconds after its start."""
        if seen.paused - self.paused:
            self.first_paused_s = after_s if self.first_paused_s is None else self.first_paused_s
            self.last_paused_s = after_s
            self.paused |= seen.paused
        fewest = self.before.pods if self.fewest is None else self.fewest
        if seen.pods is not None and fewest is not None and seen.pods < fewest:
            self.fewest, self.pods_gone_s = seen.pods, after_s

    def come_back(self, seen: Seen, after_s: float) -> bool:
        """Take a look after the override, *after_s* seconds after its end; return whether all is as before."""
        if self.first_back_s is None and self.paused - seen.paused:
            self.first_back_s = after_s
        if self.all_back_s is None and self.paused and not seen.paused & self.paused:
            self.all_back_s = after_s
        are_pods_back = seen.pods is None or seen.pods >= (self.before.pods or 0)
        if self.pods_back_s is None and self.fewest is not None and are_pods_back:
            self.pods_back_s = after_s
        return are_pods_back and not seen.paused & self.paused

    def steps(self, goals: Goals) -> Iterator[dict[str, Any]]:
        """Yield each step with its time in seconds, its goal, and whether it was met."""
        yield _step("first workload paused", self.first_paused_s)
        yield _step("last workload paused", self.last_paused_s, goals.pause_s)
        if self.before.pods is not None:
            yield _step("last pod gone", self.pods_gone_s)
        yield _step("first workload back", self.first_back_s)
        yield _step("last workload back", self.all_back_s, goals.resume_s)
        if self.before.pods is not None:
            yield _step("last pod back", self.pods_back_s)


def _step(name: str, after_s: float | None, goal_s: float | None = None) -> dict[str, Any]:
    is_met = None if goal_s is None else after_s is not None and after_s <= goal_s
    return {"step": name, "after_s": None if after_s is None else round(after_s, 1), "goal_s": goal_s, "met": is_met}
