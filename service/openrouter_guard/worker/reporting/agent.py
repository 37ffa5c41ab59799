"""The worker's part in the fleet: keeps the local view current, reports results, holds permits.

Everything here runs in the background loop. A caller reads the :class:`~openrouter_guard.worker.view.Mailbox`, leaves
the result of its call there and, while the breaker is half-open, waits a limited time for ``acquire``.
"""

from __future__ import annotations

import asyncio
import math
import time
import uuid
import weakref
from collections.abc import Callable
from contextlib import aclosing, suppress
from dataclasses import replace
from functools import partial

from openrouter_guard.clocks import MonotonicTime, ServerTime, monotonic
from openrouter_guard.errors import StoreContended, StoreError, StoreUnavailable
from openrouter_guard.log_once import LogOnce
from openrouter_guard.replica.pace import POLL_S, RETRY_S, pause
from openrouter_guard.replica.state_copy import StateCopy
from openrouter_guard.rules import models, push_message
from openrouter_guard.rules.breaker import Policy
from openrouter_guard.rules.question import Question
from openrouter_guard.rules.shared_state import SharedState
from openrouter_guard.rules.signals import Signal
from openrouter_guard.rules.units import DAY_S
from openrouter_guard.store import Seen, Store
from openrouter_guard.worker.threads.loops import forever, optional
from openrouter_guard.worker.view import Mailbox, View, monotonic_offset

from .calls_in_flight import Flight
from .decisions import Decisions
from .heartbeat import Heartbeat
from .offline import Offline
from .outbox import Outbox
from .permits import Permits
from .question_answers import Answers

__all__ = ["FIRST_VIEW_S", "Agent"]

FIRST_VIEW_S = (3.0, 10.0)
"""How long a process' calls wait at most for the first read of the state while Redis is silent.

It may be far away, or the machine busy. The first limit counts only time in which the process could run; the second
is the limit in any case. If Redis refuses or is down, calls go at once.
"""
_STEP_S = 0.1
FLUSH_S = 1.0
"""How long a success that changes nothing may wait to be reported; other results do not wait."""
CALM_S = 20.0
"""The longest wait for a success, and for a read of the state, while all is well and pushes arrive.

The breaker does not suffer: failures are reported at once, the second in a row is pushed to all, and then nothing
waits any more.
"""
SIGN_S = 20.0
"""How often a process with waiting calls announces itself, even with nothing to report.

The ramp is shared by all waiting processes.
"""
WRONG_CLOCK_S = 5.0
"""This process' own clock is wrong if it differs from Redis' by so much. Less may be a slow answer."""
MIXED_S = 7 * DAY_S
"""How long every process polls each second after a write in the existing format, which pushes nothing.

A migration has quiet nights and weekends.
"""


