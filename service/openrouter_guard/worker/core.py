"""The shared core of ``Guard`` and ``AsyncGuard``: admission, outcomes, and the lifetime of the background agent."""

from __future__ import annotations

import itertools
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial

from openrouter_guard import tracing
from openrouter_guard.clocks import UNKNOWN, MonotonicTime, monotonic
from openrouter_guard.errors import CallNotPermitted
from openrouter_guard.rules.shared_state import SharedState
from openrouter_guard.rules.signals import NEUTRAL, Effect, OpenRouterState, Signal, SignalScope
from openrouter_guard.rules.trial_calls import holds_permit
from openrouter_guard.settings import Settings

from . import grants
from .background import AloneWait, Live, Starts, begin, build, return_permit
from .grants import Leave
from .guard_state import GuardState, reason_of, state_of
from .lane import Lane
from .lanes import Lanes
from .own_errors import OwnErrors
from .reporting.agent import FIRST_VIEW_S, Agent
from .threads import fork_hooks
from .threads.callers_thread import CallersThread
from .threads.loop_thread import LoopThread, has_asyncio
from .transition_line import log_transition
from .view import Admission, Mailbox, View
from .watchers import Listeners

__all__ = ["FIRST_VIEW_S", "Claim", "Core"]

NO_PERMIT_RETRY_S = 1.0
RECOVERING = "recovering"
FLUSH_SHARE = 0.8
"""Share of the closing time for reporting the remaining results."""
TURN_S = 0.5
"""How long a starter of the background waits for another one to finish."""


class Claim:
    """A call's claim to a permit.

    Attributes:
        owner: Name of the permit.
        drop: Returns the permit, once, even if it is still being granted. So does the end of the claim's life.
    """

    __slots__ = ("__weakref__", "drop", "owner")

    def __init__(self, owner: str, give_back: Callable[[], object]) -> None:
        self.owner = owner
        self.drop = weakref.finalize(self, give_back)
        self.drop.atexit = False


