"""Whether it does harm that a worker reports its successes late.

Simulated in virtual time: ours merges successes while all is well and tells them after up to 20 s; the peer tells
every result within a second, in the order of arrival. Failures go at once in both. Such fleets work for a while,
others meet a total outage. Every figure is the same in every run.
"""

from __future__ import annotations

import heapq
import itertools
import random
import statistics
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field

from openrouter_guard.rules.breaker import Policy, threshold
from openrouter_guard.worker.reporting.agent import CALM_S, FLUSH_S

from .measuring import Effort, Row

__all__ = ["Fleet", "run"]

CALL_S, FAILED_CALL_S = 2.0, 0.5
TRIP_S, PUSH_S, POLL_AGE_S = 0.01, 0.02, 0.4
"""A report's way to Redis, a push's way to a worker, and how old what a poll a second knows is on average."""
LATE_S = 1.0
SUSPECT = 2
"""Both as the counting script has them."""
FLEETS = ((1, 0.1), (5, 0.1), (50, 0.02), (50, 0.1), (200, 0.1), (1000, 0.02))
WORK_S = 900.0
OUTAGE_S = 60.0


def run(effort: Effort) -> Iterator[Row]:
    for workers, error_rate in FLEETS[: effort.samples]:
        until = min(WORK_S, 4e6 * effort.simulated_h / workers)
        ours, peer = (Fleet(workers, error_rate, is_patient=patient).after(until) for patient in (True, False))
        name = f"{workers} workers, {error_rate:.0%} errors"
        yield Row(f"{name}: trips in {until / 60:.0f} min", ours.trips, "trips", peer.trips)
        yield Row(f"{name}: reports", ours.reports_per_1000, "per 1,000 calls", peer.reports_per_1000)
        seen = [_notice_s(workers, error_rate, effort.samples, is_patient=patient) for patient in (True, False)]
        yield Row(f"{name}: a total outage is noticed, median", seen[0], "s", seen[1])


def _notice_s(workers: int, error_rate: float, outages: int, *, is_patient: bool) -> float:
    fleets = [
        Fleet(workers, error_rate, is_patient=is_patient, seed=seed, outage_s=OUTAGE_S) for seed in range(outages)
    ]
    return statistics.median(fleet.after(2 * OUTAGE_S).noticed_s - OUTAGE_S for fleet in fleets)


@dataclass(slots=True)
class Worker:
    """What one worker knows, and has not told yet.

    Attributes:
        waiting: The end of each call that was not told, and whether it failed.
        phase_s: When in each second it looks whether to tell.
        seen: Failures in a row as it last heard, and
        seen_at: when that was.
        due_s: When it will tell; None if nothing waits.
    """

    phase_s: float
    waiting: list[tuple[float, bool]] = field(default_factory=list)
    told_s: float = -CALM_S
    patience_s: float = FLUSH_S
    seen: int = 0
    seen_at: float = 0.0
    due_s: float | None = None

    def next_look_s(self, after_s: float) -> float:
        return after_s + FLUSH_S - (after_s - self.phase_s) % FLUSH_S


