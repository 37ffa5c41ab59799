"""The question to the fleet before the breaker opens: are calls that began when the failed ones did still well?

Failures come back sooner than successes. So in a fleet that has just started, or recovered, the first calls to end
are the failed ones, and enough of them in a row occur by chance. The calls in progress know better. One question goes
to all workers once, when the failures are enough. The first process that looks a quarter of a second later decides,
on the answers so far. All times are Unix seconds of Redis' clock.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum

__all__ = [
    "ACQUITTED_S",
    "ANSWER_S",
    "EARLIER_S",
    "HELD_S",
    "LATE_S",
    "NEVER",
    "NOTHING",
    "SUCCESSES_KEPT",
    "Acquittal",
    "Evidence",
    "Question",
    "Verdict",
    "asked",
    "is_clear",
    "verdict",
]

ANSWER_S = 0.25
"""How long a question waits for answers."""
ANSWERING_S = 0.1
"""How long a large fleet takes to answer if Redis is near."""
ROUND_TRIPS = 4
"""Maximum number of round trips from the decision to ask to the answers: a commit, a push, a read, an answer."""
AHEAD_MOST_S = 0.75
"""A question is never dated further ahead than this, because a time far ahead means a clock that was set back."""
HELD_S = 2.0
"""How long a question keeps the run of failures together, however late it is decided."""
ACQUITTED_S = 5.0
"""How long later questions include the calls of the last acquittal."""
LATE_S = 1.0
"""A call that ended well this long before the failures began still contradicts them."""
SUCCESSES_KEPT = 64
"""Number of recent successes that each worker remembers."""
EARLIER_S = 1.0
"""How long after a run's first failure it outlives successes of calls that began before the failed ones."""
CLEAR = 4
"""This many well calls per failed one end a run of failures."""
WELL_COSTS = 3
"""A run that such successes did not end needs this many more failures for each well call."""
BACK_S = 1.0
"""A question further ahead comes from a clock that was set back since."""


class Verdict(Enum):
    """The outcome of a question, unless it stays open."""

    OPEN = "open"
    ACQUITTED = "acquitted"


@dataclass(frozen=True, slots=True)
class Evidence:
    """Evidence of the calls in a run of failures.

    Attributes:
        began_s: Start of the earliest one; 0 if unknown.
        since_s: End of the first one.
        timed: Number of calls with a known duration.
        took_s: Their total duration.
        longest_s: The longest duration.
    """

    began_s: float = 0.0
    since_s: float = 0.0
    timed: int = 0
    took_s: float = 0.0
    longest_s: float = 0.0

    @property
    def usual_s(self) -> float:
        """The duration of failures, a third of the way from their mean to the longest.

        A call that has run for longer did not fail as these did.
        """
        mean_s = self.took_s / self.timed if self.timed else 0.0
        return mean_s + max(self.longest_s - mean_s, 0.0) / 3

    def outlives(self, began_s: float, ended_s: float) -> bool:
        """Return whether the run outlives a success, which began before the failed calls and says nothing of them.

        Only for a moment: of a run that lasts, calls that began later tell more. ``began_s`` is 0 if unknown.
        """
        return 0 < began_s < self.began_s and ended_s < self.since_s + EARLIER_S

    def after(self, began_s: float, ended_s: float) -> Evidence:
        """Add one failure; ``began_s`` is 0 if unknown."""
        since_s = self.since_s or ended_s
        known = replace(self, since_s=since_s)
        took_s = max(ended_s - began_s, 0.0)
        return known.joined(1, began_s, took_s, took_s) if began_s else known

    def moved(self, by_s: float) -> Evidence:
        """Return it with all moments moved *by_s* seconds, to another clock."""
        began_s, since_s = (at_s + by_s if at_s else 0.0 for at_s in (self.began_s, self.since_s))
        return replace(self, began_s=began_s, since_s=since_s)

    def joined(self, timed: int, began_s: float, took_s: float, longest_s: float) -> Evidence:
        """Add some failures whose start is known."""
        first_s = min(self.began_s, began_s) if self.began_s else began_s
        longest_s = max(self.longest_s, longest_s)
        return Evidence(first_s, self.since_s or began_s, self.timed + timed, self.took_s + took_s, longest_s)


