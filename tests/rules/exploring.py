"""Explore every interleaving of a small fleet, breadth first; states that differ only in names are merged."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from openrouter_guard.rules import admission, evaluation, loss, trial_calls
from openrouter_guard.rules.breaker import BreakerState, Closed, HalfOpen, Open
from openrouter_guard.rules.shared_state import SharedState
from tests.rules.protocol import LONGEST_S, POLICY, Call, Violation, Worker, World, steps, usable

__all__ = ["Explored", "explore", "roots"]

Key: TypeAlias = tuple[Any, ...]
FOREVER_S = 60.0


@dataclass(frozen=True, slots=True)
class Explored:
    """How far a search came.

    Attributes:
        states: Different ones that were found.
        moves: Steps that were tried.
        depth: Steps from a beginning up to which all states were looked at.
    """

    states: int
    moves: int
    depth: int


def roots() -> list[World]:
    """Where the search begins: a fleet just started, one failure before it opens, open, half-open, and for long."""
    new = World(workers=tuple(map(Worker, "abc")))
    first = "a: begins a call", "a: its call ends F", "a: reports F"
    almost = _after(new, *first, "b: looks", "c: looks")
    almost = replace(almost, server=almost.server and replace(almost.server, live_reporters=2))
    failing = "b: begins a call", "b: its call ends F", "b: reports F", "b: looks and writes"
    opened = _after(almost, *failing, "a: looks", "c: looks")
    half_open = _after(opened, "time passes", "a: begins a trial", "b: looks")
    return [new, almost, opened, half_open, _after(half_open, "time passes")]


def _after(world: World, *names: str) -> World:
    for name in names:
        world = next(after for told, after in steps(world) if told == name or told.startswith(f"{name}:"))
    return world


def explore(
    worlds: Iterable[World], *, depth: int = 1000, seconds: float = float("inf"), most: int = 10**9
) -> Explored:
    """Look at all that can be reached.

    Args:
        depth: In so many steps.
        seconds: And in so much time.
        most: With so many states to go on from at the most, for each needs some memory.

    Raises:
        Violation: With the steps that lead to what must not be.
    """
    ends_s = time.monotonic() + seconds
    found, wedges, moves = set[int](), set[int](), 0
    level = [world for world in worlds if _is_new(found, _key(world))]
    for done in range(depth):
        after: list[World] = []
        for world in level:
            if time.monotonic() > ends_s or len(after) > most:
                return Explored(len(found), moves, done)
            for name, then in _told_steps(world):
                moves += 1
                if _is_new(found, _key(then)):
                    after.append(replace(then, told=(*world.told, name)))
                    _guarded(after[-1].told, _check, then, wedges)
        level = after
        if not level:
            return Explored(len(found), moves, depth)
    return Explored(len(found), moves, depth)


def _told_steps(world: World) -> Sequence[tuple[str, World]]:
    found: list[tuple[str, World]] = _guarded(world.told, lambda: list(steps(world)))
    return found


def _guarded(told: Sequence[str], call: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return call(*arguments)
    except Violation as error:
        raise Violation("\n  ".join([str(error), *told])) from None


def _is_new(found: set[int], key: Key | None) -> bool:
    """The hash stands for the state: of a million, two in ten million searches share one."""
    number = hash(key)
    if number in found:
        return False
    found.add(number)
    return True


# -- what must hold in every state ----------------------------------------------------------------------------------


def _check(world: World, wedges: set[int]) -> None:
    _no_more_trials_than_permits(world)
    if _is_new(wedges, _record_key(world.server, world, {})):
        _no_wedge(world, Worker("z"))
    for worker in world.workers:
        known = (_record_key(worker.shared, world, {}), _record_key(world.server, world, {}))
        if _is_new(wedges, known):
            _no_wedge(world, worker)


def _no_more_trials_than_permits(world: World) -> None:
    calls = [worker.call for worker in world.workers if worker.call is not None]
    out = [call for call in calls if call.owner and call.trial == world.trial and _counts(call, world)]
    if len(out) > _permits(world):
        raise Violation(f"{len(out)} trial calls are out: {', '.join(call.owner for call in out)}")


def _permits(world: World) -> int:
    """How many there are by now. After a loss, who joins late may have taken one of those that there were before."""
    server = world.server
    if server is None or not isinstance(server.breaker, HalfOpen) or world.now < world.lost_s + FOREVER_S:
        return POLICY.permits
    since = trial_calls.half_open_since(server)
    return 1 if world.now < since + POLICY.next_trial_s else POLICY.permits


def _counts(call: Call, world: World) -> bool:
    """After a loss, who does not look for three seconds is taken to be gone; so is who does not renew its lease."""
    is_known = call.is_told or world.now < world.lost_s + loss.REJOIN_S
    return call.lease_s > world.now and is_known


def _no_wedge(world: World, worker: Worker) -> None:
    """Whatever was left behind, this worker alone can make a call again."""
    now, server = world.now + LONGEST_S, world.server
    for _ in range(3):
        known = loss.recovered(worker.shared or SharedState(), server, now, POLICY) or server
        server = known and evaluation.evaluate(known, now=now, policy=POLICY, by="z")
        now += POLICY.permit_lease_s + 1
    record = server or SharedState()
    if admission.fleet_refusal(record, now) is not None:
        raise Violation(f"{worker.name} may not call though all is long over: {record.breaker}")
    if record.phase(now) is BreakerState.CLOSED:
        return
    given = trial_calls.with_permit(record, "z/1", now=now, policy=POLICY)
    if given is None:
        raise Violation(f"{worker.name} gets no permit though all is long over: {record.breaker}")


# -- when two states are the same -----------------------------------------------------------------------------------


def _key(world: World) -> Key:
    """The state without names and moments: who it is, and when it is, makes no difference."""
    ranks = _ranks(world)
    plain = [hash(_worker_key(worker, world, ranks, {})) for worker in world.workers]
    names = sorted(range(len(plain)), key=plain.__getitem__)
    order = {world.workers[who].name: place for place, who in enumerate(names)}
    late = world.late
    return (
        _record_key(world.server, world, ranks, order),
        tuple(_worker_key(world.workers[who], world, ranks, order) for who in names),
        late
        and (
            late.what,
            usable(world, late),
            order.get(late.name),
            _record_key(late.new, world, ranks, order),
            _span(late.sent_s, world),
        ),
        (world.crashes, world.losses, world.older),
        world.now < world.lost_s + loss.REJOIN_S,
    )


def _ranks(world: World) -> dict[int, int]:
    known = [world.server, *(worker.shared for worker in world.workers)]
    found = {number for record in known if record for number in _epochs(record)}
    found |= {w.call.epoch for w in world.workers if w.call} | {w.report.epoch for w in world.workers if w.report}
    if world.late is not None:
        found |= set(_epochs(world.late.new))
    return {epoch: rank for rank, epoch in enumerate(sorted(found))}


def _epochs(record: SharedState) -> tuple[int, int, int]:
    return record.epoch, record.begun, record.transitions[-1].epoch if record.transitions else 0


def _worker_key(worker: Worker, world: World, ranks: dict[int, int], order: dict[str, int]) -> Key:
    call, verdict, report = worker.call, worker.verdict, worker.report
    return (
        _record_key(worker.shared, world, ranks, order),
        call
        and (
            ranks.get(call.epoch, 0),
            _held(call.owner, call.lease_s, world),
            call.trial == world.trial,
            call.is_told,
        ),
        verdict and (_held(verdict.owner, 0.0, world), verdict.kind, verdict.trial == world.trial, verdict.is_sent),
        report and (ranks.get(report.epoch, 0), report.kind, report.is_counted),
    )


def _held(owner: str, lease_s: float, world: World) -> Key:
    permits = world.server.breaker.permits if world.server else {}
    return bool(owner), owner in permits, _span(lease_s, world)


def _record_key(
    record: SharedState | None, world: World, ranks: dict[int, int], order: dict[str, int] | None = None
) -> Key | None:
    if record is None:
        return None
    places = order or {}
    said = (record.legacy_open, record.legacy_news, tuple(ranks.get(epoch, 0) for epoch in _epochs(record)))
    match record.breaker:
        case Closed() as breaker:
            run = sorted(places.get(name, 9) for name in breaker.run)
            kind: Key = (
                "closed",
                breaker.failures,
                *run,
                breaker.trips,
                _span(breaker.since, world),
                record.live_reporters,
            )
        case Open() as breaker:
            kind = ("open", breaker.trips, _span(breaker.until, world))
        case HalfOpen() as breaker:
            permits = sorted(
                (places.get(owner.split("/")[0], 9), _span(end_s, world)) for owner, end_s in breaker.permits.items()
            )
            next_s = trial_calls.half_open_since(record) + POLICY.next_trial_s
            kind = ("half-open", breaker.trips, _span(max(next_s, world.now), world), *permits)
    return (*kind, *said)


def _span(at: float, world: World) -> float:
    """Half seconds from now, as far as that matters."""
    return round(min(max(at - world.now, -FOREVER_S), FOREVER_S) * 2)
