"""A fleet of workers on one state, with drifting clocks, lost and duplicated messages, and crashes.

Each works as the worker library does: look, decide by the rules, try to write, look again if somebody was faster.
Whatever hypothesis makes of it, the invariants hold.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import TypeAlias

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import Phase as Trying
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from openrouter_guard.rules import admission, evaluation, shared_state, trial_calls
from openrouter_guard.rules.breaker import BreakerState, Closed, HalfOpen, Open, Policy
from openrouter_guard.rules.failure_run import are_enough
from openrouter_guard.rules.loss import recovered
from openrouter_guard.rules.shared_state import SharedState
from openrouter_guard.rules.signals import NEUTRAL, SUCCESS, Effect, ErrorType, Signal
from tests.rules.memory import BATCH_LIFE_S, FAILURE, REFUSAL, Memory, Seen

Decide: TypeAlias = Callable[[SharedState | None, float], SharedState | None]

POLICY = Policy(reset_timeout_s=10, max_reset_timeout_s=40, permit_lease_s=15)
LIMIT = Signal(Effect.RATE_LIMIT, ErrorType.RATE_LIMITED, wait_s=20)
KINDS = {FAILURE: "F", REFUSAL: "C", SUCCESS: "S"}
STEP_S = 0.002
"""Nothing takes no time."""
LONGEST_S = POLICY.max_reset_timeout_s * 2 + POLICY.permit_lease_s + 20
"""After so long nothing that anybody did or knew stands in the way of a call."""


@dataclass(slots=True)
class Call:
    """One that is out."""

    epoch: int
    owner: str = ""
    lease_until: float = 0.0


@dataclass(slots=True)
class Batch:
    epoch: int
    seq: int
    runs: list[tuple[str, int]]
    sent_s: float | None = None

    @property
    def calls(self) -> int:
        return sum(number for _, number in self.runs)


@dataclass(slots=True)
class Worker:
    """What one process knows, has out, and has not told yet.

    Attributes:
        plans: Decisions that are to be committed, each with what it was made on; None: to be looked at first.
        drift: Its clock's seconds in one of the server's.
    """

    name: str
    drift: float
    view: SharedState = field(default_factory=SharedState)
    shared: SharedState | None = None
    seen_at: float = 0.0
    calls: list[Call] = field(default_factory=list)
    ended: list[tuple[int, Signal]] = field(default_factory=list)
    uncertain: Batch | None = None
    seq: int = 0
    plans: list[tuple[Decide, Seen | None]] = field(default_factory=list)

    def now(self, server_s: float) -> float:
        """The server's time as it believes it to be."""
        return self.seen_at + (server_s - self.seen_at) * self.drift

    @property
    def untold(self) -> int:
        return len(self.ended)


whoever = st.integers(0, 2)
ends = st.sampled_from([SUCCESS, SUCCESS, FAILURE, FAILURE, FAILURE, REFUSAL, NEUTRAL, LIMIT])


