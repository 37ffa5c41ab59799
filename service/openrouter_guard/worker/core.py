"""What ``Guard`` and ``AsyncGuard`` share: admission, outcomes, and the life of the background agent."""

from __future__ import annotations

import atexit
import itertools
import os
import socket
import threading
import time
import weakref
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from openrouter_guard.errors import CallNotPermitted, OpenRouterGuardError
from openrouter_guard.rules.breaker import HalfOpen, Open, Phase
from openrouter_guard.rules.record import Record
from openrouter_guard.rules.signals import NEUTRAL, Effect, Signal
from openrouter_guard.settings import Settings
from openrouter_guard.store import Store, Timeouts

from .agent import Agent
from .background import Background
from .view import View

__all__ = ["FIRST_VIEW_S", "PERMIT_S", "Core", "GuardState", "Ticket"]

FIRST_VIEW_S = 0.2
"""How long a process' first call may wait to learn the state; without an answer it goes."""
PERMIT_S = 0.25
"""How long a call may wait for a permit while half-open; without one it is refused."""
NO_PERMIT_RETRY_S = 1.0
_EXIT_S = 1.0


class Ticket(NamedTuple):
    """Leave to make one call: the epoch in which it began, and the permit it holds (empty: none was needed)."""

    epoch: int
    permit: str


@dataclass(frozen=True, slots=True)
class GuardState:
    """The breaker as this worker sees it.

    Attributes:
        phase: Effective state.
        reason: What opened the breaker; empty while closed.
        retry_after_s: Seconds until calls may be tried; 0 while they may.
        failures: Failures in a row, of the whole fleet.
        epoch: Number of the current state.
    """

    phase: Phase
    reason: str
    retry_after_s: float
    failures: int
    epoch: int


class Core:
    """One guard's machinery. Starts on first use, and anew in a forked child."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._worker_id = settings.worker_id or default_worker_id()
        # Bad addresses fail here, where they were given, and not in the background.
        self._new_store()
        self._owners = itertools.count(1)
        self._lock = threading.Lock()
        self._agent: Agent | None = None
        self._background: Background | None = None
        _cores.add(self)

    # -- admission ------------------------------------------------------------------------------------------------

    @property
    def view(self) -> View:
        return (self._agent or self._start()).view

    def admit(self) -> Ticket | None:
        """Leave for one call, or None where it needs a permit first.

        Raises:
            CallNotPermitted: While open or rate limited.
        """
        agent = self._agent or self._start()
        view = agent.view
        if view.is_free:
            return Ticket(view.record.epoch, "")
        blocked = view.block_s()
        if blocked is not None:
            agent.refused += 1
            raise CallNotPermitted(*blocked)
        if view.phase is Phase.CLOSED:
            return Ticket(view.record.epoch, "")
        return None

    def ask_permit(self) -> tuple[str, Future[bool]]:
        """Ask for a permit; who does not wait for the answer must :meth:`abandon` it."""
        agent, background = self._running()
        owner = f"{self._worker_id}/{next(self._owners)}"
        return owner, background.submit(agent.acquire(owner))

    def with_permit(self, owner: str, *, granted: bool) -> Ticket:
        agent, _ = self._running()
        if granted:
            return Ticket(agent.view.record.epoch, owner)
        view = agent.view
        if view.phase is Phase.CLOSED:
            # Somebody's trial call succeeded while we asked.
            return Ticket(view.record.epoch, "")
        agent.refused += 1
        raise CallNotPermitted(*(view.block_s() or (NO_PERMIT_RETRY_S, _reason(view.record))))

    def abandon(self, owner: str, asked: Future[bool]) -> None:
        """Give back a permit that may still come after its caller stopped waiting."""

        def give_back(answer: Future[bool]) -> None:
            if not answer.cancelled() and answer.exception() is None and answer.result():
                self._release(owner, NEUTRAL)

        asked.add_done_callback(give_back)

    # -- outcomes -------------------------------------------------------------------------------------------------

    def finish(self, ticket: Ticket, signal: Signal) -> None:
        """Report the end of a call; never waits."""
        agent, background = self._running()
        agent.results.append((signal, ticket.epoch, time.monotonic()))
        if ticket.permit:
            self._release(ticket.permit, signal)
        if signal.effect is Effect.RATE_LIMIT:
            background.submit(agent.limit(signal))
        if signal.effect is Effect.FAILURE:
            background.call(lambda: agent.note_alone(signal))
            background.call(agent.wake)
        elif getattr(agent.view.record.breaker, "failures", 0):
            # A success ends a run of failures: the sooner it is known, the fewer false alarms.
            background.call(agent.wake)

    def _release(self, owner: str, signal: Signal) -> None:
        agent, background = self._running()
        background.submit(agent.release(owner, signal))

    # -- inspection -----------------------------------------------------------------------------------------------

    @property
    def state(self) -> GuardState:
        view = self.view
        waiting = view.block_s()
        return GuardState(
            phase=view.phase,
            reason=_reason(view.record) or (waiting[1] if waiting else ""),
            retry_after_s=waiting[0] if waiting else 0.0,
            failures=view.record.breaker.failures,
            epoch=view.record.epoch,
        )

    def first_view(self) -> Future[bool]:
        """Done once the state was read from Redis."""
        agent, background = self._running()
        return background.submit(agent.known.wait())

    def flush(self) -> Future[None]:
        """Done once everything that ended by now is in Redis; fails with a StoreError otherwise."""
        agent, background = self._running()
        return background.submit(agent.flush())

    # -- life -----------------------------------------------------------------------------------------------------

    @property
    def is_fresh(self) -> bool:
        """Whether nothing is known yet, so that a first call should wait a moment."""
        return self._agent is None

    def close(self, timeout_s: float) -> None:
        """Report what is left and stop, both within *timeout_s*."""
        with self._lock:
            agent, background = self._agent, self._background
            self._agent = self._background = None
        if agent is None or background is None:
            return
        with suppress(TimeoutError, OpenRouterGuardError):
            background.submit(agent.stop(timeout_s * 0.8)).result(timeout_s)
        background.stop(timeout_s)

    def _start(self) -> Agent:
        with self._lock:
            if self._agent is None:
                background = Background("openrouter-guard")
                self._agent = background.submit(self._new_agent()).result()
                self._background = background
            return self._agent

    async def _new_agent(self) -> Agent:
        agent = Agent(self._new_store(), self._settings.policy, self._worker_id)
        agent.start()
        return agent

    def _new_store(self) -> Store:
        timeout_s = self._settings.redis_timeout_s
        return Store(self._settings.redis_url, self._settings.scope, Timeouts(timeout_s, timeout_s))

    def _running(self) -> tuple[Agent, Background]:
        agent = self._agent or self._start()
        background = self._background
        if background is None:
            raise RuntimeError("the guard was closed while it was used")
        return agent, background

    def reset(self) -> None:
        """Forget the background thread: it does not exist (yet, or in this forked child)."""
        self._lock = threading.Lock()
        self._agent = self._background = None


def default_worker_id() -> str:
    """``worker-{host}-{pid}``, as existing workers call themselves."""
    return f"worker-{socket.gethostname()}-{os.getpid()}"


def _reason(record: Record) -> str:
    match record.breaker:
        case Open(reason=reason) | HalfOpen(reason=reason):
            return reason
        case _:
            return ""


_cores: weakref.WeakSet[Core] = weakref.WeakSet()


def _after_fork() -> None:
    for core in list(_cores):
        core.reset()


def _at_exit() -> None:
    for core in list(_cores):
        core.close(_EXIT_S)


os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)
