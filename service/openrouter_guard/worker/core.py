"""What ``Guard`` and ``AsyncGuard`` share: admission, outcomes, and the life of the background agent."""

from __future__ import annotations

import itertools
import os
import socket
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import NamedTuple

from openrouter_guard.edge import Edge
from openrouter_guard.errors import CallNotPermitted, OpenRouterGuardError
from openrouter_guard.rules.breaker import HalfOpen, Open, Phase
from openrouter_guard.rules.record import Record
from openrouter_guard.rules.signals import NEUTRAL, SUCCESS, About, Effect, Signal
from openrouter_guard.settings import Settings
from openrouter_guard.store import Store, Timeouts

from . import process
from .agent import FIRST_VIEW_S, Agent
from .thread import LoopThread
from .view import Desk, Ticket, View
from .watch import Listeners, Watch

__all__ = ["FIRST_VIEW_S", "Core", "GuardState"]

NO_PERMIT_RETRY_S = 1.0


FLUSH_SHARE = 0.8
"""Of the time that closing may take: what reporting the rest may use up."""


class _Live(NamedTuple):
    """What runs in the background."""

    agent: Agent
    thread: LoopThread
    watch: Watch


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


class Core(Desk):
    """One guard's machinery. Starts on first use, and anew in a forked child."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self._settings = settings
        # Bad addresses fail here, where they were given, and not in the background.
        self._new_store()
        self._calls = itertools.count(1)
        self._lock = threading.Lock()
        self._live: _Live | None = None
        self._listeners: Listeners[GuardState] = Listeners()
        self._threads = Edge("No thread can be started, calls go unguarded", "Calls are guarded again")
        self._told = _state(View(Record(), 0.0))
        process.watched(self)

    # -- admission ------------------------------------------------------------------------------------------------

    def known(self) -> View:
        """What the background knows; it starts if there is none."""
        if self._live is None:
            self._start()
        return self.view

    def admit(self, model: str = "") -> Ticket | None:
        """Leave for one call, or None where it needs a permit first.

        Raises:
            CallNotPermitted: While open or rate limited, or while *model* is cooling down.
        """
        view = self.known()
        blocked = view.refusal(model)
        if blocked is not None:
            self.refused += 1
            raise CallNotPermitted(*blocked)
        return view.ticket if view.phase is Phase.CLOSED else None

    def ask_permit(self) -> tuple[str, Future[bool]]:
        """Ask for a permit; who does not wait for the answer must :meth:`abandon` it."""
        agent, thread, _ = self._live or self._start()
        owner = agent.owner(next(self._calls))
        return owner, thread.submit(agent.acquire(owner))

    @property
    def permit_s(self) -> float:
        """How long to wait for a permit, in seconds."""
        return (self._live or self._start()).agent.permit_s

    def with_permit(self, owner: str, *, granted: bool) -> Ticket:
        agent, thread, watch = self._live or self._start()
        view = self.view
        if granted:
            if owner in getattr(view.record.breaker, "permits", ()):
                return Ticket(view.record.epoch, owner)
            # The others' verdict fell before this call was made.
            thread.call(partial(agent.release, owner, NEUTRAL))
        blocked = view.refusal()
        if view.phase is Phase.CLOSED and blocked is None:
            # Somebody's trial call succeeded meanwhile.
            return view.ticket
        self.refused += 1
        thread.call(partial(watch.refused, NO_PERMIT_RETRY_S))
        raise CallNotPermitted(*(blocked or (NO_PERMIT_RETRY_S, _reason(view.record))))

    def abandon(self, owner: str, asked: Future[bool]) -> None:
        """Give back a permit that may still come after its caller stopped waiting."""
        agent, thread, _ = self._live or self._start()

        def give_back(answer: Future[bool]) -> None:
            if not answer.cancelled() and answer.exception() is None and answer.result():
                thread.call(partial(agent.release, owner, NEUTRAL))

        asked.add_done_callback(give_back)

    # -- outcomes -------------------------------------------------------------------------------------------------

    def succeed(self, ticket: Ticket, model: str, began_s: float) -> None:
        """Report a call that ended well: nearly all do, so nothing is done here that can wait."""
        if ticket is self.view.quiet_ticket:
            self.results.append((SUCCESS, ticket, began_s, monotonic(), model))
        else:
            self.finish(ticket, SUCCESS, model, began_s)

    def finish(self, ticket: Ticket, signal: Signal, model: str = "", began_s: float = 0.0) -> None:
        """Report the end of a call; never waits.

        Args:
            ticket: The call's.
            signal: What it said.
            model: The one that was called, if it was named.
            began_s: When it began, on the monotonic clock; 0 if nobody knows.
        """
        agent, thread, _ = self._live or self._start()
        self.results.append((signal, ticket, began_s, monotonic(), model))
        if signal.effect is Effect.RATE_LIMIT:
            thread.call(partial(agent.limit, signal))
        if ticket.permit:
            # After the limit, so that nobody takes the permit for a call that would meet it too.
            thread.call(partial(agent.release, ticket.permit, signal, model))
        is_urgent = signal.effect is Effect.FAILURE or signal.about is not About.ACCOUNT
        # A success ends a run of failures: the sooner it is known, the fewer false alarms.
        if is_urgent or not self.view.is_quiet:
            thread.call(agent.wake)

    # -- inspection -----------------------------------------------------------------------------------------------

    @property
    def state(self) -> GuardState:
        return _state(self.known())

    def permitted(self) -> Future[None]:
        """Done once calls may go, or may be tried; who stops waiting cancels it."""
        agent, thread, watch = self._live or self._start()

        async def permitted() -> None:
            await agent.looked.wait()
            await watch.permitted()

        return thread.submit(permitted())

    def on_transition(self, callback: Callable[[GuardState, GuardState], object]) -> Callable[[], None]:
        """Call back with the state before and after each transition; returns what removes it."""
        remove = self._listeners.add(callback)
        if self._live is None:
            # Without the background nobody would notice.
            self._start()
        return remove

    def _tell(self, view: View) -> None:
        before, self._told = self._told, _state(view)
        self._listeners.tell(before, self._told)

    def first_view(self) -> Future[bool]:
        """Done once the state was read from Redis, or could not be."""
        agent, thread, _ = self._live or self._start()
        return thread.submit(agent.looked.wait())

    def flush(self) -> Future[None]:
        """Done once everything that ended by now is in Redis; fails with a StoreError otherwise."""
        agent, thread, _ = self._live or self._start()
        return thread.submit(agent.finish())

    # -- life -----------------------------------------------------------------------------------------------------

    @property
    def is_fresh(self) -> bool:
        """Whether nobody has looked at the state yet, so that calls should wait for that, each for itself."""
        return not self.view.is_known

    def close(self, timeout_s: float) -> None:
        """Report what is left and stop, both within *timeout_s*."""
        began_s = monotonic()
        with self._lock:
            live, self._live = self._live, None
            if live is None:
                return
            # Whoever comes now starts anew, and leaves the one that ends in peace.
            with suppress(TimeoutError, CancelledError):
                live.thread.submit(live.agent.leave()).result(timeout_s)
        with suppress(TimeoutError, OpenRouterGuardError):
            live.thread.submit(live.agent.finish()).result(timeout_s * FLUSH_SHARE)
        live.thread.stop(live.agent.close, timeout_s - (monotonic() - began_s))
        self._listeners.stop()

    def _start(self) -> _Live:
        with self._lock:
            if self._live is not None:
                return self._live
            thread = LoopThread("openrouter-guard")
            if thread.error is not None:
                # Calls go all the same, and whoever makes the next one tries again.
                self._threads.failed(thread.error)
                live = self._made(thread)
                self.forget()
                return live
            self._threads.worked()
            self._live = thread.submit(self._begin(thread)).result()
            process.started()
            return self._live

    async def _begin(self, thread: LoopThread) -> _Live:
        live = self._made(thread)
        live.watch.start()
        live.agent.start()
        return live

    def _made(self, thread: LoopThread) -> _Live:
        worker_id = self._settings.worker_id or default_worker_id()
        agent = Agent(self._new_store(), self._settings.policy, worker_id, self)
        watch = Watch(lambda: agent.view, self._told.phase, self._tell)
        agent.on_view = watch.look
        return _Live(agent, thread, watch)

    def _new_store(self) -> Store:
        timeout_s = self._settings.redis_timeout_s
        return Store(self._settings.redis_url, self._settings.scope, Timeouts(timeout_s, timeout_s))

    def reset(self) -> None:
        """Forget the background thread: it does not exist (yet, or in this forked child)."""
        self._lock = threading.Lock()
        self._live = None
        # What the parent saw, the parent reports.
        self.forget()
        self.results.clear()
        self.refused = 0
        self._listeners.reset()


def default_worker_id() -> str:
    """``worker-{host}-{pid}``, as existing workers call themselves."""
    return f"worker-{socket.gethostname()}-{os.getpid()}"


def _state(view: View) -> GuardState:
    waiting = view.block_s()
    return GuardState(
        phase=view.phase,
        reason=_reason(view.record) or (waiting[1] if waiting else ""),
        retry_after_s=waiting[0] if waiting else 0.0,
        failures=view.record.breaker.failures,
        epoch=view.record.epoch,
    )


def _reason(record: Record) -> str:
    match record.breaker:
        case Open(reason=reason) | HalfOpen(reason=reason):
            return reason
        case _:
            return ""
