"""What the fleet is asked before the breaker opens: are calls that began when the failed ones did still well?

Failures come back sooner than answers. So in a fleet that has just started, or recovered, the first calls to end are
the failed ones, and enough of them in a row come by chance. The calls that are still under way know better. One
question goes to all workers once, when the failures are enough; it is decided on what was answered a quarter of a
second later, by whoever looks first. All times are Unix seconds of Redis' clock.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum

__all__ = [
    "ACQUITTED_S",
    "ANSWER_S",
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
    "verdict",
]

ANSWER_S = 0.25
"""How long a question waits for answers."""
ANSWERING_S = 0.1
"""So long a large fleet takes to answer, where Redis is next door."""
ROUND_TRIPS = 4
"""So many it takes at the most from the thought of a question to its answers: a commit, a push, a look, an answer."""
AHEAD_MOST_S = 0.75
"""A question is never put further ahead than this, for what lies far ahead is taken for a clock that was set back."""
HELD_S = 2.0
"""For so long a question holds the run of failures together, whoever may be late to decide on it."""
ACQUITTED_S = 5.0
"""For so long a question goes on to ask of the calls that the last acquittal rested on."""
LATE_S = 1.0
"""A call that ended well so long before the failures began still speaks against them."""
SUCCESSES_KEPT = 64
"""So many of the last calls that ended well does each worker remember."""
CLEAR = 4
"""So many calls that are well, to each that failed, end a run of failures."""
BACK_S = 1.0
"""A question that lies further ahead was put by a clock that has been set back since."""


class Verdict(Enum):
    """What a question comes to, where it does not stay open."""

    OPEN = "open"
    ACQUITTED = "acquitted"


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of the calls in a run of failures.

    Attributes:
        began_s: When the earliest of them began; 0 if nobody said.
        since_s: When the first of them ended.
        timed: How many it is known of how long they took.
        took_s: How long these took together.
        longest_s: How long the longest took.
    """

    began_s: float = 0.0
    since_s: float = 0.0
    timed: int = 0
    took_s: float = 0.0
    longest_s: float = 0.0

    @property
    def usual_s(self) -> float:
        """How long failures take, a third of the way from their mean to the longest.

        Of a call that has been out for longer it is known that it did not fail as these did.
        """
        mean_s = self.took_s / self.timed if self.timed else 0.0
        return mean_s + max(self.longest_s - mean_s, 0.0) / 3

    def after(self, began_s: float, ended_s: float) -> Evidence:
        """With one more failure; ``began_s`` is 0 if nobody knows."""
        since_s = self.since_s or ended_s
        known = replace(self, since_s=since_s)
        took_s = max(ended_s - began_s, 0.0)
        return known.joined(1, began_s, took_s, took_s) if began_s else known

    def joined(self, timed: int, began_s: float, took_s: float, longest_s: float) -> Evidence:
        """With some failures more, whose beginning is known."""
        first_s = min(self.began_s, began_s) if self.began_s else began_s
        longest_s = max(self.longest_s, longest_s)
        return Evidence(first_s, self.since_s or began_s, self.timed + timed, self.took_s + took_s, longest_s)


NOTHING = Evidence()


@dataclass(frozen=True, slots=True)
class Question:
    """One that is out.

    Attributes:
        number: Tells it from every other one.
        at_s: When it was asked.
        began_s: It asks of calls that began from then on, and
        usual_s: that have been out for longer than this, or
        since_s: that ended well, no more than a moment before then.
        answers: How many there were, by now.
    """

    number: int
    at_s: float
    began_s: float
    usual_s: float
    since_s: float
    answers: int = 0

    def from_afar(self, round_trip_s: float) -> Question:
        """The question as it is put from so far away, if that is too far for answers to be there in time.

        All wait for as long from the time that it bears, older workers too, so it is dated ahead.

        Args:
            round_trip_s: What an answer of Redis takes.
        """
        ahead_s = ANSWERING_S + ROUND_TRIPS * round_trip_s - ANSWER_S
        return replace(self, at_s=round(self.at_s + max(0.0, min(ahead_s, AHEAD_MOST_S)), 6))

    def is_due(self, now_s: float) -> bool:
        """Whether it is time to decide."""
        return not self.at_s - BACK_S < now_s < self.at_s + ANSWER_S

    def holds(self, now_s: float) -> bool:
        """Whether calls that end well leave the failures together, for they speak in the answers."""
        return self.at_s - BACK_S < now_s < self.at_s + HELD_S

    def answer(self, now_s: float, under_way: Iterable[float], ended_well: Iterable[tuple[float, float]]) -> int:
        """How many calls speak against the failures.

        Args:
            now_s: The time.
            under_way: When each call began that has not ended.
            ended_well: When each of the last calls that did so began and ended.
        """
        out = sum(self.began_s <= began_s < now_s - self.usual_s for began_s in under_way)
        since_s = self.since_s - LATE_S
        return out + sum(began_s >= self.began_s and ended_s >= since_s for began_s, ended_s in ended_well)


@dataclass(frozen=True, slots=True)
class Acquittal:
    """The last one: when it was, and from when on the calls that it asked of had begun."""

    at_s: float = 0.0
    began_s: float = 0.0


NEVER = Acquittal()


def asked(evidence: Evidence, last: Acquittal, now_s: float) -> Question:
    """The question to ask now. It reaches back to the calls that were asked of a moment ago, if that is not far."""
    began_s = evidence.began_s
    if now_s - last.at_s < ACQUITTED_S and now_s - last.began_s < ACQUITTED_S:
        began_s = min(began_s, last.began_s)
    # As they are written down, so that what is decided here is what all read.
    at_s, began_s, since_s = round(now_s, 6), round(began_s, 6), round(evidence.since_s, 6)
    return Question(round(now_s * 1e3), at_s, began_s, round(evidence.usual_s, 6), since_s)


def verdict(failures: int, answers: int) -> Verdict | int:
    """What follows from so many failures and so many calls that are well: else, at how many failures to ask again.

    >>> [verdict(8, answers) for answers in (8, 9, 31, 32)]
    [<Verdict.OPEN: 'open'>, 9, 20, <Verdict.ACQUITTED: 'acquitted'>]
    """
    if failures >= answers:
        return Verdict.OPEN
    if answers >= CLEAR * failures:
        return Verdict.ACQUITTED
    return max(failures + 1, (failures + answers + 1) // 2)
