"""Celery workers that take no tasks while calls to OpenRouter are paused, and lose no task or retry.

    app = Celery("tasks", task_cls=GuardedTask)
    pause_while_open(app, guard)

A task that was taken before the pause is refused like any other call: it goes back to the queue with the time it has
to wait, without using up a retry. The same applies if a client has wrapped the refusal in an error of its own, and if
its call failed by the upstream's fault.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import celery
from celery import bootsteps, signals
from celery.exceptions import TaskPredicate
from celery.utils.log import get_logger

from .errors import CallNotPermitted
from .worker.classification.causes import refusal_in
from .worker.classification.classify import was_upstreams_fault
from .worker.guard import Guard

__all__ = ["GuardedTask", "pause_while_open"]

logger = get_logger(__name__)

POLL_S = 0.5
"""Time between two looks at the guard, which send no request."""
HOLD_S = 1.5
"""A shorter wait is spent in the pool: while half-open, tasks would otherwise circle through the queue."""
MIN_COUNTDOWN_S = 1.0
"""The shortest wait of a task.

Celery records the retry only after the task is back in the queue. Another worker may finish it before that, and the
task would be recorded as retried for ever, its result lost.
"""
ROUNDS = "openrouter_guard_rounds"
"""The header that counts the failures by the upstream's fault."""
MAX_ROUND_S = 60.0
MAX_COUNTDOWN_S = 300.0
"""A longer wait is split into parts.

Each is shorter than a broker's visibility timeout, after which a task would run twice.
"""


class GuardedTask(celery.Task):
    """A task that goes back to the queue if its call to OpenRouter was refused, or failed by the upstream's fault.

    It then starts again from its beginning: make the call early, or make the task repeatable. ``max_retries`` and
    ``autoretry_for`` apply only to other failures. Called directly or eagerly, it raises the call's exception.

    Attributes:
        upstream_rounds: How often a task goes back after failures by the upstream's fault, each time later. After
            that the failure counts as any other error, because the task itself may break its model. 0: it counts from
            the first time on.
    """

    upstream_rounds = 5

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().__call__(*args, **kwargs)
        except TaskPredicate:
            # It has been retried, ignored or rejected already.
            raise
        except Exception as error:
            if self._refusal(error) is None and not self._is_broken(error):
                raise
            raise self.retry(exc=error) from error

    def retry(
        self,
        args: Any = None,
        kwargs: Any = None,
        exc: BaseException | None = None,
        throw: bool = True,
        eta: Any = None,
        countdown: float | None = None,
        max_retries: int | None = None,
        **options: Any,
    ) -> Any:
        """Celery's own, except that the upstream's failures do not use up ``max_retries``."""
        error = exc or sys.exc_info()[1]
        if (refused := self._refusal(error)) is not None:
            exc, eta = refused, None
            countdown = max(MIN_COUNTDOWN_S, min(_held_back_s(refused), MAX_COUNTDOWN_S))
        elif self._is_broken(error):
            countdown = max(countdown or 0.0, min(MIN_COUNTDOWN_S * 2**self._rounds, MAX_ROUND_S))
            options["headers"] = (self.request.headers or {}) | {ROUNDS: self._rounds + 1}
        else:
            return super().retry(args, kwargs, exc, throw, eta, countdown, max_retries, **options)
        self.request.retries -= 1
        try:
            return super().retry(args, kwargs, exc, throw, eta, countdown, max_retries, **options)
        finally:
            self.request.retries += 1

    @property
    def _rounds(self) -> int:
        rounds = (self.request.headers or {}).get(ROUNDS) or getattr(self.request, ROUNDS, 0)
        return rounds if isinstance(rounds, int) else 0

    def _is_broken(self, error: BaseException | None) -> bool:
        """Return whether it failed by the upstream's fault, and may go back once more."""
        has_queue = not (self.request.called_directly or self.request.is_eager)
        return has_queue and self._rounds < self.upstream_rounds and was_upstreams_fault(error)

    def _refusal(self, error: BaseException | None) -> CallNotPermitted | None:
        """Return the refusal behind *error*, for a task with a queue to go back to."""
        has_queue = not (self.request.called_directly or self.request.is_eager)
        return refusal_in(error) if has_queue else None


def _held_back_s(refused: CallNotPermitted) -> float:
    """Return the remaining wait after a short wait in the pool."""
    if refused.retry_after_s > HOLD_S:
        return refused.retry_after_s
    time.sleep(refused.retry_after_s)
    return 0.0


def pause_while_open(app: celery.Celery, guard: Guard) -> None:
    """Let the workers of *app* take tasks only while calls may go, or may be tried while half-open.

    It reacts within half a second; queued tasks stay in the queue, also for other workers. Call it before the worker
    starts, in the module that creates *app*. A pool's process reports its remaining results when it ends.
    """
    app.steps["consumer"].add(type("PauseWhileOpen", (_Pause,), {"guard": guard}))

    def close(**_: Any) -> None:
        guard.close()

    # Children of multiprocessing end without atexit.
    signals.worker_process_shutdown.connect(close, weak=False)


class _Pause(bootsteps.StartStopStep):
    """Runs in the worker's main process: cancels the consumers of its queues, and starts them again."""

    requires = ("celery.worker.consumer.tasks:Tasks",)
    guard: Guard

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        self._polling: Any = None
        self._is_paused = False

    def start(self, consumer: Any) -> None:
        self._polling = consumer.timer.call_repeatedly(POLL_S, self._poll, (consumer,))

    def stop(self, consumer: Any) -> None:
        if self._polling is not None:
            self._polling.cancel()

    def _poll(self, consumer: Any) -> None:
        # Repeated at each look, which is harmless: a new connection starts with all consumers on.
        state = self.guard.state
        is_paused = state.retry_after_s > 0
        consumer.call_soon(consumer.task_consumer.cancel if is_paused else consumer.task_consumer.consume)
        if is_paused is not self._is_paused:
            self._is_paused = is_paused
            if is_paused:
                logger.info("Taking no tasks: calls to OpenRouter are paused (%s)", state.reason)
            else:
                logger.info("Taking tasks again")