NOTHING = Evidence()


@dataclass(frozen=True, slots=True)
class Question:
    """An open question.

    Attributes:
        number: Identifies it.
        at_s: Time of the question.
        began_s: It covers calls that began from then on, and
        usual_s: that have run for longer than this, or
        since_s: that ended well, no more than a moment before then.
        answers: Number of answers so far.
    """

    number: int
    at_s: float
    began_s: float
    usual_s: float
    since_s: float
    answers: int = 0

    def from_afar(self, round_trip_s: float) -> Question:
        """Return the question adjusted to the distance of Redis, so that answers arrive in time.

        All processes, including older ones, wait equally long from its time, so it is dated ahead.

        Args:
            round_trip_s: Round trip to Redis.
        """
        ahead_s = ANSWERING_S + ROUND_TRIPS * round_trip_s - ANSWER_S
        return replace(self, at_s=round(self.at_s + max(0.0, min(ahead_s, AHEAD_MOST_S)), 6))

    def is_due(self, now_s: float) -> bool:
        """Return whether it is time to decide."""
        return not self.at_s - BACK_S < now_s < self.at_s + ANSWER_S

    def holds(self, now_s: float) -> bool:
        """Return whether successes keep the run of failures, because the answers include them."""
        return self.at_s - BACK_S < now_s < self.at_s + HELD_S

    def answer(self, now_s: float, under_way: Iterable[float], ended_well: Iterable[tuple[float, float]]) -> int:
        """Return how many calls contradict the failures.

        Args:
            now_s: The time.
            under_way: Start of each call in progress.
            ended_well: Start and end of each recent success.
        """
        out = sum(self.began_s <= began_s < now_s - self.usual_s for began_s in under_way)
        since_s = self.since_s - LATE_S
        return out + sum(began_s >= self.began_s and ended_s >= since_s for began_s, ended_s in ended_well)


@dataclass(frozen=True, slots=True)
class Acquittal:
    """The last acquittal: its time, and the earliest start of the calls it covered."""

    at_s: float = 0.0
    began_s: float = 0.0

    def is_recent(self, now_s: float) -> bool:
        """Return whether it was a moment ago."""
        return now_s - self.at_s < ACQUITTED_S


NEVER = Acquittal()


def asked(evidence: Evidence, last: Acquittal, now_s: float) -> Question:
    """Return the question to ask now. It includes the calls of a recent question."""
    began_s = evidence.began_s
    if last.is_recent(now_s) and now_s - last.began_s < ACQUITTED_S:
        began_s = min(began_s, last.began_s)
    # As stored, so that all processes decide on the same values.
    at_s, began_s, since_s = round(now_s, 6), round(began_s, 6), round(evidence.since_s, 6)
    return Question(round(now_s * 1e3), at_s, began_s, round(evidence.usual_s, 6), since_s)


def verdict(failures: int, answers: int) -> Verdict | int:
    """Return the outcome for this many failures and well calls: else, the number of failures to ask again at.

    >>> [verdict(8, answers) for answers in (8, 9, 31, 32)]
    [<Verdict.OPEN: 'open'>, 9, 20, <Verdict.ACQUITTED: 'acquitted'>]
    """
    if failures >= answers:
        return Verdict.OPEN
    if answers >= CLEAR * failures:
        return Verdict.ACQUITTED
    return max(failures + 1, (failures + answers + 1) // 2)


def is_clear(failures: int, wanted: int, answers: int) -> bool:
    """Return whether a run opens the breaker that successes of earlier calls did not end.

    Such a run grows quickly also where some calls fail by chance, so well calls weigh more: else it is over.

    >>> [is_clear(failures, 8, answers) for failures, answers in ((8, 0), (8, 1), (11, 1), (13, 2))]
    [True, False, True, False]
    """
    return answers * WELL_COSTS <= failures - wanted
