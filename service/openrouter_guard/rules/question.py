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
        began_at: Start of the earliest one; 0 if unknown.
        since: End of the first one.
        timed: Number of calls with a known duration.
        took_s: Their total duration.
        longest_s: The longest duration.
    """

    began_at: float = 0.0
    since: float = 0.0
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

    def outlives(self, began_at: float, ended_at: float) -> bool:
        """Return whether the run outlives a success, which began before the failed calls and says nothing of them.

        Only for a moment: of a run that lasts, calls that began later tell more. ``began_at`` is 0 if unknown.
        """
        return 0 < began_at < self.began_at and ended_at < self.since + EARLIER_S

    def after(self, began_at: float, ended_at: float) -> Evidence:
        """Add one failure; ``began_at`` is 0 if unknown."""
        since = self.since or ended_at
        known = replace(self, since=since)
        took_s = max(ended_at - began_at, 0.0)
        return known.joined(1, began_at, took_s, took_s) if began_at else known

    def moved(self, by_s: float) -> Evidence:
        """Return it with all moments moved *by_s* seconds, to another clock."""
        began_at, since = (at + by_s if at else 0.0 for at in (self.began_at, self.since))
        return replace(self, began_at=began_at, since=since)

    def joined(self, timed: int, began_at: float, took_s: float, longest_s: float) -> Evidence:
        """Add some failures whose start is known."""
        first_at = min(self.began_at, began_at) if self.began_at else began_at
        longest_s = max(self.longest_s, longest_s)
        return Evidence(first_at, self.since or began_at, self.timed + timed, self.took_s + took_s, longest_s)


NOTHING = Evidence()


@dataclass(frozen=True, slots=True)
class Question:
    """An open question.

    Attributes:
        number: Identifies it.
        at: Time of the question.
        began_at: It covers calls that began from then on, and
        usual_s: that have run for longer than this, or
        since: that ended well, no more than a moment before then.
        answers: Number of answers so far.
    """

    number: int
    at: float
    began_at: float
    usual_s: float
    since: float
    answers: int = 0

    def from_afar(self, round_trip_s: float) -> Question:
        """Return the question adjusted to the distance of Redis, so that answers arrive in time.

        All processes, including older ones, wait equally long from its time, so it is dated ahead.

        Args:
            round_trip_s: Round trip to Redis.
        """
        ahead_s = ANSWERING_S + ROUND_TRIPS * round_trip_s - ANSWER_S
        return replace(self, at=round(self.at + max(0.0, min(ahead_s, AHEAD_MOST_S)), 6))

    def is_due(self, now: float) -> bool:
        """Return whether it is time to decide."""
        return not self.at - BACK_S < now < self.at + ANSWER_S

    def holds(self, now: float) -> bool:
        """Return whether successes keep the run of failures, because the answers include them."""
        return self.at - BACK_S < now < self.at + HELD_S

    def answer(self, now: float, under_way: Iterable[float], ended_well: Iterable[tuple[float, float]]) -> int:
        """Return how many calls contradict the failures.

        Args:
            now: The time.
            under_way: Start of each call in progress.
            ended_well: Start and end of each recent success.
        """
        out = sum(self.began_at <= began_at < now - self.usual_s for began_at in under_way)
        since = self.since - LATE_S
        return out + sum(began_at >= self.began_at and ended_at >= since for began_at, ended_at in ended_well)


@dataclass(frozen=True, slots=True)
class Acquittal:
    """The last acquittal: its time, and the earliest start of the calls it covered."""

    at: float = 0.0
    began_at: float = 0.0

    def is_recent(self, now: float) -> bool:
        """Return whether it was a moment ago."""
        return now - self.at < ACQUITTED_S


NEVER = Acquittal()


def asked(evidence: Evidence, last: Acquittal, now: float) -> Question:
    """Return the question to ask now. It includes the calls of a recent question."""
    began_at = evidence.began_at
    if last.is_recent(now) and now - last.began_at < ACQUITTED_S:
        began_at = min(began_at, last.began_at)
    # As stored, so that all processes decide on the same values.
    at, began_at, since = round(now, 6), round(began_at, 6), round(evidence.since, 6)
    return Question(round(now * 1e3), at, began_at, round(evidence.usual_s, 6), since)


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
