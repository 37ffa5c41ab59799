"""A process' knowledge of the shared state.

The basis of its decisions, with due transitions and the parts that Redis lost.
"""

from __future__ import annotations

from collections.abc import Callable

from openrouter_guard.rules import evaluation
from openrouter_guard.rules.breaker import Policy
from openrouter_guard.rules.loss import recovered
from openrouter_guard.rules.question import Question
from openrouter_guard.rules.shared_state import SharedState

from .calls_in_flight import question_in

__all__ = ["Knowledge"]


class Knowledge:
    """The knowledge of one reporter.

    Args:
        policy: The settings of the rules.
        by: Name for the decisions.
        is_only: Whether no other worker can be asked.
        answer: Returns how many calls of this process contradict the failures, at that time.
        round_trip_s: How long Redis takes to answer, in seconds.

    Attributes:
        shared: The last read; parts that Redis lost are kept as they were.
    """

    def __init__(
        self,
        policy: Policy,
        by: str,
        is_only: Callable[[SharedState], bool],
        answer: Callable[[Question, float], int],
        round_trip_s: Callable[[], float],
    ) -> None:
        self._policy = policy
        self._by = by
        self._is_only = is_only
        self._answer = answer
        self._round_trip_s = round_trip_s
        self.shared: SharedState | None = None

    def take(self, record: SharedState | None, now_s: float) -> SharedState:
        """Take a new read; return the state that follows from it."""
        # Lost parts are kept as they were: only a commit may give them a new epoch.
        if self.restored(record, now_s) is None:
            self.shared = record
        return self.evaluate(self.shared or SharedState(), now_s)

    def current(self, record: SharedState | None, now_s: float) -> SharedState | None:
        """Return the record that should replace it."""
        return self.restored(record, now_s) or (record and self.evaluate(record, now_s))

    def restored(self, record: SharedState | None, now_s: float) -> SharedState | None:
        """Return the lost state, if the record shows that Redis lost it."""
        return recovered(self.shared or SharedState(), record, now_s, self._policy)

    def to_decide_on(self, record: SharedState | None, now_s: float) -> SharedState | None:
        """Return the record, or the one that Redis has lost."""
        known = self.restored(record, now_s) or record
        # The overwrite by an older writer comes first.
        return known if known is None or known.legacy_open is None else self.evaluate(known, now_s)

    def evaluate(self, record: SharedState, now_s: float) -> SharedState:
        """Return the record with due transitions."""
        after = evaluation.evaluate(record, now_s=now_s, policy=self._policy, by=self._by)
        question = question_in(after)
        if question is None:
            return after
        if not self._is_only(after):
            is_new = question_in(record) is None
            return evaluation.asked_from_afar(after, self._round_trip_s()) if is_new else after
        # No other process waits for our part.
        answered = evaluation.answered(after, self._answer(question, now_s), now_s)
        return evaluation.evaluate(answered, now_s=now_s, policy=self._policy, by=self._by)
