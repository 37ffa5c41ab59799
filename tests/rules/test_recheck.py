"""The check that is made just before the wait of an open breaker is over, at 100 s on the Redis clock."""

from __future__ import annotations

import pytest

from openrouter_guard.rules import checks
from openrouter_guard.rules.breaker import Breaker, Closed, HalfOpen, Open, Policy
from openrouter_guard.rules.record import Record, Upstream
from openrouter_guard.rules.signals import OpenRouterState

NOW_S = 100.0
POLICY = Policy(reset_timeout_s=120, recheck_s=10, jitter=0)
OPEN = Open("service_unavailable", -15, until_s=105, trips=2, failures=5)
DOWN = OpenRouterState.SERVICE_UNAVAILABLE
INVALID, EMPTY = OpenRouterState.API_KEY_INVALID, OpenRouterState.CREDITS_EXHAUSTED


@pytest.mark.parametrize(
    ("record", "due"),
    [
        pytest.param(Record(OPEN), True, id="the last ten seconds"),
        pytest.param(Record(Open("error", -15, 110.1)), False, id="earlier it would tell nothing"),
        pytest.param(Record(Open("error", -15, 100)), False, id="later trial calls tell more"),
        pytest.param(Record(OPEN, check_slot_s=100.1), False, id="somebody has the slot"),
        pytest.param(Record(OPEN, upstream=Upstream(checked_s=96)), False, id="it was made: once is enough"),
        pytest.param(Record(OPEN, upstream=Upstream(checked_s=94)), True, id="another one, before that"),
        pytest.param(Record(OPEN, upstream=Upstream(rate_limit_reset_s=101)), False, id="we are rate limited"),
        pytest.param(Record(HalfOpen("error", -15)), False, id="half-open"),
        pytest.param(Record(Closed()), False, id="closed"),
    ],
)
def test_it_is_due(record: Record, due: bool) -> None:
    assert checks.is_recheck_due(record, now_s=NOW_S, policy=POLICY) is due
    if not isinstance(record.breaker, Open) or record.breaker.until_s <= NOW_S:
        return
    reserved = checks.with_check_slot(record, now_s=NOW_S, slot_s=60, policy=POLICY)
    assert (reserved is not None) is due


def test_a_short_wait_is_not_spent_on_checks() -> None:
    short = Policy(reset_timeout_s=8, recheck_s=10)
    assert not checks.is_recheck_due(Record(Open("error", 96, 104.1)), now_s=NOW_S, policy=short)
    assert checks.is_recheck_due(Record(Open("error", 95, 103.9)), now_s=NOW_S, policy=short)


def after(breaker: Breaker, found: OpenRouterState, now_s: float = NOW_S) -> Breaker:
    seen = Upstream(found, checked_s=now_s)
    return checks.after_check(Record(breaker, epoch=7), seen, now_s=now_s, policy=POLICY, by="service").breaker


def test_a_service_that_is_still_down_extends_the_wait_by_itself() -> None:
    # Its second opening waited for 240 s, and it waits so once more. Nothing else changes.
    assert after(OPEN, DOWN) == Open("service_unavailable", -15, until_s=340, trips=2, failures=5)


@pytest.mark.parametrize(
    ("reason", "found", "extends"),
    [
        pytest.param("timeout", DOWN, True, id="still in trouble, in other words"),
        pytest.param("timeout", OpenRouterState.ERROR, False, id="no answer: the service may be alone with that"),
        pytest.param("timeout", OpenRouterState.ACTIVE, False, id="it works: a trial call will tell"),
        pytest.param("timeout", OpenRouterState.API_KEY_MISSING, False, id="nobody asked"),
        pytest.param("timeout", INVALID, False, id="the service's own key is wrong"),
        pytest.param("api_key_invalid", INVALID, True, id="the key is still refused"),
        pytest.param("credits_exhausted", EMPTY, True, id="the account is still empty"),
        pytest.param("credits_exhausted", INVALID, False, id="refused for something else"),
    ],
)
def test_what_disproves_a_recovery(reason: str, found: OpenRouterState, extends: bool) -> None:
    breaker = Open(reason, -15, until_s=105)
    assert (after(breaker, found) != breaker) is extends


def test_once_the_time_has_passed_it_extends_nothing() -> None:
    assert after(OPEN, DOWN, now_s=105.0) == OPEN


def test_it_never_ends_earlier() -> None:
    far = Open("service_unavailable", -15, until_s=9_000)
    assert after(far, DOWN) == far
