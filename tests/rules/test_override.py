"""A person's override of the breaker, at one moment of the Redis clock."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from openrouter_guard.rules import admission, evaluation, health_checks, transitions, trial_calls
from openrouter_guard.rules.breaker import Breaker, BreakerState, Closed, HalfOpen, Open, Policy
from openrouter_guard.rules.codec import encode, parse
from openrouter_guard.rules.loss import recovered
from openrouter_guard.rules.override import Override, OverrideKind
from openrouter_guard.rules.shared_state import SharedState, Transition, Upstream
from openrouter_guard.rules.signals import SUCCESS, Effect, ErrorType, OpenRouterState, Signal

NOW_S = 1_800_000_000.0
SINCE_S, UNTIL_S, END_S = NOW_S - 10, NOW_S + 30, NOW_S + 60
POLICY = Policy(reset_timeout_s=10, jitter=0)
FORCED_OPEN, FORCED_CLOSED, DISABLED = OverrideKind
TIMEOUT = Signal(Effect.FAILURE, ErrorType.TIMEOUT)
OPEN = Open("timeout", SINCE_S, until=UNTIL_S)


def forced(kind: OverrideKind, breaker: Breaker = Closed(), **changes: object) -> SharedState:
    record = SharedState(breaker, epoch=7, live_reporters=1, **changes)  # type: ignore[arg-type]
    return transitions.overridden(record, Override(kind, "ann", "maintenance", END_S), NOW_S)


def evaluate(record: SharedState, now: float = NOW_S) -> SharedState:
    return evaluation.evaluate(record, now=now, policy=POLICY, by="me")


@given(st.text(max_size=900), st.text(max_size=900))
@example("x" * 900, "Bearer\nsk-or-v1-0123456789abcdef")
@example("a\udcffb", "a drill\n2026-03-01 CRITICAL Redis is lost\x1b[2J\u202e")
def test_it_reads_back_as_the_same_one_line(who: str, why: str) -> None:
    override = Override(FORCED_OPEN, who, why, END_S)
    record = transitions.overridden(SharedState(epoch=7), override, NOW_S)
    found = parse(encode(record), NOW_S)
    assert (found.override, found.transitions) == (override, record.transitions)
    assert (override.who + override.why + found.transitions[0].by).isprintable()
    assert "0123456789abcdef" not in override.why


@pytest.mark.parametrize("breaker", [Closed(), OPEN, HalfOpen("timeout", SINCE_S)])
@pytest.mark.parametrize(
    ("kind", "phase"),
    [(FORCED_OPEN, BreakerState.OPEN), (FORCED_CLOSED, BreakerState.CLOSED), (DISABLED, BreakerState.CLOSED)],
)
def test_it_holds_whatever_the_breaker_says(breaker: Breaker, kind: OverrideKind, phase: BreakerState) -> None:
    record = forced(kind, breaker)
    assert evaluate(record) == record
    assert record.phase(END_S - 0.1) is phase
    expected = (60.0, "forced_open") if kind is FORCED_OPEN else None
    assert admission.fleet_refusal(record, NOW_S) == expected
    # Existing readers see it as well.
    assert encode(record)["circuit_breaker_open"] == str(kind is FORCED_OPEN).lower()


def test_the_history_says_who_and_why_not() -> None:
    assert forced(FORCED_OPEN).transitions == (
        Transition(8, BreakerState.CLOSED, BreakerState.OPEN, "forced_open", "ann", NOW_S),
    )


def test_the_newest_wins() -> None:
    again = transitions.overridden(forced(FORCED_OPEN), Override(DISABLED, "bob", "a test", NOW_S + 100), NOW_S)
    assert (again.override, again.epoch) == (Override(DISABLED, "bob", "a test", NOW_S + 100), 9)


@pytest.mark.parametrize("kind", OverrideKind)
@pytest.mark.parametrize(
    "breaker", [Closed(9), Open("timeout", SINCE_S, until=UNTIL_S), HalfOpen("timeout", SINCE_S)]
)
def test_it_ends_by_itself_and_the_breaker_goes_on(kind: OverrideKind, breaker: Breaker) -> None:
    ended = evaluate(forced(kind, breaker), now=END_S)
    assert ended.override is None
    assert ended.epoch == 9
    assert ended.transitions[-1].reason == "override_ended"
    assert type(ended.breaker) is type(breaker)


def test_those_who_were_refused_come_back_little_by_little() -> None:
    waiting = replace(forced(FORCED_OPEN), fleet=100)
    ended = evaluate(waiting, now=END_S)
    assert admission.admitted_share(ended, now=END_S, policy=POLICY) == 0.02


def test_a_person_may_end_it_earlier() -> None:
    ended = transitions.released(forced(FORCED_OPEN), by="bob", now=NOW_S)
    assert (ended.phase(NOW_S), ended.transitions[-1].by) == (BreakerState.CLOSED, "bob")
    assert transitions.released(SharedState(), by="bob", now=NOW_S) == SharedState()


@pytest.mark.parametrize("kind", OverrideKind)
def test_meanwhile_nothing_moves_the_breaker(kind: OverrideKind) -> None:
    half_open = forced(kind, HalfOpen("timeout", SINCE_S, permits={"me": NOW_S + 15}))
    after = trial_calls.after_trial(half_open, SUCCESS, "me", now=NOW_S, policy=POLICY)
    assert isinstance(after.breaker, HalfOpen)
    assert not after.breaker.permits
    assert trial_calls.with_permit(half_open, "you", now=NOW_S, policy=POLICY) is None
    found = Upstream(OpenRouterState.SERVICE_UNAVAILABLE, checked_at=NOW_S)
    checked = health_checks.after_check(forced(kind, OPEN), found, now=NOW_S, policy=POLICY, by="service")
    assert (checked.breaker, checked.upstream.state) == (OPEN, found.state)
    tripped = forced(kind, Closed(9, refusals=9))
    assert evaluate(tripped) == tripped


@pytest.mark.parametrize(("kind", "counts"), [(FORCED_OPEN, False), (FORCED_CLOSED, True), (DISABLED, False)])
def test_what_counts_meanwhile(kind: OverrideKind, counts: bool) -> None:
    assert evaluation.counted(forced(kind), TIMEOUT, "wa").breaker.failures == int(counts)


@pytest.mark.parametrize(("kind", "waits"), [(FORCED_CLOSED, True), (DISABLED, False)])
def test_a_rate_limit_holds_back_unless_all_is_disabled(kind: OverrideKind, waits: bool) -> None:
    limited = forced(kind, upstream=Upstream(rate_limit_reset_at=NOW_S + 10))
    assert (admission.fleet_refusal(limited, NOW_S) is not None) is waits


@pytest.mark.parametrize("kind", OverrideKind)
@pytest.mark.parametrize("says_open", [True, False])
@pytest.mark.parametrize("breaker", [Closed(), OPEN])
def test_what_an_older_writer_makes_of_the_flag_is_written_back(
    kind: OverrideKind, says_open: bool, breaker: Breaker
) -> None:
    record = forced(kind, breaker)
    read = parse(encode(record) | {"circuit_breaker_open": str(says_open).lower()}, NOW_S)
    assert encode(evaluate(read)) == encode(record)


def test_what_redis_lost_is_committed_again_until_it_ends() -> None:
    known = forced(FORCED_OPEN)
    assert recovered(known, None, NOW_S, POLICY) == replace(known, epoch=int(NOW_S * 1000), timed_until=NOW_S)
    assert recovered(known, None, END_S, POLICY) is None


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "null", '{"kind": "strange"}', '{"kind": "disabled", "until": "x"}']
)
def test_what_cannot_be_read_is_no_override(text: str) -> None:
    assert parse({"override": text, "epoch": "7"}, NOW_S).override is None
