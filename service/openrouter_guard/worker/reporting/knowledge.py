"""What a process knows of the shared state, and what to decide on: with what follows from it, and what Redis lost."""

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
    """That of one reporter.

    Args:
        policy: The settings of the rules.
        by: Who decides.
        is_only: Whether there is nobody else to ask.
        answer: How many calls of this process speak against the failures, at that time.
        round_trip_s: How long Redis takes to answer, in seconds.

    Attributes:
        shared: The state as last read; what Redis lost stays known as it was.
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
        """Take what was read; the state that follows from it."""
        # What Redis lost stays known as it was: only a commit may give it a new epoch.
        if self.restored(record, now_s) is None:
            self.shared = record
        return self.evaluate(self.shared or SharedState(), now_s)

    def current(self, record: SharedState | None, now_s: float) -> SharedState | None:
        """What should stand there instead of the record."""
        return self.restored(record, now_s) or (record and self.evaluate(record, now_s))

    def restored(self, record: SharedState | None, now_s: float) -> SharedState | None:
        """What Redis has lost, where the record shows that it has."""
        return recovered(self.shared or SharedState(), record, now_s, self._policy)

    def to_decide_on(self, record: SharedState | None, now_s: float) -> SharedState | None:
        """The record, or the one that Redis has lost."""
        known = self.restored(record, now_s) or record
        # What an older writer wrote over it comes first.
        return known if known is None or known.legacy_open is None else self.evaluate(known, now_s)

    def evaluate(self, record: SharedState, now_s: float) -> SharedState:
        """The record with what follows from it."""
        after = evaluation.evaluate(record, now_s=now_s, policy=self._policy, by=self._by)
        question = question_in(after)
        if question is None:
            return after
        if not self._is_only(after):
            is_new = question_in(record) is None
            return evaluation.asked_from_afar(after, self._round_trip_s()) if is_new else after
        # Nobody waits for what only we could say.
        answered = evaluation.answered(after, self._answer(question, now_s), now_s)
        return evaluation.evaluate(answered, now_s=now_s, policy=self._policy, by=self._by)