class Agent:
    """One reporter: a worker process' part in the state of one scope."""

    def __init__(self, store: Store, policy: Policy, worker_id: str, mailbox: Mailbox | None = None) -> None:
        mailbox = mailbox or Mailbox()
        self._mailbox = weakref.ref(mailbox)
        self._flight = Flight(mailbox.begun)
        self.view = View(SharedState(), monotonic_offset(time.time()), is_known=False)
        self.looked = asyncio.Event()
        self.known = asyncio.Event()
        self.on_view: Callable[[], None] = lambda: None
        self.is_waited_for: Callable[[], bool] = lambda: False
        self._store = store
        self._policy = policy
        self._worker_id = worker_id
        self._reporter = f"w{uuid.uuid4().hex[:8]}"
        self._outbox = Outbox(mailbox, self._flight, policy, worker_id, self._reporter, store.keys.scope)
        self._work = asyncio.Event()
        self._told_at = MonotonicTime(-math.inf)
        self._patience_s = FLUSH_S
        self._is_pushed = self._has_clock = False
        self._offline = Offline(lambda: self.view, self._show, policy, worker_id, self._reporter, self._flight)
        self._answers = Answers(
            store, policy, self._reporter, self._gather, self._answer, lambda: self.view.now, self.refresh
        )
        self._heard: SharedState | None = None
        evaluate = partial(self._answers.evaluate, by=worker_id)
        self._state = StateCopy(store, policy, worker_id, evaluate=evaluate, on_read=self._show_read)
        self._decisions = Decisions(self._state, self._offline, self._note_away, policy, worker_id)
        self._permits = Permits(self._state, policy)
        self._flushing = asyncio.Lock()
        self._loops: list[asyncio.Task[None]] = []

    @property
    def view(self) -> View:
        return self._view

    @view.setter
    def view(self, view: View) -> None:
        self._view = view
        self.show()

    def show(self) -> None:
        """Show callers the current state."""
        mailbox = self._mailbox()
        if mailbox is not None:
            mailbox.show(self._view, self)

    def go_alone(self, known: View) -> None:
        """Decide in callers' threads until :meth:`start`, as without Redis."""
        self._offline.goes_to_callers(known if known.is_known else self.view)
        self.looked.set()

    def start(self) -> None:
        self._decisions.come_back()
        listen = optional(self._listen, "Redis pushes no changes, polling every second")
        heartbeat = Heartbeat(
            self._store, self._policy, self._worker_id, self.known, lambda: self.view, lambda: self._offline.active
        )
        beat = optional(heartbeat.beat, "Redis takes no heartbeats")
        mistakes = LogOnce("a bug in OpenRouter Guard, calls go on; please report it", "")
        works = [forever(work, self._note_away, mistakes) for work in (listen, self._poll, self._report, beat)]
        self._loops = [asyncio.create_task(work) for work in (*works, self._look_no_longer())]

    async def _look_no_longer(self) -> None:
        # In steps: a push that arrives too late for one step would be too late for an answer as well.
        for _ in range(round(FIRST_VIEW_S[0] / _STEP_S)):
            await asyncio.sleep(_STEP_S)
        self._go_on()

    def _go_on(self) -> None:
        """Mark the state as known, even if it is empty: no call waits for the first read."""
        if not self.view.is_known:
            self._show(replace(self.view, is_known=True))
        self.looked.set()

    async def finish(self) -> None:
        """Wait until all results so far are in Redis: verdicts, rate limits and counts.

        Raises:
            StoreError: If Redis does not accept the results.
        """
        if self._offline.in_callers:
            raise StoreUnavailable("no background thread can start; the results are kept")
        await self._decisions.done()
        await self.flush()
        # The decisions that follow from the results belong to them.
        await self._answers.decided()
        await self._decisions.done()

    async def farewell(self) -> None:
        """Report the remaining results: show callers nothing any more, and take the results they have left."""
        mailbox = self._mailbox()
        if mailbox is not None:
            mailbox.hide(self)
        del mailbox  # kept alive by this variable, for as long as it takes
        self._decisions.come_back()
        with suppress(StoreError):
            await self._decisions.done()
            self._gather()
            # Later results belong to the next agent: nothing would report those that this one takes from the mailbox.
            self._outbox.is_shut = True
            await self.finish()

    async def close(self) -> None:
        """Disconnect from Redis, once no work is left that uses it."""
        await self._store.close()

    def wake(self) -> None:
        """Process the waiting results soon: while Redis is away, they count here at once."""
        if self._offline.active:
            self._gather()
        self._work.set()

    # -- permits ------------------------------------------------------------------------------------------------

    def owner(self, call: int) -> str:
        """Return the name of a call's permit: unique in the fleet, even if workers share a name or were forked."""
        return f"{self._worker_id}/{self._reporter}-{call}"

    async def acquire(self, owner: str) -> bool:
        """Take one of the fleet's permits for *owner* and keep its lease alive until :meth:`release`."""
        if self._permits.holds(owner):
            return True  # taken while it waited
        # The caller waits for less time than Redis is given, so a Redis known to be away is not asked.
        got = self._offline.acquire(owner) if self._offline.active else await self._acquire_of_fleet(owner)
        if got:
            self._permits.keep(owner, renews=not self._offline.in_callers)
        return got

    async def _acquire_of_fleet(self, owner: str) -> bool:
        try:
            return await self._permits.take(owner)
        except StoreContended:
            # Redis answers: other workers were faster, and none is left.
            return False
        except StoreError as error:
            self._note_away(error)
            # A silent Redis may still grant a permit of the fleet: then this call would be one too many.
            return not _is_silent(error) and self._offline.acquire(owner)

    def holds(self, owner: str) -> bool:
        """Whether the lease of that permit is kept alive here."""
        return self._permits.holds(owner)

    @property
    def permit_s(self) -> float:
        """How long to wait for a permit, in seconds."""
        return self._permits.wait_s

    def release(self, owner: str, signal: Signal, model: str = "", took_s: float = 0.0) -> None:
        """Return the permit soon, with the result of its call; 0 s: the duration is unknown."""
        self._permits.drop(owner)
        now = self.view.now
        signal, _ = models.Notes(self.view.models, now).take(signal, model, now)
        self._decisions.after_trial(signal, owner, took_s)

    # -- reporting ----------------------------------------------------------------------------------------------

    async def flush(self) -> None:
        """Report all results so far.

        Raises:
            StoreError: If Redis does not accept them; they are kept and reported later.
        """
        if not self._has_clock:
            await self.refresh()
        async with self._flushing:
            self._gather()
            while not self._outbox.is_empty:
                await self._flush_one()

    async def _flush_one(self) -> None:
        out = self._outbox.next_out()
        batch = self._outbox.batch(out, self.view.now)
        async with self._state.lock:
            self._outbox.sent_at = monotonic()
            counted = await self._state.count(batch, at=out.since)
            self._outbox.counted(self.view.now)
            self._told_at, self._patience_s = monotonic(), min(2 * self._patience_s, CALM_S)
            self._offline.is_heard()
            await self._state.settle(counted.seen)

    def _gather(self) -> None:
        """Take the results so far from the mailbox, and apply their consequences at once."""
        gathered = self._outbox.gather(self.view, is_alone=self._offline.active)
        if gathered.notes.models is not self.view.models:
            self.view = replace(self.view, models=gathered.notes.models)
            self._state.models = gathered.notes.models
        if gathered.brings_back:
            self._work.set()
        for signal in gathered.doubts.values():
            self._decisions.doubted(signal)
        for batch in self._outbox.batches(gathered.alone, self.view.now):
            self._offline.count(batch)

    def _answer(self, question: Question, now: float, is_missed: bool) -> int:
        offset_s = self._flight.offset_s(self.view.offset_s)
        return self._flight.answer(question, ServerTime(now), offset_s, is_missed=is_missed)

    def limit(self, signal: Signal) -> None:
        """Commit the platform's rate limit soon, so that the fleet waits."""
        self._decisions.limited(signal, by=self._reporter)

    # -- the shared state ---------------------------------------------------------------------------------------

    async def refresh(self) -> None:
        async with self._state.lock:
            # This read includes all earlier pushes.
            self._heard = None
            try:
                seen = await self._store.read()
            except Exception as error:
                if not _is_silent(error):
                    self._go_on()
                raise
            # Decided by a wrong clock, nothing stands.
            if self._takes_clock(seen) or not self._offline.stands(seen):
                await self._state.settle(seen)

    def _takes_clock(self, seen: Seen) -> bool:
        """Take Redis' clock. True if the waiting results had the times of this process' own, which was wrong."""
        moved_s = monotonic_offset(seen.now) - self.view.offset_s
        has_clock, self._has_clock = self._has_clock, True
        if has_clock or abs(moved_s) < WRONG_CLOCK_S:
            return False
        self._outbox.move(moved_s)
        self._view = replace(self._view, offset_s=self._view.offset_s + moved_s)
        return True

    def _show_read(self, before: Seen) -> None:
        """Show callers a new read of the state, with the parts that Redis has lost and the pushes since."""
        self._takes_clock(self._state.seen)
        seen, record = self._state.seen, self._state.record or SharedState()
        self._state.models = {**seen.models, **self._put_back(before, seen)}
        self._answers.see(self._state.known)
        if self._heard is not None and self._heard.epoch > record.epoch:
            record = self._heard
        self.view = View(record, monotonic_offset(seen.now), self._policy, self._state.models)
        if not self.view.is_quiet or self._policy.watches_rates:
            # A waiting success may end this run of failures, here or in any other worker; and a rate is too high as
            # long as successes are missing in it.
            self._patience_s = FLUSH_S
        self.on_view()
        self.known.set()
        self.looked.set()
        self._offline.ends(self._store.address)

    def _put_back(self, before: Seen, seen: Seen) -> models.Models:
        """Return the cooling models that Redis has lost, to be reported again."""
        lost = models.lost(before.models, seen.models, now=seen.now, policy=self._policy)
        for name, model in lost.items():
            epoch = seen.record.epoch if seen.record else 0
            self._outbox.cooling(name, model, epoch, seen.now)
            self._work.set()
        return lost

    def _show(self, view: View) -> None:
        self.view = view
        self.on_view()

    def _note_away(self, error: StoreError) -> None:
        if _is_silent(error) and not self.view.is_known:
            # Calls still wait for the first read: Redis may only be far away.
            return
        unseen = self._outbox.unseen(self._state.read_at, self.view.now)
        self._offline.begins(error, self._store.address, unseen)

    # -- the loops ----------------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        try:
            async with aclosing(self._store.listen()) as wakes:
                async for message in wakes:
                    self._is_pushed = True
                    self._hear(message)
                    await self.refresh()
        except StoreUnavailable:
            # If Redis can still be read, only the pushes are gone.
            self._is_pushed = False
            await self.refresh()
            await pause(RETRY_S)
        finally:
            self._is_pushed = False

    def _hear(self, message: str) -> None:
        """Show a pushed opening at once; the following read has the details."""
        opened = push_message.opening(message, self.view.record, self.view.now)
        if opened is not None and self.view.is_known and not self._offline.active:
            self._heard = opened
            self._show(replace(self.view, record=opened))

    async def _poll(self) -> None:
        # If results wait, reporting them includes a read.
        if not self._is_calm or (monotonic() - self._state.read_at >= CALM_S and not self._outbox.has_waiting):
            await self.refresh()
        await pause(POLL_S)

    @property
    def _is_calm(self) -> bool:
        """Return whether only a push can change the state."""
        is_mixed = self.view.record.older_writer_at > self.view.now - MIXED_S
        return self._is_pushed and self.view.is_quiet and self.view.free_admission is not None and not is_mixed

    async def _report(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_S):
                await self._work.wait()
        # Merged each time, so that the waiting results do not grow with the number of calls.
        self._gather()
        if self.is_waited_for() and monotonic() - self._told_at >= SIGN_S:
            self._outbox.sign(self.view)
        if self._work.is_set() or monotonic() - self._told_at >= self._patience_s:
            await self._report_now()

    async def _report_now(self) -> None:
        self._work.clear()
        try:
            await self.flush()
        except StoreError:
            self._work.set()
            raise


def _is_silent(error: Exception) -> bool:
    return isinstance(error, StoreUnavailable) and error.is_silent
