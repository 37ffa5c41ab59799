"""A worker's part in the question that the fleet is asked before the breaker opens."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress

from openrouter_guard.errors import StoreError
from openrouter_guard.rules import evaluation
from openrouter_guard.rules.breaker import Policy
from openrouter_guard.rules.question import ANSWER_S, Question
from openrouter_guard.rules.shared_state import SharedState
from openrouter_guard.store import Store

from .calls_in_flight import question_in

__all__ = ["Answers"]

MANY = 50
"""From this number of workers on, the answers are spread, so that they do not come in the same instant."""
SPREAD_S = 0.1
LOOK_S = (0.0, 0.05)
"""When to look after the time for answers is over: the first process to look decides."""


class Answers:
    """Answers each question once, and makes sure that it is decided.

    Args:
        store: Holds the question.
        policy: The settings of the rules.
        reporter: Name of the reporter that answers.
        gather: Takes the results of the calls that have ended.
        answer: Returns how many calls of this process contradict the failures, at that time by Redis' clock; True if
            it is one of the reporters that are missing among the failed ones.
        now: The present time by Redis' clock.
        look: Reads the state, and commits the transition that follows from it.
    """

    def __init__(
        self,
        store: Store,
        policy: Policy,
        reporter: str,
        gather: Callable[[], None],
        answer: Callable[[Question, float, bool], int],
        now: Callable[[], float],
        look: Callable[[], Awaitable[None]],
    ) -> None:
        self._store = store
        self._policy = policy
        self._reporter = reporter
        self._gather = gather
        self._answer = answer
        self._now = now
        self._look = look
        self._question: Question | None = None
        self._is_missed = False
        self._task: asyncio.Task[None] | None = None

    def evaluate(self, record: SharedState, now: float, *, by: str) -> SharedState:
        """Return the record with due transitions; a question that no other worker can be asked is decided at once."""
        after = evaluation.evaluate(record, now=now, policy=self._policy, by=by)
        question = question_in(after)
        if question is None:
            return after
        if not self._is_only(after):
            is_new = question_in(record) is None
            return evaluation.asked_from_afar(after, self._store.round_trip_s) if is_new else after
        answered = evaluation.answered(after, self._answer(question, now, False), now)
        return evaluation.evaluate(answered, now=now, policy=self._policy, by=by)

    def _is_only(self, record: SharedState) -> bool:
        """Return whether all failures are this worker's, and no other reports."""
        return record.live_reporters <= 1 and record.breaker.run == {self._reporter}

    async def decided(self) -> None:
        """Wait until no known question is open."""
        if self._task is not None:
            await asyncio.wait((self._task,))

    def see(self, shared: SharedState | None) -> None:
        """Note whether the shared state contains a question."""
        before, self._question = self._question, question_in(shared)
        if shared is None or self._question is None or (before and before.number == self._question.number):
            return
        self._is_missed = evaluation.are_of_too_few(shared, self._policy) and self._reporter not in shared.breaker.run
        is_large = shared.live_reporters >= MANY
        # Ending this also ends the task: nothing waits for it.
        self._task = asyncio.create_task(self._take(self._question, SPREAD_S if is_large else 0.0))

    async def _take(self, question: Question, spread_s: float) -> None:
        if self._store.round_trip_s < SPREAD_S / 4:
            await asyncio.sleep(random.uniform(0.0, spread_s))  # noqa: S311  a lot, not a secret
        with suppress(StoreError):
            if self._is_out(question) and (calls := self._calls(question)):
                await self._store.answer(question, self._reporter, calls)
        await asyncio.sleep(question.at + ANSWER_S - self._now() + random.uniform(*LOOK_S))  # noqa: S311
        with suppress(StoreError):
            if self._is_out(question):
                await self._look()

    def _calls(self, question: Question) -> int:
        self._gather()
        return self._answer(question, self._now(), self._is_missed)

    def _is_out(self, question: Question) -> bool:
        return self._question is not None and self._question.number == question.number
