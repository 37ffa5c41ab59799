"""A fleet in virtual time under the product's rules: its workers call, fail, retry, and answer the question.

Every worker calls without a pause. What a call that ends well, and one that fails, takes is drawn anew for each. The
results reach the shared state at once; a question is answered while it is out, and decided when its time is over.
Every figure is the same in every run.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from openrouter_guard.rules import evaluation
from openrouter_guard.rules.breaker import Closed, Policy
from openrouter_guard.rules.question import ANSWER_S
from openrouter_guard.rules.ramp import LONG_CALL_S, Ramp
from openrouter_guard.rules.shared_state import SharedState
from openrouter_guard.rules.signals import SUCCESS, Effect, ErrorType, Signal
from openrouter_guard.worker.lane import Lane

__all__ = ["Breaker", "Fleet", "Outage", "constant", "judged", "mixed"]

FAILURE = Signal(Effect.FAILURE, ErrorType.SERVICE_UNAVAILABLE)
MINUTE_S = 60.0
EPOCH_S = 1e9
"""Where time begins: no time that the rules take for one lies near 0."""
ANSWERED_S = 0.1
"""So long after a question the answers are there."""
RAMP_CALL_S = 20.0
"""What the trial call before a ramp took."""
SUCCESSES_KEPT = 64
NONE = -1
"""Answers that are there, and speak for nothing."""

Lot = random.Random
Took = Callable[[Lot], float]


def constant(took_s: float) -> Took:
    return lambda _lot: took_s


def mixed(least_s: float, most_s: float) -> Took:
    """As many calls between one and two seconds as between ten and twenty."""
    return lambda lot: float(least_s * (most_s / least_s) ** lot.random())


ONE_SECOND, HALF_A_MINUTE = constant(1.0), constant(30.0)


class Outage(NamedTuple):
    """From ``at`` on every call that begins fails after ``took_s``; those under way end well, or break within
    ``breaks_s`` (None: they end well)."""

    at: float
    took_s: float = 1.0
    breaks_s: float | None = None


class Call(NamedTuple):
    """One that is under way, by its end."""

    end_s: float
    worker: int
    began_at: float
    fails: bool


@dataclass(slots=True)
class Fleet:
    """Workers that call without a pause; so many of their calls fail, each by chance.

    Attributes:
        starts: ``steady``: at it for long; ``cold``: all begin within ``spread_s``; ``ramp``: as after a recovery.
        retries: So many more calls does a failed one make at once, which fail too.
        loops: The first worker's calls all fail.
        idle: Number of the workers that make no calls; they reported a moment ago.
    """

    workers: int
    error_rate: float
    good: Took = HALF_A_MINUTE
    failed: Took = ONE_SECOND
    starts: str = "steady"
    spread_s: float = 0.2
    retries: int = 0
    loops: bool = False
    idle: int = 0
    outage: Outage | None = None
    seed: int = 0
    lot: Lot = field(init=False)
    under_way: dict[int, Call] = field(init=False, default_factory=dict)
    _due: list[tuple[float, int, int]] = field(init=False, default_factory=list)
    _lane: Lane = field(init=False)
    _ramp: Ramp = field(init=False)

    def __post_init__(self) -> None:
        self.lot = Lot(self.seed)
        self._lane = Lane(self.lot.random)
        policy = Policy()
        most_s = policy.ramp_s * RAMP_CALL_S / LONG_CALL_S
        self._ramp = Ramp(0.0, most_s, policy.permits, self.workers, RAMP_CALL_S)

    def calls(self, until: float) -> Iterator[Call]:
        """The calls in the order of their ends."""
        for worker in range(self.workers - self.idle):
            if self.starts == "steady":
                # It is somewhere in the middle of its call.
                self._begin(worker, 0.0, passed=self.lot.random())
            else:
                heapq.heappush(self._due, (self.lot.random() * self.spread_s, worker, -1))
        breaks_s = self.outage.at if self.outage and self.outage.breaks_s is not None else float("inf")
        while self._due and self._due[0][0] < until:
            at, worker, retries = heapq.heappop(self._due)
            if at >= breaks_s:
                heapq.heappush(self._due, (at, worker, retries))
                self._break()
                breaks_s = float("inf")
                continue
            if retries < 0:
                self._begin(worker, at)
                continue
            call = self.under_way.pop(worker)
            yield call
            if call.fails and retries > 0:
                self._put(Call(at + self.failed(self.lot), worker, at, True), retries - 1)
            else:
                self._begin(worker, at)

    def _begin(self, worker: int, at: float, *, passed: float = 0.0) -> None:
        is_ramp = self.starts == "ramp" and at < self._ramp.ends_at
        if is_ramp and (wait_s := self._lane.enter(self._ramp, at)):
            heapq.heappush(self._due, (at + wait_s, worker, -1))
            return
        if self.outage and at >= self.outage.at:
            self._put(Call(at + self.outage.took_s, worker, at, True), 0)
            return
        # Of those that are in the middle of a call, few are in one that fails: it is short.
        fails = not passed and (self.lot.random() < self.error_rate or (self.loops and not worker))
        took_s = (self.failed if fails else self.good)(self.lot)
        began_at = at - passed * took_s
        self._put(Call(began_at + took_s, worker, began_at, fails), self.retries if fails else 0)

    def _put(self, call: Call, retries: int) -> None:
        self.under_way[call.worker] = call
        heapq.heappush(self._due, (call.end_s, call.worker, retries))

    def _break(self) -> None:
        assert self.outage is not None
        self._due = [due for due in self._due if due[2] < 0]
        for call in self.under_way.values():
            end_s = self.outage.at + self.lot.random() * (self.outage.breaks_s or 0.0)
            self.under_way[call.worker] = call._replace(end_s=end_s, fails=True)
            self._due.append((end_s, call.worker, 0))
        heapq.heapify(self._due)


@dataclass(slots=True)
class Breaker:
    """The shared breaker of a simulated fleet.

    Attributes:
        asks: Whether the fleet is asked before it opens; else a run of failures opens it.
        is_scaled: Whether its threshold grows with the calls; else it is the first one for ever.
        answers: The share of the workers that answer.
    """

    fleet: Fleet
    asks: bool = True
    is_scaled: bool = True
    rate: float = 0.0
    answers: float = 1.0
    policy: Policy = Policy()
    questions: int = 0
    answered: int = 0
    opened_s: float = 0.0
    record: SharedState = field(init=False)
    _ended_well: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=4 * SUCCESSES_KEPT))
    _calls: int = 0
    _since: float = 0.0

    def __post_init__(self) -> None:
        self.record = SharedState(epoch=1, live_reporters=self.fleet.workers, calls_per_minute=self.rate)

    def takes(self, call: Call) -> bool:
        """Count the end of a call; whether it opened the breaker, or the question that was out before it did."""
        at = call.end_s
        self._measure(at)
        if self._is_decided(at):
            return True
        if not call.fails:
            self._ended_well.append((call.began_at, at))
            if not self.record.breaker.failures:
                return False
        signal = FAILURE if call.fails else SUCCESS
        began_at = call.began_at + EPOCH_S if self.asks else 0.0
        counted = evaluation.counted(
            self.record, signal, f"w{call.worker}", began_at=began_at, ended_at=at + EPOCH_S if self.asks else 0.0
        )
        self.record = evaluation.evaluate(counted, now=at + EPOCH_S, policy=self.policy, by="simulation")
        self.opened_s = at
        if self.fleet.workers == 1 and isinstance(self.record.breaker, Closed) and self.record.breaker.question:
            # It answers itself, at once.
            self._answer(at + EPOCH_S)
            answered = evaluation.answered(self.record, 0, at + EPOCH_S)
            self.record = evaluation.evaluate(answered, now=at + EPOCH_S, policy=self.policy, by="simulation")
        return not isinstance(self.record.breaker, Closed)

    def _is_decided(self, at: float) -> bool:
        """Whether the question that was out has opened the breaker by now."""
        breaker = self.record.breaker
        if not isinstance(breaker, Closed) or breaker.question is None:
            return False
        question, due_s = breaker.question, breaker.question.at + ANSWER_S
        if not question.answers and at + EPOCH_S >= question.at + ANSWERED_S:
            self._answer(question.at + ANSWERED_S)
        if at + EPOCH_S < due_s:
            return False
        self.questions += 1
        self.record = evaluation.evaluate(self.record, now=due_s, policy=self.policy, by="simulation")
        self.opened_s = due_s - EPOCH_S
        return not isinstance(self.record.breaker, Closed)

    def _answer(self, at: float) -> None:
        breaker = self.record.breaker
        assert isinstance(breaker, Closed)
        assert breaker.question is not None
        shown = int(self.fleet.workers * self.answers)
        calls = [call for call in self.fleet.under_way.values() if call.worker < shown]
        well = [(began_at + EPOCH_S, ended_at + EPOCH_S) for began_at, ended_at in self._ended_well]
        found = breaker.question.answer(at, [call.began_at + EPOCH_S for call in calls], well)
        if evaluation.are_of_too_few(self.record, self.policy):
            # The others contradict the failures by being at work.
            found = found or sum(f"w{call.worker}" not in breaker.run for call in calls)
        self.answered += found
        self.record = replace(
            self.record, breaker=replace(breaker, question=replace(breaker.question, answers=found or NONE))
        )

    def close(self) -> None:
        """Begin anew, as after a false alarm."""
        self.record = replace(self.record, breaker=Closed())

    def _measure(self, at: float) -> None:
        """The calls per minute, as the store's script measures them."""
        self._calls += 1
        if self.is_scaled and at - self._since >= MINUTE_S:
            minutes = (at - self._since) / MINUTE_S
            rate = max(self._calls / minutes, self.record.calls_per_minute / 2**minutes)
            self.record = replace(self.record, calls_per_minute=rate)
            self._calls, self._since = 0, at


def judged(breaker: Breaker, until: float) -> float | None:
    """When the breaker opens first; None if it does not until then."""
    for call in breaker.fleet.calls(until):
        if breaker.takes(call):
            return breaker.opened_s
    return None
