"""What is done about a key or an account that calls say is gone, at 100 s on the Redis clock."""

from __future__ import annotations

from dataclasses import replace

import pytest

from openrouter_guard.rules import checks
from openrouter_guard.rules import record as records
from openrouter_guard.rules.breaker import Breaker, Closed, HalfOpen, Open, Phase, Policy
from openrouter_guard.rules.record import Record, Upstream
from openrouter_guard.rules.signals import SUCCESS, Effect, ErrorType, OpenRouterState, Signal

NOW_S = 100.0
POLICY = Policy(reset_timeout_s=10, jitter=0, confirm_s=10)
BAD_KEY = Signal(Effect.FAILURE, ErrorType.API_KEY_INVALID, status_code=401)
NO_CREDIT = Signal(Effect.FAILURE, ErrorType.CREDITS_EXHAUSTED, status_code=402)
TIMEOUT = Signal(Effect.FAILURE, ErrorType.TIMEOUT)
INVALID, EMPTY = OpenRouterState.API_KEY_INVALID, OpenRouterState.CREDITS_EXHAUSTED
FINE, DOWN, NO_KEY = OpenRouterState.ACTIVE, OpenRouterState.SERVICE_UNAVAILABLE, OpenRouterState.API_KEY_MISSING
IN_DOUBT = Record(Closed(1), epoch=7, live_reporters=50, check_wanted_s=95.0, upstream=Upstream(INVALID))


def doubted(record: Record, signal: Signal) -> Record:
    return checks.doubted(record, signal, now_s=NOW_S, policy=POLICY, by="me")


def checked(record: Record, found: OpenRouterState) -> Record:
    seen = Upstream(found, last_check_s=NOW_S)
    return checks.after_check(record, seen, now_s=NOW_S, policy=POLICY, by="service")


def settled(record: Record) -> Record:
    return records.settled(record, now_s=NOW_S, policy=POLICY, by="me")


def test_one_refused_key_stops_nobody_and_asks_for_a_check() -> None:
    after = doubted(Record(Closed(1), epoch=7, live_reporters=50), BAD_KEY)
    assert (settled(after).phase(NOW_S), after.check_wanted_s) == (Phase.CLOSED, NOW_S)
    assert checks.wants_check(after, now_s=NOW_S, policy=POLICY)


@pytest.mark.parametrize("signal", [SUCCESS, TIMEOUT])
def test_nothing_else_asks_for_one(signal: Signal) -> None:
    assert doubted(Record(Closed(1)), signal) == Record(Closed(1))


@pytest.mark.parametrize("breaker", [Open("error", 90, 110), HalfOpen("error", 90)])
def test_nor_does_anything_while_calls_are_refused_anyway(breaker: Breaker) -> None:
    assert doubted(Record(breaker), BAD_KEY) == Record(breaker)


def test_many_refused_calls_ask_once() -> None:
    assert doubted(IN_DOUBT, BAD_KEY) is IN_DOUBT


@pytest.mark.parametrize(
    ("record", "wanted"),
    [
        pytest.param(IN_DOUBT, True, id="asked and not made"),
        pytest.param(replace(IN_DOUBT, upstream=Upstream(last_check_s=96.0)), False, id="made"),
        pytest.param(replace(IN_DOUBT, check_wanted_s=89.9), False, id="too late to say anything about that call"),
        pytest.param(replace(IN_DOUBT, breaker=Open("error", 90, 99)), False, id="not closed any more"),
        pytest.param(Record(), False, id="nobody asked"),
    ],
)
def test_a_check_is_wanted(record: Record, wanted: bool) -> None:
    assert checks.wants_check(record, now_s=NOW_S, policy=POLICY) is wanted


@pytest.mark.parametrize("found", [INVALID, EMPTY])
def test_a_check_that_finds_it_too_opens_for_all(found: OpenRouterState) -> None:
    after = checked(IN_DOUBT, found)
    assert after.breaker == Open(found.value, NOW_S, NOW_S + 10, 1, 1)
    assert after.epoch == 8


@pytest.mark.parametrize("found", [FINE, DOWN, NO_KEY])
def test_any_other_finding_leaves_the_one_failure(found: OpenRouterState) -> None:
    assert checked(IN_DOUBT, found).breaker == Closed(1)


@pytest.mark.parametrize("age_s", [10.1, 1_000.0])
def test_an_answer_that_comes_late_confirms_nothing(age_s: float) -> None:
    late = replace(IN_DOUBT, check_wanted_s=NOW_S - age_s)
    assert checked(late, INVALID).breaker == Closed(1)


def test_a_check_on_its_own_opens_nothing() -> None:
    assert checked(Record(Closed(0)), INVALID).breaker == Closed(0)


def test_a_key_that_works_was_not_the_reason() -> None:
    after = checked(IN_DOUBT, FINE)
    assert after.upstream.state is DOWN
    # Further calls say again that the key is bad, and are no more right.
    again = replace(after, breaker=Closed(5), live_reporters=0, upstream=replace(after.upstream, state=INVALID))
    opened = settled(again)
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
    record = Record(Closed(1), epoch=7, check_found=found, upstream=Upstream(last_check_s=NOW_S - age_s))
    assert isinstance(doubted(record, BAD_KEY).breaker, Open) is opens


@pytest.mark.parametrize(
    ("signals", "expected"),
    [
        pytest.param([NO_CREDIT], Phase.CLOSED, id="one call may be wrong"),
        pytest.param([NO_CREDIT, NO_CREDIT], Phase.OPEN, id="two are not"),
        pytest.param([NO_CREDIT, TIMEOUT, NO_CREDIT], Phase.OPEN, id="with another failure between them"),
        pytest.param([NO_CREDIT, SUCCESS, NO_CREDIT], Phase.CLOSED, id="a call that was paid for is a proof"),
        pytest.param([BAD_KEY, BAD_KEY], Phase.CLOSED, id="refused keys need a check"),
    ],
)
def test_two_calls_without_credit_open_for_all(signals: list[Signal], expected: Phase) -> None:
    record = Record(epoch=7, live_reporters=50)
    for signal in signals:
        record = records.counted(record, signal, "wa")
    after = settled(record)
    assert after.phase(NOW_S) is expected
    assert expected is Phase.CLOSED or getattr(after.breaker, "reason", "") == "credits_exhausted"
