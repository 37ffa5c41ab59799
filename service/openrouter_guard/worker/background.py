"""The background of one guard: its parts, when to start its thread, and how a caller waits without one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from time import monotonic
from typing import NamedTuple

from openrouter_guard.log_once import LogOnce
from openrouter_guard.rules.backoff import Backoff
from openrouter_guard.rules.breaker import BreakerState
from openrouter_guard.rules.signals import NEUTRAL
from openrouter_guard.settings import Settings
from openrouter_guard.store import Store, Timeouts

from . import grants
from .grants import Leave
from .lane import Lane
from .names import worker_name
from .reporting.agent import Agent
from .threads.callers_thread import CallersThread
from .threads.loop_thread import LoopThread
from .view import Mailbox, View
from .watchers import Door, Watch

__all__ = ["AloneWait", "Live", "Starts", "begin", "build", "return_permit"]

AGAIN = Backoff(1.0, 30.0)
"""How long a guard decides alone before it tries again to start a thread."""
STEADY_S = 60.0
"""A background that has run for so long may be started again at once."""
LOOK_S = 1.0
"""How often a waiting caller looks at the state if no background can wake it."""


class Live(NamedTuple):
    """The running background, or its stand-in.

    Attributes:
        agent: Reports, and holds the permits.
        thread: Runs all of it.
        watch: Wakes the callers that wait.
        is_alone: Whether callers do the work, because no thread runs. Each call asks.
    """

    agent: Agent
    thread: LoopThread | CallersThread
    watch: Watch
    is_alone: bool


def build(
    settings: Settings,
    mailbox: Mailbox,
    calls: Iterator[int],
    lane: Lane,
    phase: BreakerState,
    on_phase: Callable[[View], None],
) -> tuple[Agent, Watch]:
    """Build a background, to be started by :func:`begin`.

    Args:
        settings: The guard's.
        mailbox: Shared with the callers.
        calls: Numbers for the names of permits.
        lane: This process' starts while the fleet comes back.
        phase: The breaker's state at the last notification.
        on_phase: Called with the view after each change of that state.
    """
    store = Store(settings.redis, settings.scope, Timeouts(settings.redis_timeout_s, settings.redis_timeout_s))
    agent = Agent(store, settings.policy, worker_name(settings.worker_id), mailbox)
    door = Door(lambda: agent.owner(next(calls)), agent.acquire, partial(return_permit, agent))
    watch = Watch(lambda: agent.view, lane, door, phase, on_phase)
    agent.on_view = watch.look
    agent.is_waited_for = lambda: watch.waiting > 0
    return agent, watch


def return_permit(agent: Agent, owner: str) -> None:
    """Return the permit of a lost call; if it is still being granted, return it when it comes."""
    if agent.holds(owner):
        agent.release(owner, NEUTRAL)


async def begin(live: Live, starts: Starts) -> None:
    """Begin the work in its thread."""
    starts.worked()
    live.watch.start()
    live.agent.start()


class Starts:
    """When to start the thread again, after no thread could start, or after it ended by an error."""

    def __init__(self) -> None:
        self._log = LogOnce("No background thread runs, deciding alone", "A background thread runs again")
        self._failures = 0
        self._not_before = self._began_at = -math.inf

    @property
    def are_due(self) -> bool:
        """Return whether to try it now."""
        return monotonic() >= self._not_before

    def thread(self, agent: Agent, *, at_once: bool) -> LoopThread | None:
        """Start a thread for *agent*; None if that is not due, or if none can start.

        Args:
            agent: It runs there.
            at_once: Whether to try it even if it is not due.
        """
        if not (at_once or self.are_due):
            return None
        thread = LoopThread("openrouter-guard", agent.farewell, agent.close, self._ended)
        if thread.error is None:
            return thread
        self._failures += 1
        self._not_before = monotonic() + AGAIN.wait_s(self._failures)
        self._log.failed(thread.error)
        return None

    def worked(self) -> None:
        """Note that the background runs."""
        self._began_at, self._not_before = monotonic(), -math.inf
        self._log.worked()

    def _ended(self, error: BaseException) -> None:
        """Note that the background ends by an error: the first time it may start again at once."""
        if monotonic() - self._began_at > STEADY_S:
            self._failures = 0
        if self._failures:
            self._not_before = monotonic() + AGAIN.wait_s(self._failures)
        self._failures += 1
        self._log.failed(RuntimeError(repr(error)))


class AloneWait:
    """A caller's wait for its turn, if no background can wake it.

    Args:
        running: Returns the background or its stand-in; starts it if it is time.
        present: Returns the same, but starts nothing; None if the guard is closed.
        lane: This process' starts while the fleet comes back.
        timeout_s: The longest wait, in seconds; None: for ever.

    Attributes:
        result: Whether the caller may go; None if a background runs, which must be asked.
    """

    def __init__(
        self, running: Callable[[], Live], present: Callable[[], Live | None], lane: Lane, timeout_s: float | None
    ) -> None:
        self.result: bool | None = None
        self._running = running
        self._present = present
        self._lane = lane
        self._until = None if timeout_s is None else monotonic() + timeout_s

    @property
    def left_s(self) -> float | None:
        """Return the remaining time, in seconds; None: for ever."""
        return None if self._until is None else max(self._until - monotonic(), 0.0)

    def pauses(self) -> Iterator[float]:
        """Yield how long to sleep, in seconds, until there is a result."""
        live = self._running()
        while live.is_alone:
            leave = live.watch.leave_alone(grants.held(self._lane))
            if isinstance(leave, Leave):
                self.result = grants.took(self._lane, leave)
                return
            left_s = self.left_s
            if left_s == 0:
                self.result = False
                return
            yield min(leave, LOOK_S, math.inf if left_s is None else left_s)
            present = self._present()
            if present is None or present.agent is not live.agent:
                # The guard was closed.
                self.result = False
                return
            live = self._running()
