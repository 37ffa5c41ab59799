"""Tracks this process' calls in progress, and the last successes: its answer when the fleet is asked."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice, pairwise, repeat, starmap
from operator import itemgetter
from typing import TypeVar

from openrouter_guard.clocks import UNKNOWN, MonotonicTime, ServerTime
from openrouter_guard.rules.breaker import Closed
from openrouter_guard.rules.question import SUCCESSES_KEPT, Question
from openrouter_guard.rules.shared_state import SharedState
from openrouter_guard.rules.signals import SUCCESS
from openrouter_guard.worker.view import Ended

__all__ = ["Flight", "popped", "question_in"]

T = TypeVar("T")

LONGEST_S = 900.0
"""A call that runs for this long counts as one whose end was never reported."""
TIDY_AT = 4096
_BEGAN_S, _ENDED_S = itemgetter(2), itemgetter(3)
ENDS_KEPT = 9
"""Number of latest ends of calls that are remembered: the longest of the gaps between them is nothing unusual."""
IDLE_S = 60.0
"""After this time without a call a worker is idle, whatever its gaps were: it is no live reporter any more."""
STEADY_S = 0.1
"""Apparent difference of the clocks between two answers of Redis, which took more or less time."""


class Flight:
    """The calls of one guard.

    Args:
        begun: Start times of calls, by the monotonic clock; each call adds its own.
    """

    def __init__(self, begun: deque[MonotonicTime]) -> None:
        self._begun = begun
        self._under_way: set[MonotonicTime] = set()
        self._ended_well: deque[tuple[MonotonicTime, MonotonicTime]] = deque(maxlen=SUCCESSES_KEPT)
        self._ends: deque[MonotonicTime] = deque(maxlen=ENDS_KEPT)
        self._tidy_at = TIDY_AT
        self._offset_s = float("inf")

    def offset_s(self, latest: float) -> float:
        """Redis' clock minus the monotonic one, for all times of calls.

        With a wavering offset, a call that ended just before the first failure would seem to have begun after it.

        Args:
            latest: The offset of the last answer.
        """
        if abs(latest - self._offset_s) > STEADY_S:
            self._offset_s = latest
        return self._offset_s

    def note(self, ended: Sequence[Ended]) -> None:
        """Take the noted starts. Take the ended calls before: each of them has begun by then."""
        with suppress(IndexError):
            self._under_way.update(popped(self._begun))
        self._under_way.difference_update(map(_BEGAN_S, ended))
        well = ((began_at, at) for signal, _, began_at, at, _ in reversed(ended) if signal is SUCCESS and began_at)
        self._ended_well.extend(reversed(list(islice(well, SUCCESSES_KEPT))))
        self._ends.extend(map(_ENDED_S, ended[-ENDS_KEPT:]))
        if len(self._under_way) > self._tidy_at:
            self._tidy(ended[-1][3] if ended else UNKNOWN)

    def _tidy(self, now: MonotonicTime) -> None:
        self._under_way = {began_at for began_at in self._under_way if began_at > now - LONGEST_S}
        self._tidy_at = max(TIDY_AT, 2 * len(self._under_way))

    def answer(self, question: Question, now: ServerTime, offset_s: float, *, is_missed: bool = False) -> int:
        """Return how many of the calls contradict the failures.

        Args:
            question: The open question.
            now: The time, by Redis' clock.
            offset_s: That clock minus the monotonic one.
            is_missed: Whether too few workers have failed, and this one has not: then it also contradicts them, with
                one call, by being at work.
        """
        under_way = (began_at + offset_s for began_at in self._under_way)
        ended_well = ((began_at + offset_s, ended_at + offset_s) for began_at, ended_at in self._ended_well)
        calls = question.answer(now, under_way, ended_well)
        return calls or int(is_missed and self._is_at_work(MonotonicTime(now - offset_s)))

    def _is_at_work(self, now: MonotonicTime) -> bool:
        """Return whether a call is in progress, or the next one is not overdue by the latest gaps between calls."""
        if self._under_way:
            return True
        gaps = [later - earlier for earlier, later in pairwise(self._ends)]
        return bool(self._ends) and now - self._ends[-1] <= min(max(gaps, default=IDLE_S), IDLE_S)


def question_in(record: SharedState | None) -> Question | None:
    """The open question."""
    breaker = record.breaker if record else None
    return breaker.question if isinstance(breaker, Closed) else None


def popped(queue: deque[T]) -> Iterator[T]:
    """Return the content of the queue, from its left end, without running a line of Python per item.

    Raises:
        IndexError: If another thread takes from the queue during the iteration. The earlier items have been taken:
            put them into an existing list.
    """
    return starmap(queue.popleft, repeat((), len(queue)))
