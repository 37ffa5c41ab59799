"""Reports that a key or an account is invalid, at 100 s on the Redis clock."""

from __future__ import annotations

from dataclasses import replace

import pytest

from openrouter_guard.rules import evaluation, health_checks
from openrouter_guard.rules.breaker import Breaker, BreakerState, Closed, HalfOpen, Open, Policy
from openrouter_guard.rules.shared_state import SharedState, Upstream
from openrouter_guard.rules.signals import SUCCESS, Effect, ErrorType, OpenRouterState, Signal

NOW_S = 100.0
POLICY = Policy(reset_timeout_s=10, jitter=0, confirm_s=10)
BAD_KEY = Signal(Effect.FAILURE, ErrorType.API_KEY_INVALID, status_code=401)
NO_CREDIT = Signal(Effect.FAILURE, ErrorType.CREDITS_EXHAUSTED, status_code=402)
TIMEOUT = Signal(Effect.FAILURE, ErrorType.TIMEOUT)
INVALID, EMPTY = OpenRouterState.API_KEY_INVALID, OpenRouterState.CREDITS_EXHAUSTED
FINE, DOWN, NO_KEY = OpenRouterState.ACTIVE, OpenRouterState.SERVICE_UNAVAILABLE, OpenRouterState.API_KEY_MISSING
IN_DOUBT = SharedState(
    Closed(1), epoch=7, live_reporters=50, check_wanted_at=95.0, doubted_at=95.0, upstream=Upstream(INVALID)
)


def doubted(record: SharedState, signal: Signal) -> SharedState:
    return health_checks.doubted(record, signal, now=NOW_S, policy=POLICY, by="me")


def checked(record: SharedState, found: OpenRouterState) -> SharedState:
    seen = Upstream(found, checked_at=NOW_S)
    return health_checks.after_check(record, seen, now=NOW_S, policy=POLICY, by="service")


def evaluate(record: SharedState) -> SharedState:
    return evaluation.evaluate(record, now=NOW_S, policy=POLICY, by="me")


def test_one_refused_key_stops_nobody_and_asks_for_a_check() -> None:
    after = doubted(SharedState(Closed(1), epoch=7, live_reporters=50), BAD_KEY)
    assert (evaluate(after).phase(NOW_S), after.check_wanted_at) == (BreakerState.CLOSED, NOW_S)
    assert health_checks.wants_check(after, now=NOW_S, policy=POLICY)


@pytest.mark.parametrize("signal", [SUCCESS, TIMEOUT])
def test_nothing_else_asks_for_one(signal: Signal) -> None:
    assert doubted(SharedState(Closed(1)), signal) == SharedState(Closed(1))


@pytest.mark.parametrize("breaker", [Open("error", 90, 110), HalfOpen("error", 90)])
def test_nor_does_anything_while_calls_are_refused_anyway(breaker: Breaker) -> None:
    assert doubted(SharedState(breaker), BAD_KEY) == SharedState(breaker)


def test_many_refused_calls_ask_once() -> None:
    assert doubted(IN_DOUBT, BAD_KEY) is IN_DOUBT


@pytest.mark.parametrize(
    ("record", "wanted"),
    [
        pytest.param(IN_DOUBT, True, id="asked and not made"),
        pytest.param(replace(IN_DOUBT, upstream=Upstream(checked_at=96.0)), False, id="made"),
        pytest.param(replace(IN_DOUBT, check_wanted_at=89.9), False, id="too late to say anything about that call"),
        pytest.param(replace(IN_DOUBT, breaker=Open("error", 90, 99)), False, id="not closed any more"),
        pytest.param(SharedState(), False, id="nobody asked"),
    ],
)
def test_a_check_is_wanted(record: SharedState, wanted: bool) -> None:
    assert health_checks.wants_check(record, now=NOW_S, policy=POLICY) is wanted


@pytest.mark.parametrize("found", [INVALID, EMPTY])
def test_a_check_that_finds_it_too_opens_for_all(found: OpenRouterState) -> None:
    after = checked(IN_DOUBT, found)
    assert after.breaker == Open(found.value, NOW_S, NOW_S + POLICY.first_wait_s, 1, 1)
    assert after.epoch == 8


@pytest.mark.parametrize("found", [FINE, DOWN, NO_KEY])
def test_any_other_finding_leaves_the_one_failure(found: OpenRouterState) -> None:
    assert checked(IN_DOUBT, found).breaker == Closed(1)


