"""A small fleet on one state, for exhaustive exploration: the possible next steps, and the invariants.

Three workers work by the product's rules as the library does: look, decide, commit if nobody was faster. A worker has
one call out at a time. Answers get lost, messages come late or twice, workers crash, Redis loses the state, and an
older writer writes over it. Time passes to the next moment at which it matters. See ``exploring.py`` for the search.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeAlias

from openrouter_guard.rules import admission, evaluation, loss, trial_calls
from openrouter_guard.rules.breaker import BreakerState, Closed, HalfOpen, Open, Policy
from openrouter_guard.rules.codec import encode, iso, parse
from openrouter_guard.rules.shared_state import SharedState, next_epoch
from openrouter_guard.rules.signals import SUCCESS
from tests.rules.memory import DECISION_LIFE_S, FAILURE

__all__ = ["POLICY", "START_S", "Call", "Late", "Report", "Steps", "Violation", "Worker", "World", "steps", "usable"]

START_S = 1_800_000_000.0
POLICY = Policy(failure_threshold=2, reset_timeout_s=10, max_reset_timeout_s=10, jitter=0.0, next_trial_s=4.0)
"""A lease is longer than the wait: permits of one outage outlive it. And the second trial call goes before the first
one renews its own."""
STEP_S = 0.002
"""Nothing takes no time."""
LONGEST_S = 120.0
"""After so long nothing that anybody did or knew stands in the way of a call."""
MOMENT_S = 0.01
SIGNALS = {"S": SUCCESS, "F": FAILURE}


class Violation(AssertionError):
    """Something that must never happen."""


class Call(NamedTuple):
    """One that is out; ``trial`` is the half-open time that it belongs to, counted, and 0 for a call while closed."""

    epoch: int
    owner: str = ""
    lease_s: float = 0.0
    trial: int = 0
    is_told: bool = True


class Report(NamedTuple):
    """A result that its worker has not heard the answer about."""

    epoch: int
    kind: str
    is_counted: bool = False


class Verdict(NamedTuple):
    """What a trial call came to, not yet committed as far as its worker knows."""

    owner: str
    kind: str
    trial: int
    is_sent: bool = False


class Worker(NamedTuple):
    """What one process knows, has out, and has not told yet."""

    name: str
    shared: SharedState | None = None
    call: Call | None = None
    verdict: Verdict | None = None
    report: Report | None = None


class Late(NamedTuple):
    """A commit that is under way for long: what it was decided on, when, by whom, and whether Redis had lost it."""

    what: str
    who: int
    name: str
    seen: SharedState | None
    new: SharedState
    sent_s: float
    owner: str = ""
    restores: bool = False


@dataclass(frozen=True, slots=True)
class World:
    """Everything there is.

    Attributes:
        server: What Redis holds.
        trial: How many half-open times have ended with a verdict, and one.
        top: The highest epoch that was ever there.
        lost_s: When Redis last lost the state.
        lost_trial: The half-open time then: verdicts that were lost may be given again.
        crashes, losses, older: How many may still come.
    """

    now: float = START_S
    server: SharedState | None = None
    workers: tuple[Worker, ...] = ()
    late: Late | None = None
    trial: int = 1
    top: int = 0
    lost_s: float = 0.0
    lost_trial: int = 0
    crashes: int = 1
    losses: int = 1
    older: int = 1
    hired: int = 0
    told: tuple[str, ...] = field(default=(), compare=False)


Steps: TypeAlias = Iterator[tuple[str, World]]


def steps(world: World) -> Steps:
    """All that may happen next, by name."""
    world = replace(world, now=world.now + STEP_S)
    for who, worker in enumerate(world.workers):
        yield from _of(world, who, worker)
    if world.late is not None:
        yield from _arrivals(world, world.late)
    yield from _time(world)
    if world.losses and world.server is not None:
        yield "Redis loses all", _lost(world)
    if world.older and world.server is not None:
        yield from _older_writes(world, world.server)


def _of(world: World, who: int, worker: Worker) -> Steps:
    name = worker.name
    if worker.report is not None:
        yield from _reports(world, who, worker, worker.report)
    if worker.call is not None:
        for kind in SIGNALS:
            yield f"{name}: its call ends {kind}", _with(world, who, _ended(worker, worker.call, kind))
    if world.crashes:
        new = Worker(f"{name[0]}{world.hired + 1}")
        crashed = replace(world, crashes=world.crashes - 1, hired=world.hired + 1)
        yield f"{name}: crashes", _with(crashed, who, new)
    if world.late is not None and world.late.name == name:
        return  # one commit under way in each process
    yield from _looks(world, who, worker)
    if worker.verdict is not None:
        yield from _settles(world, who, worker, worker.verdict)
    elif worker.call is None and worker.report is None:
        yield from _begins(world, who, worker)
    elif worker.call is not None and worker.call.owner:
        yield from _renews(world, who, worker, worker.call)


# -- what a worker does ---------------------------------------------------------------------------------------------


def _looks(world: World, who: int, worker: Worker) -> Steps:
    wanted = _current(world, worker)
    seen = _adopted(world, who)
    if wanted is None or wanted == world.server:
        if seen.workers[who] != worker:
            yield f"{worker.name}: looks", seen
        return
    yield f"{worker.name}: looks and writes", _committed(seen, who, world.server, wanted)
    if world.late is None:
        late = Late("look", who, worker.name, world.server, wanted, world.now, restores=_restores(world, worker))
        yield f"{worker.name}: looks, and writes late", replace(seen, late=late)


def _current(world: World, worker: Worker) -> SharedState | None:
    again = loss.recovered(worker.shared or SharedState(), world.server, world.now, POLICY)
    return again or (world.server and _settled(world.server, world.now))


def _settled(record: SharedState, now: float) -> SharedState:
    return evaluation.evaluate(record, now=now, policy=POLICY, by="w")


def _adopted(world: World, who: int) -> World:
    worker, server = world.workers[who], world.server
    if loss.recovered(worker.shared or SharedState(), server, world.now, POLICY) is None:
        worker = worker._replace(shared=server)
    held = server.breaker.permits if server else {}
    in_time = world.now < world.lost_s + loss.REJOIN_S
    if worker.call is not None and not worker.call.is_told and worker.call.owner in held and in_time:
        worker = worker._replace(call=worker.call._replace(is_told=True))
    return _with(world, who, worker)


def _begins(world: World, who: int, worker: Worker) -> Steps:
    view, now = _settled(worker.shared or SharedState(), world.now), world.now
    if admission.fleet_refusal(view, now) is not None:
        return
    if view.phase(now) is BreakerState.CLOSED:
        yield f"{worker.name}: begins a call", _with(world, who, worker._replace(call=Call(view.epoch)))
        return
    owner = f"{worker.name}/{world.trial}.{round((now - START_S) / STEP_S)}"
    known = _known(world, worker)
    new = known and trial_calls.with_permit(known, owner, now=now, policy=POLICY)
    if new is None:
        return
    yield f"{worker.name}: begins a trial", _granted(_committed(world, who, world.server, new), who, owner)
    yield f"{worker.name}: is given a permit, the answer is lost", _committed(world, who, world.server, new, False)
    if world.late is None:
        late = Late("permit", who, worker.name, world.server, new, now, owner, _restores(world, worker))
        yield f"{worker.name}: asks for a permit, late", replace(world, late=late)


def _known(world: World, worker: Worker) -> SharedState | None:
    return loss.recovered(worker.shared or SharedState(), world.server, world.now, POLICY) or world.server


def _granted(world: World, who: int, owner: str) -> World:
    worker, server = world.workers[who], world.server
    held = server.breaker.permits if server and isinstance(server.breaker, HalfOpen) else {}
    if server is None or owner not in held:
        return world
    call = Call(server.epoch, owner, held[owner], world.trial)
    return _with(world, who, worker._replace(call=call))


def _renews(world: World, who: int, worker: Worker, call: Call) -> Steps:
    server = world.server
    held = server.breaker.permits if server and isinstance(server.breaker, HalfOpen) else {}
    if call.owner not in held or call.lease_s - world.now > POLICY.permit_lease_s / 2:
        return
    known = _known(world, worker)
    new = known and trial_calls.with_permit(known, call.owner, now=world.now, policy=POLICY)
    if new is not None:
        after = _committed(world, who, server, new)
        renewed = call._replace(lease_s=world.now + POLICY.permit_lease_s)
        yield f"{worker.name}: renews", _with(after, who, after.workers[who]._replace(call=renewed))


def _ended(worker: Worker, call: Call, kind: str) -> Worker:
    verdict = Verdict(call.owner, kind, call.trial) if call.owner else None
    return worker._replace(call=None, verdict=verdict, report=Report(call.epoch, kind))


def _settles(world: World, who: int, worker: Worker, verdict: Verdict) -> Steps:
    known = _known(world, worker)
    told = _with(world, who, worker._replace(verdict=None))
    if known is None:
        yield f"{worker.name}: has nothing to settle", told
        return
    new = trial_calls.after_trial(known, SIGNALS[verdict.kind], verdict.owner, now=world.now, policy=POLICY)
    if type(new.breaker) is not type(known.breaker) and world.lost_trial < verdict.trial != world.trial:
        raise Violation(f"the late result of {verdict.owner} makes the breaker {new.phase(world.now)}")
    if new == world.server:
        yield f"{worker.name}: has nothing to settle", _adopted(told, who)
        return
    yield f"{worker.name}: settles {verdict.kind}", _committed(told, who, world.server, new)
    if verdict.is_sent:
        return
    unsure = _with(world, who, worker._replace(verdict=verdict._replace(is_sent=True)))
    yield f"{worker.name}: settles, the answer is lost", _committed(unsure, who, world.server, new, False)
    if world.late is None:
        late = Late(
            "verdict", who, worker.name, world.server, new, world.now, verdict.owner, _restores(world, worker)
        )
        yield f"{worker.name}: settles {verdict.kind}, late", replace(unsure, late=late)


def _reports(world: World, who: int, worker: Worker, report: Report) -> Steps:
    counted = _counted(world, worker, report)
    heard = counted.workers[who]._replace(report=None)
    yield f"{worker.name}: reports {report.kind}", _adopted(_with(counted, who, heard), who)
    if not report.is_counted:
        unheard = worker._replace(report=report._replace(is_counted=True))
        yield f"{worker.name}: reports {report.kind}, the answer is lost", _with(counted, who, unheard)


def _counted(world: World, worker: Worker, report: Report) -> World:
    """What the counting script does; ``tests/store/test_memory.py`` holds it to the real one."""
    record = world.server or SharedState()
    is_late = not isinstance(record.breaker, Closed) or record.legacy_open
    if report.is_counted or is_late or (report.epoch and record.epoch not in (0, report.epoch)):
        return world
    after = evaluation.counted(record, SIGNALS[report.kind], worker.name)
    if not record.epoch:
        epoch = next_epoch(report.epoch, world.now)
        after = replace(after, epoch=epoch, begun=epoch, live_reporters=1)
    return replace(world, server=after, top=max(world.top, after.epoch))


# -- what happens to them -------------------------------------------------------------------------------------------


def _arrivals(world: World, late: Late) -> Steps:
    gone = replace(world, late=None)
    is_there = world.workers[late.who].name == late.name
    if not usable(world, late):
        if is_there and late.what == "verdict":
            yield "a late commit is refused", gone
        elif is_there:
            yield "a late commit is refused", _adopted(gone, late.who)
        return
    arrived = _committed(gone, late.who, late.seen, late.new, is_there, late.restores)
    if is_there and late.what == "permit":
        arrived = _granted(arrived, late.who, late.owner)
    elif is_there and late.what == "verdict":
        arrived = _with(arrived, late.who, arrived.workers[late.who]._replace(verdict=None))
    yield f"the {late.what} of {late.name} arrives", arrived
    yield f"the {late.what} of {late.name} never arrives", gone


def usable(world: World, late: Late) -> bool:
    """Whether the server would take it: what was counted meanwhile is no conflict."""
    if late.seen is None or world.server is None:
        return late.seen is world.server and world.now - late.sent_s <= DECISION_LIFE_S
    return _guards(late.seen) == _guards(world.server)


def _guards(record: SharedState) -> object:
    breaker = record.breaker
    until, permits = getattr(breaker, "until", 0.0), breaker.permits
    return type(breaker), record.epoch, record.legacy_open, until, permits


def _time(world: World) -> Steps:
    server, now = world.server, world.now
    ends: set[float] = {world.lost_s + loss.REJOIN_S}
    for record in (server, *(worker.shared for worker in world.workers)):
        if record is not None and isinstance(record.breaker, Open):
            ends.add(record.breaker.until)
        elif record is not None and isinstance(record.breaker, HalfOpen):
            ends |= set(record.breaker.permits.values())
            ends.add(trial_calls.half_open_since(record) + POLICY.next_trial_s)
    ends |= {worker.call.lease_s for worker in world.workers if worker.call is not None}
    ends |= {worker.call.lease_s - POLICY.permit_lease_s / 2 for worker in world.workers if worker.call is not None}
    ahead = [end_s for end_s in ends if end_s > now]
    if ahead:
        yield f"time passes: {min(ahead) - now:.1f} s", replace(world, now=min(ahead) + MOMENT_S)


def _lost(world: World) -> World:
    workers = tuple(
        worker._replace(
            report=worker.report and worker.report._replace(is_counted=False),
            call=worker.call and worker.call._replace(is_told=not worker.call.owner),
        )
        for worker in world.workers
    )
    return replace(
        world, server=None, losses=world.losses - 1, lost_s=world.now, lost_trial=world.trial, workers=workers
    )


def _older_writes(world: World, server: SharedState) -> Steps:
    at = iso(world.now)
    well = {"state": "active", "last_check": at, "last_api_call": at, "last_success": at, "consecutive_failures": "0"}
    said = {
        "an older worker says open": {"circuit_breaker_open": "true"},
        "an older worker says closed": {"circuit_breaker_open": "false"},
        "an older worker's call succeeds": well | {"circuit_breaker_open": "false"},
    }
    for name, fields in said.items():
        read = parse(encode(server) | fields, world.now)
        if read != server:
            yield name, replace(world, server=read, older=world.older - 1)


def _with(world: World, who: int, worker: Worker) -> World:
    return replace(world, workers=(*world.workers[:who], worker, *world.workers[who + 1 :]))


# -- the commit, and what must hold of it ---------------------------------------------------------------------------


def _committed(
    world: World,
    who: int,
    seen: SharedState | None,
    new: SharedState,
    is_heard: bool = True,
    restores: bool | None = None,
) -> World:
    """The world after the server took it; a worker that hears of it knows it."""
    if seen is None or not seen.epoch:
        epoch = max(new.epoch, next_epoch(0, world.now))
        new = replace(new, epoch=epoch, begun=epoch)
    new = replace(new, version=(world.server.version if world.server else 0) + 1)
    new = _with_counts(new, seen, world.server)
    _check(world, seen, new, restores=_restores(world, world.workers[who]) if restores is None else restores)
    ends = world.server is not None and isinstance(world.server.breaker, HalfOpen)
    trial = world.trial + (ends and not isinstance(new.breaker, HalfOpen))
    after = replace(world, server=new, trial=trial, top=max(world.top, new.epoch))
    return _adopted(after, who) if is_heard else after


def _with_counts(new: SharedState, seen: SharedState | None, server: SharedState | None) -> SharedState:
    """Only what was changed is written: what was counted meanwhile stays."""
    if seen is None or server is None or seen.breaker == server.breaker:
        return new
    match new.breaker, seen.breaker, server.breaker:
        case Closed() as ours, Closed() as before, Closed() as now if ours.failures == before.failures:
            return replace(new, breaker=replace(ours, failures=now.failures, run=now.run))
        case _:
            return new


def _restores(world: World, worker: Worker) -> bool:
    """What was lost counts again: then a wait that is only to give everybody time for that may end early."""
    return loss.recovered(worker.shared or SharedState(), world.server, world.now, POLICY) is not None


def _check(world: World, seen: SharedState | None, new: SharedState, *, restores: bool) -> None:
    before, now = world.server, world.now
    _check_epoch(world, new)
    if before is None:
        return
    if isinstance(before.breaker, Open) and before.breaker.until > now + 1 and not restores:
        is_longer = isinstance(new.breaker, Open) and new.breaker.until >= before.breaker.until
        if not is_longer:
            raise Violation("an open breaker ends before its time")
    if isinstance(before.breaker, Closed) and isinstance(new.breaker, Open) and seen is not None:
        counted = seen.breaker.failures
        if not (restores or seen.legacy_open or counted >= POLICY.failure_threshold):
            raise Violation(f"{counted} failures open the breaker")


def _check_epoch(world: World, new: SharedState) -> None:
    before = world.server
    if new.epoch < world.top:
        raise Violation(f"the epoch falls from {world.top} to {new.epoch}")
    is_move = before is None or type(new.breaker) is not type(before.breaker)
    if is_move and new.epoch <= world.top:
        raise Violation(f"a transition repeats the epoch {new.epoch}")