class Core(Mailbox):
    """The implementation of one guard.

    It starts on first use, and again in a forked child; it ends once nothing refers to it.

    Signal handlers, finalizers and forks may interrupt any line. So the running background is stored and removed by
    one atomic operation of a dictionary, and no lock is held during a wait.
    """

    _live: Live | None = None

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self._settings = settings
        self._calls = itertools.count(1)
        self._new_locks()
        self.own_errors = OwnErrors()
        self._listeners: Listeners[GuardState] = Listeners()
        self._last = self.view
        self._told = state_of(View(SharedState(), 0.0))
        fork_hooks.watched(self)

    # -- admission ------------------------------------------------------------------------------------------------

    def known(self) -> View:
        """Return the background's view; start the background if there is none."""
        self._running()
        return self.view

    def admit(self, model: str = "") -> Admission | None:
        """Return the admission of one call, or None if it needs a permit first.

        Raises:
            CallNotPermitted: While open or rate limited, or while *model* is cooling down.
        """
        view = self.known()
        permit = grants.held(self.lane).permit if self.lane.held else ""
        has_permit = permit != "" and holds_permit(view.record, permit)
        blocked = view.model_refusal(model) if has_permit else view.refusal(model)
        if blocked is not None:
            raise self._refusal(view, *blocked)
        return None if has_permit or view.needs_permit else self._entered(view, model)

    def _entered(self, view: View, model: str) -> Admission:
        """Return the admission of a call that needs no permit: while the fleet comes back, one start of this process.

        Raises:
            CallNotPermitted: If no start is available yet.
        """
        wait_s = self._lanes.wait_s(view, model)
        if wait_s:
            raise self._refusal(view, wait_s, RECOVERING)
        return view.admission

    def _refusal(self, view: View, retry_after_s: float, reason: str) -> CallNotPermitted:
        self.refused.number += 1
        tracing.note_refusal(self._settings.scope, view.record.epoch, reason, retry_after_s)
        return CallNotPermitted(retry_after_s, reason)

    @property
    def lane(self) -> Lane:
        """Distributes the starts of this process while the fleet comes back."""
        return self._lanes.fleet

    def claim(self) -> Claim:
        """Prepare to :meth:`ask`: the permit is kept no longer than the claim, whatever interrupts its owner."""
        agent, thread, _, _ = self._running()
        owner = grants.permit(self.lane) or self.lane.claim_any() or agent.owner(next(self._calls))
        return Claim(owner, partial(thread.call, partial(return_permit, agent, owner)))

    def ask(self, claim: Claim) -> Future[bool]:
        """Ask for the permit; if the caller is interrupted from here on, it must drop the claim."""
        agent, thread, _, _ = self._running()
        return thread.submit(partial(self._granted, agent, claim))

    @property
    def permit_s(self) -> float:
        """How long to wait for a permit, in seconds."""
        return self._running().agent.permit_s

    def with_permit(self, claim: Claim, *, granted: bool) -> Admission:
        """Return the admission of the call that asked for it.

        Raises:
            CallNotPermitted: If it got no permit, and needs one.
        """
        _, thread, watch, _ = self._running()
        view = self.view
        if granted and holds_permit(view.record, claim.owner):
            return Admission(view.record.epoch, claim.owner)
        # If one was granted all the same, the verdict of other calls fell before this call was made.
        claim.drop()
        blocked = view.refusal()
        if blocked is None and not view.needs_permit:
            # Another trial call has succeeded since.
            return self._entered(view, "")
        thread.call(partial(watch.refused, NO_PERMIT_RETRY_S))
        reason = reason_of(view.record) or OpenRouterState.RATE_LIMITED
        raise self._refusal(view, *(blocked or (NO_PERMIT_RETRY_S, reason)))

    async def _granted(self, agent: Agent, claim: Claim) -> bool:
        try:
            granted = await agent.acquire(claim.owner)
        except Exception as error:  # noqa: BLE001  a caller waits, who has nothing to do with it
            self.own_errors.note(error)
            granted = False
        if granted and not claim.drop.alive:
            # No caller is left that could use it.
            agent.release(claim.owner, NEUTRAL)
            return False
        return granted

    # -- outcomes -------------------------------------------------------------------------------------------------

    def end(self, admission: Admission, signal: Signal, model: str = "", began_at: MonotonicTime = UNKNOWN) -> None:
        """:meth:`finish` for a caller, shielded from bugs of the guard."""
        try:
            self.finish(admission, signal, model, began_at)
        except Exception as error:
            if not self.own_errors.took(error):
                raise

    def said(self, *ways: Callable[[], Signal]) -> Signal:
        """Return the signal by the first of these *ways* that does not fail; neutral if all fail."""
        for way in ways:
            try:
                return way()
            except Exception as error:
                if not self.own_errors.took(error, of_foreign_code=True):
                    raise
        return NEUTRAL

    def finish(
        self, admission: Admission, signal: Signal, model: str = "", began_at: MonotonicTime = UNKNOWN
    ) -> None:
        """Report the end of a call; never waits.

        Args:
            admission: The call's.
            signal: Its signal.
            model: The model that was called, if known.
            began_at: When it began, on the monotonic clock; 0 if unknown.
        """
        agent, thread, _, _ = self._running()
        self.results.append((signal, admission, began_at, monotonic(), model))
        if signal.effect is Effect.RATE_LIMIT:
            thread.call(partial(agent.limit, signal))
        if admission.permit:
            # After the limit, so that no other call takes the permit and meets the limit too.
            took_s = monotonic() - began_at if began_at else 0.0
            thread.call(partial(agent.release, admission.permit, signal, model, took_s))
        is_urgent = signal.effect is Effect.FAILURE or signal.about is not SignalScope.ACCOUNT
        # A success ends a run of failures: the sooner it is known, the fewer false alarms.
        if is_urgent or not self.view.is_quiet:
            thread.call(agent.wake)

    @property
    def state(self) -> GuardState:
        return state_of(self.known())

    def permitted(self) -> Future[Leave]:
        """A future that is done once calls may go, or may be tried; its result is what that took.

        Cancel it to stop waiting.
        """
        agent, thread, watch, _ = self._running()
        has = grants.held(self.lane)

        async def permitted() -> Leave:
            await agent.looked.wait()
            return await watch.permitted(has)

        return thread.submit(permitted)

    def on_transition(self, callback: Callable[[GuardState, GuardState], object]) -> Callable[[], None]:
        """Call back with the state before and after each transition; return a function that removes the callback."""
        remove = self._listeners.add(callback)
        # Without the background, this would go unnoticed.
        self._running()
        return remove

    def tell(self, view: View) -> None:
        """Tell the listeners of a transition."""
        before, self._told = self._told, state_of(view)
        log_transition(self._settings.scope, before.phase, view)
        self._listeners.tell(before, self._told)

    def wait_alone(self, timeout_s: float | None) -> AloneWait:
        """Return the wait of a caller for as long as no background runs."""
        return AloneWait(self._running, lambda: self._live, self.lane, timeout_s)

    def first_view(self) -> Future[bool]:
        """A future that is done once the state was read from Redis, or could not be."""
        agent, thread, _, _ = self._running()
        return thread.submit(agent.looked.wait)

    def flush(self) -> Future[None]:
        """A future that is done once all results so far are in Redis; it fails with a StoreError otherwise."""
        agent, thread, _, _ = self._running(at_once=True)
        return thread.submit(agent.finish)

    def flush_if_started(self) -> Future[None] | None:
        """:meth:`flush`; None if nothing runs, and so no results are left."""
        live = self._live
        return None if live is None else live.thread.submit(live.agent.finish)

    @property
    def is_fresh(self) -> bool:
        """Return whether the state was never read, so that each call should wait for that."""
        return not self.view.is_known

    def close(self, timeout_s: float) -> None:
        """Report the remaining results and stop, both within *timeout_s*."""
        thread = self.begin_close(timeout_s)
        if thread is not None:
            thread.join(timeout_s)
        self._listeners.stop()

    async def aclose(self, timeout_s: float) -> None:
        """:meth:`close` without blocking the event loop."""
        if not has_asyncio():
            self.close(timeout_s)
            return
        thread = self.begin_close(timeout_s)
        if thread is not None:
            await thread.ended(timeout_s)
        self._listeners.stop()

    def begin_close(self, timeout_s: float) -> LoopThread | CallersThread | None:
        """Begin to report the remaining results and to stop, both within *timeout_s*; return it, if it runs."""
        live: Live | None = vars(self).pop("_live", None)
        if live is None:
            return None
        live.thread.end(timeout_s * FLUSH_SHARE)
        # A later caller starts a new one, and does not disturb the one that ends.
        self.hide(live.agent)
        return live.thread

    def show(self, view: View, by: object) -> None:
        with self._showing:
            if self._live is not None and self._live.agent is by:
                self.view = view

    def hide(self, by: object) -> None:
        with self._showing:
            if self._live is not None and self._live.agent is by:
                # It has ended by itself.
                vars(self).pop("_live", None)
            if self._live is None:
                self.forget()

    def forget(self) -> None:
        if self.view.is_known:
            self._last = self.view
        super().forget()

    def _running(self, *, at_once: bool = False) -> Live:
        """Return the background. Start it if there is none, or only a stand-in and it is time to try again."""
        live = self._live
        if live is not None and not (live.is_alone and (at_once or self._starts.are_due)):
            return live
        # One at a time, to save work. But if that takes long, or a signal handler interrupts it, it is done twice,
        # and the first to finish wins.
        is_locked = self._lock.acquire(timeout=TURN_S)
        try:
            return self._started(at_once=at_once)
        finally:
            if is_locked:
                self._lock.release()

    def _started(self, *, at_once: bool) -> Live:
        before = self._live
        if before is not None:
            return self._relieved(before, at_once=at_once) if before.is_alone else before
        phase, calls = self._told.phase, self._calls
        agent, watch = build(self._settings, self, calls, self.lane, phase, partial(_tell, weakref.ref(self)))
        thread = self._starts.thread(agent, at_once=at_once)
        live = Live(agent, thread or CallersThread(agent.farewell, agent.close), watch, is_alone=thread is None)
        if thread is not None:
            self._begin(live, thread)
        first: Live = vars(self).setdefault("_live", live)
        if first is live:
            live.thread.call(agent.show if thread else partial(agent.go_alone, self._last))
            fork_hooks.started()
        return first

    def _relieved(self, before: Live, *, at_once: bool) -> Live:
        """Return the background that takes over from its stand-in; the stand-in if there is still no thread."""
        if not isinstance(before.thread, CallersThread):
            return before
        with before.thread.relieved() as is_idle:
            thread = self._starts.thread(before.agent, at_once=at_once) if is_idle else None
            if thread is None:
                return before
            live = before._replace(thread=thread, is_alone=False)
            self._begin(live, thread)
            before.thread.succeeded_by(thread)
            if self._live is before:
                vars(self)["_live"] = live
            else:
                # The guard was closed meanwhile.
                thread.end(TURN_S)
            return live

    def _begin(self, live: Live, thread: LoopThread) -> None:
        thread.gone.add_done_callback(partial(_lost, weakref.ref(self), live.agent))
        thread.submit(partial(begin, live, self._starts))

    def reset(self) -> None:
        """Forget the background thread: in this forked child it does not exist."""
        if (live := vars(self).pop("_live", None)) is not None:
            live.thread.disown()
        self._new_locks()
        # The parent reports its own results.
        self.forget()
        self.begun.clear()
        self.results.clear()
        self.refused.number = 0
        self._listeners.reset()

    def _new_locks(self) -> None:
        # Both are held only for moments, and are reentrant for the thread that holds them, wherever it was
        # interrupted.
        self._lock = threading.RLock()
        self._showing = threading.RLock()
        self._lanes = Lanes()
        self._starts = Starts()


def _tell(core: weakref.ref[Core], view: View) -> None:
    if there := core():
        there.tell(view)


def _lost(core: weakref.ref[Core], agent: Agent, _gone: Future[None]) -> None:
    """The background has ended: the next call starts it again."""
    if there := core():
        there.hide(agent)