@pytest.mark.parametrize("age_s", [10.1, 1_000.0])
def test_an_answer_that_comes_late_confirms_nothing(age_s: float) -> None:
    late = replace(IN_DOUBT, check_wanted_at=NOW_S - age_s)
    assert checked(late, INVALID).breaker == Closed(1)


def test_a_check_on_its_own_opens_nothing() -> None:
    assert checked(SharedState(Closed(0)), INVALID).breaker == Closed(0)


def test_a_key_that_works_was_not_the_reason() -> None:
    after = checked(IN_DOUBT, FINE)
    assert after.upstream.state is DOWN
    # Further calls say again that the key is bad, and are no more right.
    again = replace(after, breaker=Closed(5), live_reporters=0, upstream=replace(after.upstream, state=INVALID))
    opened = evaluate(again)
    assert isinstance(opened.breaker, Open)
    assert (opened.breaker.reason, opened.upstream.state) == ("service_unavailable", DOWN)


@pytest.mark.parametrize(
    ("found", "age_s", "opens"),
    [
        pytest.param(INVALID, 60.0, True, id="a check has just found that"),
        pytest.param(INVALID, 60.1, False, id="long ago"),
        pytest.param(EMPTY, 1.0, False, id="it found something else"),
        pytest.param(FINE, 1.0, False, id="it found nothing wrong"),
    ],
)
def test_a_recent_check_confirms_as_well(found: OpenRouterState, age_s: float, opens: bool) -> None:
    record = SharedState(Closed(1), epoch=7, check_found=found, upstream=Upstream(checked_at=NOW_S - age_s))
    assert isinstance(doubted(record, BAD_KEY).breaker, Open) is opens


@pytest.mark.parametrize(
    ("signals", "expected"),
    [
        pytest.param([NO_CREDIT], BreakerState.CLOSED, id="one call may be wrong"),
        pytest.param([NO_CREDIT, NO_CREDIT], BreakerState.OPEN, id="two are not"),
        pytest.param([NO_CREDIT, TIMEOUT, NO_CREDIT], BreakerState.OPEN, id="with another failure between them"),
        pytest.param([NO_CREDIT, SUCCESS, NO_CREDIT], BreakerState.CLOSED, id="a call that was paid for is a proof"),
        pytest.param([BAD_KEY, BAD_KEY], BreakerState.CLOSED, id="refused keys need a check"),
    ],
)
def test_two_calls_without_credit_open_for_all(signals: list[Signal], expected: BreakerState) -> None:
    record = SharedState(epoch=7, live_reporters=50)
    for signal in signals:
        record = evaluation.counted(record, signal, "wa")
    after = evaluate(record)
    assert after.phase(NOW_S) is expected
    assert expected is BreakerState.CLOSED or after.breaker.reason == "credits_exhausted"


def test_a_check_from_before_the_first_refused_call_says_nothing_for_the_key() -> None:
    record = SharedState(Closed(4), epoch=7, check_found=FINE, upstream=Upstream(INVALID, checked_at=NOW_S - 5))
    refused = replace(doubted(record, BAD_KEY), breaker=Closed(5))
    opened = evaluate(refused)
    assert isinstance(opened.breaker, Open)
    assert (opened.breaker.reason, opened.upstream.state) == ("api_key_invalid", INVALID)


def test_nor_does_one_that_was_asked_before_it_and_answered_after() -> None:
    after = health_checks.after_check(
        IN_DOUBT, Upstream(FINE, checked_at=NOW_S), now=NOW_S, policy=POLICY, by="me", began_at=94.9
    )
    assert (after.upstream.state, after.check_found) == (INVALID, None)


def test_what_anybody_reports_is_no_check() -> None:
    upstream = Upstream(INVALID, last_check_at=NOW_S, checked_at=NOW_S - 61)
    record = SharedState(Closed(1), epoch=7, check_found=INVALID, upstream=upstream)
    assert isinstance(doubted(record, BAD_KEY).breaker, Closed)


def test_the_doubt_of_a_run_of_failures_began_with_its_first() -> None:
    asked_long_ago = replace(IN_DOUBT, check_wanted_at=80.0, doubted_at=80.0)
    assert doubted(asked_long_ago, BAD_KEY).doubted_at == 80.0
    succeeded_since = replace(asked_long_ago, upstream=replace(IN_DOUBT.upstream, last_success_at=90.0))
    assert doubted(succeeded_since, BAD_KEY).doubted_at == NOW_S