class Fleet(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.memory = Memory(1_700_000_000.0)
        self.replica = deepcopy(self.memory)
        self.names = count(1)
        self.workers = [self.hired(drift) for drift in (1.0, 0.9, 1.5)]
        self.epoch = 0
        self.ended = self.forgotten = 0

    def hired(self, drift: float) -> Worker:
        return Worker(f"w{next(self.names)}", drift)

    # -- what happens -------------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.1, 1.0, 6.0, 16.0, 65.0]))
    def time_passes(self, seconds: float) -> None:
        self.memory.now += seconds

    @rule(who=whoever)
    def looks(self, who: int) -> None:
        """A poll, or a push that came; one that was lost is a look that was not made."""
        self.look(self.workers[who])

    def look(self, worker: Worker) -> None:
        seen = self.now()
        self.adopt(worker, seen)
        self.plan(worker, partial(self.current, worker), seen)

    @rule(who=whoever)
    def begins_a_call(self, who: int) -> None:
        worker = self.workers[who]
        now = worker.now(self.now().now)
        if admission.fleet_refusal(worker.view, now) is not None:
            return
        if worker.view.phase(now) is BreakerState.CLOSED:
            worker.calls.append(Call(worker.view.epoch))
        else:
            owner = f"{worker.name}/{next(self.names)}"
            self.plan(worker, partial(self.permit, worker, owner))

    @precondition(lambda self: any(worker.calls for worker in self.workers))
    @rule(who=st.integers(0, 99), signal=ends)
    def a_call_ends(self, who: int, signal: Signal) -> None:
        busy = [worker for worker in self.workers if worker.calls]
        worker = busy[who % len(busy)]
        self.end(worker, signal, worker.calls.pop(0))

    @rule(
        who=whoever, signals=st.lists(st.sampled_from([FAILURE, FAILURE, FAILURE, SUCCESS]), min_size=1, max_size=6)
    )
    def makes_calls(self, who: int, signals: list[Signal]) -> None:
        """One after the other, while the calls that it may already have out go on."""
        worker = self.workers[who]
        for signal in signals:
            out = len(worker.calls)
            self.begins_a_call(who)
            if len(worker.calls) > out:
                self.end(worker, signal, worker.calls.pop())

    @rule(who=whoever, calls=st.sampled_from([4, 5, 5]), seconds=st.sampled_from([0.0, 0.0, 12.0, 50.0]))
    def an_outage(self, who: int, calls: int, seconds: float) -> None:
        """As many calls fail as open it, or one fewer, and are told: else it would be closed nearly always."""
        worker = self.workers[who]
        for _ in range(calls):
            self.begins_a_call(who)
            if worker.calls:
                self.end(worker, FAILURE, worker.calls.pop())
        self.report(worker, "yes")
        self.commits_all(worker)
        self.memory.now += seconds
        self.looks(who)

    @precondition(lambda self: any(worker.plans for worker in self.workers))
    @rule(who=st.integers(0, 99), is_lost=st.booleans())
    def a_decision_is_committed(self, who: int, is_lost: bool) -> None:
        """Perhaps its answer is lost: then the worker does not know, and looks again as if somebody was faster."""
        busy = [worker for worker in self.workers if worker.plans]
        worker = busy[who % len(busy)]
        decide, seen = worker.plans.pop(0)
        self.commit(worker, decide, seen or self.now(), is_lost=is_lost)

    @rule(who=whoever)
    def commits_all_its_decisions(self, who: int) -> None:
        self.commits_all(self.workers[who])

    def commits_all(self, worker: Worker) -> None:
        plans, worker.plans = worker.plans, []
        for decide, seen in plans:
            self.commit(worker, decide, seen or self.now(), is_lost=False)

    @rule(who=whoever)
    def renews_its_permits(self, who: int) -> None:
        worker = self.workers[who]
        for call in worker.calls:
            if call.owner:
                self.plan(worker, partial(self.renewal, worker, call))

    @precondition(lambda self: any(worker.ended or worker.uncertain for worker in self.workers))
    @rule(who=st.integers(0, 99), arrives=st.sampled_from(["no", "yes", "yes without an answer"]))
    def reports(self, who: int, arrives: str) -> None:
        busy = [worker for worker in self.workers if worker.ended or worker.uncertain]
        self.report(busy[who % len(busy)], arrives)

    def report(self, worker: Worker, arrives: str) -> None:
        worker.uncertain = worker.uncertain or self.batch(worker)
        if worker.uncertain is None or arrives == "no":
            return
        if worker.uncertain.sent_s is not None and self.memory.now - worker.uncertain.sent_s > BATCH_LIFE_S:
            # Nobody promises to know it after so long.
            self.forgotten += self.not_counted(worker)
            worker.uncertain = None
            return
        worker.uncertain.sent_s = worker.uncertain.sent_s or self.memory.now
        batch, now = worker.uncertain, self.now().now
        self.memory.count(worker.name, batch.seq, batch.epoch, batch.runs)
        if arrives == "yes":
            worker.uncertain = None
            self.look(worker)
        assert self.memory.now >= now

    @precondition(lambda self: any(worker.uncertain and worker.uncertain.sent_s for worker in self.workers))
    @rule(answer=st.sampled_from(["yes", "yes without an answer"]))
    def a_report_comes_again(self, answer: str) -> None:
        unsure = next(worker for worker in self.workers if worker.uncertain and worker.uncertain.sent_s)
        self.report(unsure, answer)

    @rule(who=whoever)
    def crashes(self, who: int) -> None:
        """All at once: its calls, its permits, what it was about to write, what it had not told."""
        worker = self.workers[who]
        self.forgotten += worker.untold + self.not_counted(worker)
        self.workers[who] = self.hired(worker.drift)

    @rule(who=whoever, says_open=st.booleans())
    def an_older_worker_writes_and_somebody_looks(self, who: int, says_open: bool) -> None:
        if self.memory.fields:
            self.memory.fields["circuit_breaker_open"] = str(says_open).lower()
        self.looks(who)
        self.commits_all(self.workers[who])

    @rule()
    def redis_loses_all(self) -> None:
        """A flush: what is under way arrives all the same, with what it was decided on."""
        before = self.accounted
        self.memory.lose()
        self.forgotten += before - self.accounted

    @rule()
    def the_replica_hears_of_all(self) -> None:
        self.replica = deepcopy(self.memory)

    @rule()
    def a_failover_loses_the_last_writes(self) -> None:
        """Connections break, so what is under way does not arrive at the new server."""
        for worker in self.workers:
            worker.plans = [(decide, None) for decide, _ in worker.plans]
        before = self.accounted
        now, self.memory = self.memory.now, deepcopy(self.replica)
        self.memory.now = now
        self.forgotten += before - self.accounted
        # What Redis had not replicated nobody else can know: a permit may be given once more, an epoch used again by
        # who comes first. But who knew it does not go back to what was before; see adopt.
        record = self.memory.read().record
        self.epoch = record.epoch if record else self.epoch
        held = record.breaker.permits if record else {}
        for call in (call for worker in self.workers for call in worker.calls if call.owner not in held):
            call.lease_until = 0.0

    # -- what holds ---------------------------------------------------------------------------------------------

    @invariant()
    def the_epoch_only_grows(self) -> None:
        record = self.memory.read().record
        if record is not None and record.epoch:
            assert record.epoch >= self.epoch
            self.epoch = record.epoch

    @invariant()
    def there_are_never_more_permits_out_than_the_fleet_has(self) -> None:
        record = self.memory.read().record
        if record is None or not isinstance(record.breaker, HalfOpen):
            return
        now = self.memory.now
        held = [c for w in self.workers for c in w.calls if c.owner and c.lease_until > now]
        assert len([call for call in held if call.epoch == record.epoch]) <= POLICY.permits
        assert len(record.breaker.permits) <= POLICY.permits

    @invariant()
    def nothing_that_ended_is_lost_or_counted_twice(self) -> None:
        assert self.ended == self.accounted + self.forgotten

    @property
    def accounted(self) -> int:
        """The calls that are counted, or wait for it."""
        return self.memory.calls + sum(worker.untold + self.not_counted(worker) for worker in self.workers)

    @rule(who=whoever)
    def whoever_looks_and_writes_leaves_no_breaker_closed_that_should_be_open(self, who: int) -> None:
        worker = self.workers[who]
        for _ in range(2):
            # Where there is no state, one begins first.
            self.commit(worker, partial(self.current, worker), self.now(), is_lost=False)
        record = self.memory.read().record
        if record is not None and isinstance(record.breaker, Closed):
            # No reporter counts for more than its share.
            enough = are_enough(record.breaker, record.live_reporters, record.calls_per_minute, POLICY)
            assert not enough or len(record.breaker.run) < min(POLICY.reporters_wanted, record.live_reporters)
            assert not record.legacy_open

    def teardown(self) -> None:
        """No wedge: whatever is left behind, a new worker can make a call once the longest wait is over."""
        self.memory.now += LONGEST_S
        new = self.hired(1.0)
        for _ in range(2):
            self.commit(new, partial(self.current, new), self.now(), is_lost=False)
        record, now = new.view, self.memory.now
        assert admission.fleet_refusal(record, now) is None or isinstance(record.breaker, Open)
        if isinstance(record.breaker, Open) and now < record.breaker.until:
            self.memory.now = now = record.breaker.until
        if record.phase(now) is not BreakerState.CLOSED:
            assert trial_calls.with_permit(record, "new/1", now=now, policy=POLICY) is not None

    # -- how a worker works -------------------------------------------------------------------------------------

    def now(self) -> Seen:
        self.memory.now += STEP_S
        return self.memory.read()

    def plan(self, worker: Worker, decide: Decide, seen: Seen | None = None) -> None:
        """To be decided on what is read now, and committed at any time later."""
        worker.plans.append((decide, seen or self.now()))

    def commit(self, worker: Worker, decide: Decide, seen: Seen, *, is_lost: bool) -> None:
        new = decide(seen.record, seen.now)
        if new is None or new == seen.record:
            self.adopt(worker, seen)
            return
        before = self.known(worker, seen.record, seen.now) or SharedState()
        done = self.memory.commit(seen, new)
        if done:
            new = done
            self.a_breaker_opens_for_a_reason(before, new)
            self.what_is_open_stays_so_until_its_time(before, new, seen.now)
            assert type(new.breaker) is type(before.breaker) or new.epoch > before.epoch
        if done and not is_lost:
            self.adopt(worker, Seen(new, seen.now, self.memory.read().raw))
            self.granted(worker, new, seen.now)
        else:
            # Somebody was faster, or nobody knows: read again, and decide again on that.
            worker.plans.append((decide, None))

    def a_breaker_opens_for_a_reason(self, before: SharedState, after: SharedState) -> None:
        if not isinstance(before.breaker, Closed) or not isinstance(after.breaker, Open):
            return
        is_restored = after.transitions[-1].epoch != after.epoch
        by_refusals = before.breaker.refusals >= POLICY.refusals_wanted
        if not (is_restored or by_refusals or before.legacy_open):
            assert before.breaker.failures >= POLICY.failure_threshold
            assert len(before.breaker.run) >= min(POLICY.reporters_wanted, before.live_reporters)

    def what_is_open_stays_so_until_its_time(self, before: SharedState, after: SharedState, now: float) -> None:
        if isinstance(before.breaker, Open) and before.breaker.until > now:
            assert isinstance(after.breaker, Open)
            assert after.breaker.until >= before.breaker.until

    def adopt(self, worker: Worker, seen: Seen) -> None:
        if recovered(worker.shared or SharedState(), seen.record, seen.now, POLICY) is None:
            assert seen.record is None or worker.shared is None or seen.record.epoch >= worker.shared.epoch
            worker.shared = seen.record
        worker.view = self.evaluate(worker, worker.shared or SharedState(), seen.now)
        worker.seen_at = seen.now

    def current(self, worker: Worker, record: SharedState | None, now: float) -> SharedState | None:
        again = recovered(worker.shared or SharedState(), record, now, POLICY)
        return again or (record and self.evaluate(worker, record, now))

    def evaluate(self, worker: Worker, record: SharedState, now: float) -> SharedState:
        return evaluation.evaluate(record, now=now, policy=POLICY, by=worker.name)

    def permit(self, worker: Worker, owner: str, record: SharedState | None, now: float) -> SharedState | None:
        known = self.known(worker, record, now)
        if known is not None and owner in known.breaker.permits:
            return None
        return known and trial_calls.with_permit(known, owner, now=now, policy=POLICY)

    def known(self, worker: Worker, record: SharedState | None, now: float) -> SharedState | None:
        return recovered(worker.shared or SharedState(), record, now, POLICY) or record

    def renewal(self, worker: Worker, call: Call, record: SharedState | None, now: float) -> SharedState | None:
        held = record.breaker.permits if record else {}
        known = self.known(worker, record, now)
        if known is None or call.owner not in held:
            return None
        return trial_calls.with_permit(known, call.owner, now=now, policy=POLICY)

    def granted(self, worker: Worker, record: SharedState, now: float) -> None:
        """The calls that begin, or go on, with the permits that the worker has just been given."""
        out = {call.owner: call for call in worker.calls}
        for owner, until in record.breaker.permits.items():
            if owner in out:
                out[owner].lease_until = until
            elif owner.startswith(f"{worker.name}/") and until == now + POLICY.permit_lease_s:
                worker.calls.append(Call(record.epoch, owner, until))

    def end(self, worker: Worker, signal: Signal, call: Call) -> None:
        if signal in KINDS:
            worker.ended.append((call.epoch, signal))
            self.ended += 1
        if signal is LIMIT:
            self.plan(worker, partial(self.limited, worker))
        if call.owner:
            self.plan(worker, partial(self.verdict, worker, call.owner, signal))

    def limited(self, worker: Worker, record: SharedState | None, now: float) -> SharedState:
        return trial_calls.limited(self.known(worker, record, now) or shared_state.fresh(now), LIMIT, now)

    def verdict(
        self, worker: Worker, owner: str, signal: Signal, record: SharedState | None, now: float
    ) -> SharedState | None:
        known = self.known(worker, record, now)
        if known is None:
            return None
        after = trial_calls.after_trial(known, signal, owner, now=now, policy=POLICY)
        # Who holds no permit (any more) decides nothing, who does decides all.
        is_held = owner in known.breaker.permits
        verdict = {FAILURE: Open, REFUSAL: Open, SUCCESS: Closed}.get(signal, HalfOpen)
        assert isinstance(after.breaker, verdict) if is_held else after == known
        return after

    def batch(self, worker: Worker) -> Batch | None:
        """What has ended in one epoch, in its order, with a number of its own."""
        if not worker.ended:
            return None
        epoch = worker.ended[0][0]
        told = [signal for began, signal in worker.ended if began == epoch]
        worker.ended = [row for row in worker.ended if row[0] != epoch]
        worker.seq += 1
        return Batch(epoch, worker.seq, [(KINDS[signal], 1) for signal in told])

    def not_counted(self, worker: Worker) -> int:
        """The calls of a batch whose fate its worker does not know, where it has not been counted."""
        batch = worker.uncertain
        if batch is None or self.memory.reporters.get(worker.name, (0, 0.0))[0] >= batch.seq:
            return 0
        return batch.calls


Fleet.TestCase.settings = settings(
    max_examples=250,
    stateful_step_count=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    # Making a failure shorter takes minutes: for that, run it with `phases=tuple(Trying)` once.
    phases=(Trying.explicit, Trying.reuse, Trying.generate),
)
TestFleet = pytest.mark.slow(Fleet.TestCase)