class Fleet:
    """Workers that call without a pause, and their breaker, which closes at once whenever it has opened."""

    def __init__(
        self, workers: int, error_rate: float, *, is_patient: bool, seed: int = 0, outage_s: float = float("inf")
    ) -> None:
        self.trips = self.calls = self.reports = 0
        self.noticed_s = float("inf")
        self._error_rate, self._is_patient, self._outage_s = error_rate, is_patient, outage_s
        self._lot = random.Random(seed)
        self._workers = [Worker(self._lot.random()) for _ in range(workers)]
        rate = workers * 60 / ((1 - error_rate) * CALL_S + error_rate * FAILED_CALL_S)
        self._threshold = threshold(rate, Policy())
        self._reporters_wanted = min(Policy().reporters_wanted, workers)
        self._failures, self._run_since, self._pushed_at = 0, 0.0, -1.0
        self._run: set[int] = set()
        self._times_s, self._values = [-1.0], [0]
        self._order = itertools.count()
        self._queue: list[tuple[float, int, int, bool | None]] = []

    @property
    def reports_per_1000(self) -> float:
        return 1000 * self.reports / self.calls

    def after(self, until: float) -> Fleet:
        """The fleet after so much time, or once it noticed the outage."""
        for number in range(len(self._workers)):
            self._call(self._lot.uniform(0, CALL_S), number)
        while self._queue[0][0] < until and self.noticed_s == float("inf"):
            at, _, number, failed = heapq.heappop(self._queue)
            if failed is None:
                if self._workers[number].due_s == at:
                    self._tell(at, number)
            else:
                self._ended(at, number, failed=failed)
        return self

    def _call(self, at: float, number: int) -> None:
        failed = at >= self._outage_s or self._lot.random() < self._error_rate
        lasts_s = (FAILED_CALL_S if failed else CALL_S) * self._lot.uniform(0.5, 1.5)
        heapq.heappush(self._queue, (at + lasts_s, next(self._order), number, failed))

    def _ended(self, at: float, number: int, *, failed: bool) -> None:
        worker = self._workers[number]
        worker.waiting.append((at, failed))
        self.calls += 1
        self._call(at, number)
        if failed or (self._is_patient and self._known(at, worker)):
            self._plan(at + TRIP_S, number)
        elif self._is_patient:
            self._plan(worker.next_look_s(max(at, worker.told_s + worker.patience_s - FLUSH_S)), number)
        else:
            self._plan(at + self._lot.uniform(TRIP_S, FLUSH_S), number)

    def _known(self, at: float, worker: Worker) -> int:
        """Failures in a row as the worker knows: by push, or by poll: seldom while there are none."""
        if worker.seen_at < self._pushed_at + PUSH_S <= at:
            worker.seen, worker.seen_at, worker.patience_s = SUSPECT, self._pushed_at + PUSH_S, FLUSH_S
        age_s = POLL_AGE_S if worker.seen else CALM_S
        if at - age_s > worker.seen_at:
            worker.seen, worker.seen_at = self._values[bisect_right(self._times_s, at - age_s) - 1], at - age_s
        return worker.seen

    def _plan(self, at: float, number: int) -> None:
        worker = self._workers[number]
        if worker.due_s is None or at < worker.due_s:
            worker.due_s = at
            heapq.heappush(self._queue, (at, next(self._order), number, None))

    def _tell(self, at: float, number: int) -> None:
        worker = self._workers[number]
        self.reports += 1
        self._count(at, number, worker.waiting)
        worker.waiting, worker.due_s, worker.told_s = [], None, at
        worker.seen, worker.seen_at = self._failures, at
        worker.patience_s = FLUSH_S if self._failures else min(2 * worker.patience_s, CALM_S)

    def _count(self, at: float, number: int, results: list[tuple[float, bool]]) -> None:
        """As the counting script does it, and open if that is enough."""
        success_s = max((ended_at for ended_at, failed in results if not failed), default=-1.0)
        failed_s = [ended_at for ended_at, failed in results if failed and ended_at > success_s]
        before, failures = self._failures, self._failures
        if success_s >= 0 and (not self._is_patient or success_s >= self._run_since - LATE_S):
            failures = 0
        if failed_s and not failures:
            self._run_since, self._run = failed_s[0], set()
        failures += len(failed_s)
        self._run |= {number} if failed_s else set()
        if failures >= self._threshold and len(self._run) >= self._reporters_wanted:
            self.trips += 1
            self.noticed_s = at if at >= self._outage_s else self.noticed_s
            failures = 0
        self._change(at, failures)
        if before < SUSPECT <= failures:
            self._push(at)

    def _change(self, at: float, failures: int) -> None:
        if failures != self._failures:
            self._failures = failures
            self._times_s.append(at)
            self._values.append(failures)

    def _push(self, at: float) -> None:
        self._pushed_at = at
        for number, worker in enumerate(self._workers):
            if self._is_patient and worker.waiting:
                self._plan(worker.next_look_s(at + PUSH_S), number)
