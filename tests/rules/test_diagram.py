"""The diagram in the documentation shows exactly the transitions that the code can make."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Hashable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

from openrouter_guard.rules import breaker as breakers
from openrouter_guard.rules import shared_state
from openrouter_guard.rules.breaker import BreakerState, Closed
from openrouter_guard.rules.override import OverrideKind
from openrouter_guard.rules.shared_state import SharedState
from openrouter_guard.rules.signals import NEUTRAL, SUCCESS, Effect, ErrorType, OpenRouterState, Signal
from openrouter_guard.rules.trial_reports import SPACED_S
from tests.rules.stories import (
    POLICY,
    Event,
    check,
    doubt,
    limit,
    older_writer,
    override,
    permit,
    release,
    report,
    result,
    seen_lately,
    settle,
    slot,
    trial,
)

DOCUMENT = (Path(__file__).parents[2] / "docs" / "breaker.md").read_text()
AN_ERROR_TYPE = "an error type"
START_S = 1_000_000.0
SIGNALS = (
    SUCCESS,
    NEUTRAL,
    Signal(Effect.FAILURE, ErrorType.TIMEOUT),
    Signal(Effect.FAILURE, ErrorType.CREDITS_EXHAUSTED),
    Signal(Effect.RATE_LIMIT, ErrorType.RATE_LIMITED, wait_s=5),
    Signal(Effect.MODEL, ErrorType.TIMEOUT),
)
EVENTS: tuple[Event, ...] = (
    *(result(signal, "wa") for signal in SIGNALS),
    *(trial(signal, "wa/1") for signal in SIGNALS),
    *(doubt(Signal(Effect.FAILURE, kind)) for kind in (ErrorType.API_KEY_INVALID, ErrorType.CREDITS_EXHAUSTED)),
    *(check(state) for state in OpenRouterState),
    check(OpenRouterState.ACTIVE, balance=1.0),
    *(override(kind, for_s=10) for kind in OverrideKind),
    *(older_writer(says_open=says_open) for says_open in (True, False)),
    seen_lately(failures=2, slow=0),
    seen_lately(failures=0, slow=2),
    permit("wa/1"),
    report(is_success=True),
    report(is_success=False),
    limit(5),
    slot,
    release,
    settle,
    lambda record, _now: record,
)
PAUSES_S = (0.0, 5.0, 61.0)


class LogOnce(NamedTuple):
    """A change of the state that readers see, and what the history calls it."""

    before: BreakerState
    after: BreakerState
    why: str


def test_the_diagram_shows_what_the_breaker_does_by_itself() -> None:
    by_itself = {edge for edge in made() if edge.why not in {*OverrideKind, "override_ended"}}
    assert drawn() == by_itself


def test_the_table_shows_what_a_person_can_do() -> None:
    by_a_person = {edge for edge in made() if edge.why in {*OverrideKind, "override_ended"}}
    assert listed() == by_a_person


@cache
def made() -> frozenset[LogOnce]:
    """Every edge that some story of the events leads over."""
    start = replace(shared_state.fresh(START_S), live_reporters=1)
    found: set[LogOnce] = set()
    known: set[Hashable] = {kind_of(start, START_S)}
    ahead = deque([(start, START_S)])
    while ahead:
        record, now = ahead.popleft()
        for edge, after, at in steps(record, now):
            found.update(edge)
            if (kind := kind_of(after, at)) not in known:
                known.add(kind)
                ahead.append((after, at))
    return frozenset(found)


def steps(record: SharedState, now: float) -> Iterator[tuple[list[LogOnce], SharedState, float]]:
    for pause_s in PAUSES_S:
        for event in EVENTS:
            at = now + pause_s
            after = event(record, at) or record
            yield [*by_time(record, now, at), *by_event(record, after, at)], after, at


def by_time(record: SharedState, now: float, at: float) -> Iterator[LogOnce]:
    before, after = record.phase(now), record.phase(at)
    if before is not after:
        has_ended = record.standing(now) is not None
        yield LogOnce(before, after, "override_ended" if has_ended else "reset_timeout")


def by_event(before: SharedState, after: SharedState, at: float) -> Iterator[LogOnce]:
    if before.epoch == after.epoch:
        return
    reason = after.transitions[-1].reason
    why = AN_ERROR_TYPE if reason in {*ErrorType, *OpenRouterState} else reason
    edge = LogOnce(before.phase(at), after.phase(at), why)
    if why == "reset_timeout" or (why == "override_ended" and before.standing(at) is None):
        # Written down when somebody came; it was so by time alone.
        assert edge.before is edge.after
        return
    yield edge


def kind_of(record: SharedState, now: float) -> Hashable:
    """What of a record decides where it can go, without the times themselves."""
    breaker = record.breaker
    return (
        type(breaker),
        record.phase(now),
        counted(breaker) if isinstance(breaker, Closed) else (),
        bool(breaker.permits),
        reason if (reason := breaker.reason) in {"api_key_invalid", "credits_exhausted"} else "",
        record.override and (record.override.kind, record.override.until > now),
        record.legacy_open,
        min(record.good_checks, POLICY.good_checks),
        record.good_report_at and min(now - record.good_report_at, SPACED_S),
        breakers.waits_for_trial(breaker, now=now, policy=POLICY),
    )


def counted(breaker: Closed) -> Hashable:
    """Beyond what opens it, one failure more is the same."""
    failures = min(breaker.failures, POLICY.failure_threshold)
    return failures, min(breaker.refusals, POLICY.refusals_wanted), breaker.on_probation, seen_of(breaker)


def seen_of(breaker: Closed) -> Hashable:
    return tuple((tally.failures, tally.slow) for tally in breaker.window)


def drawn() -> set[LogOnce]:
    (diagram,) = re.findall(r"```mermaid\n(stateDiagram-v2.*?)```", DOCUMENT, re.DOTALL)
    rows = re.findall(r"^ *(\w+) --> (\w+): (.+)$", diagram, re.MULTILINE)
    return {LogOnce(BreakerState(before), BreakerState(after), why) for before, after, why in rows}


def listed() -> set[LogOnce]:
    rows = re.findall(r"^\| `(\w+)` \| ([\w, ]+) \| ([\w, ]+) \|", DOCUMENT, re.MULTILINE)
    whys = {*OverrideKind, "override_ended"}
    return {
        LogOnce(BreakerState(before), BreakerState(after), why)
        for why, befores, afters in rows
        if why in whys
        for before in befores.split(", ")
        for after in afters.split(", ")
    }
