"""Health checks of an open breaker, at 100 s on the Redis clock: they end its wait, or change nothing."""

from __future__ import annotations

import math

import pytest

from openrouter_guard.rules import health_checks
from openrouter_guard.rules.breaker import Breaker, BreakerState, Closed, HalfOpen, Open, Policy
from openrouter_guard.rules.shared_state import SharedState, Upstream
from openrouter_guard.rules.signals import OpenRouterState

NOW_S = 100.0
POLICY = Policy(jitter=0)
OPEN = Open("service_unavailable", 70, until=130, trips=2, failures=5)
DOWN, ALONE = OpenRouterState.SERVICE_UNAVAILABLE, OpenRouterState.ERROR
INVALID, EMPTY = OpenRouterState.API_KEY_INVALID, OpenRouterState.CREDITS_EXHAUSTED
GOOD = OpenRouterState.ACTIVE


@pytest.mark.parametrize(
    ("record", "due"),
    [
        pytest.param(SharedState(OPEN), True, id="open"),
        pytest.param(SharedState(Open("error", 70, 100)), False, id="once its time is over trial calls tell more"),
        pytest.param(SharedState(OPEN, check_slot_at=100.1), False, id="somebody has the slot: one a minute"),
        pytest.param(SharedState(OPEN, upstream=Upstream(rate_limit_reset_at=101)), False, id="we are rate limited"),
        pytest.param(SharedState(HalfOpen("error", 70)), False, id="half-open"),
        pytest.param(SharedState(Closed()), False, id="closed"),
    ],
)
def test_it_is_due(record: SharedState, due: bool) -> None:
    assert health_checks.is_recheck_due(record, now=NOW_S, policy=POLICY) is due
    if record.phase(NOW_S) is BreakerState.OPEN:
        reserved = health_checks.with_check_slot(record, now=NOW_S, slot_s=60, policy=POLICY)
        assert (reserved is not None) is due


@pytest.mark.parametrize(
    ("began_at", "due"),
    [pytest.param(90.0, True, id="ten seconds ago"), pytest.param(90.1, False, id="not quite")],
)
def test_a_setting_allows_more_while_open_and_only_then(began_at: float, due: bool) -> None:
    often = Policy(recheck_s=10)
    taken = SharedState(OPEN, check_slot_at=began_at + 60)
    assert (health_checks.with_check_slot(taken, now=NOW_S, slot_s=60, policy=often) is not None) is due
    closed = SharedState(Closed(), check_slot_at=began_at + 60)
    assert health_checks.with_check_slot(closed, now=NOW_S, slot_s=60, policy=often) is None


def after(
    breaker: Breaker,
    found: OpenRouterState,
    *,
    before: OpenRouterState | None = DOWN,
    before_s: float = 80,
    began_at: float = NOW_S - 1,
    balance: float | None = None,
) -> Breaker:
    known = SharedState(breaker, epoch=7, upstream=Upstream(DOWN, checked_at=before_s), check_found=before)
    seen = Upstream(found, checked_at=NOW_S, balance=balance)
    return health_checks.after_check(known, seen, now=NOW_S, policy=POLICY, by="service", began_at=began_at).breaker


def test_a_good_check_after_a_bad_one_lets_calls_try_now_and_closes_nothing() -> None:
    assert after(OPEN, GOOD) == HalfOpen("service_unavailable", 70, 2, 5, tried_at=NOW_S, until=130)


@pytest.mark.parametrize("before", [DOWN, ALONE])
def test_whatever_way_it_failed(before: OpenRouterState) -> None:
    assert isinstance(after(OPEN, GOOD, before=before), HalfOpen)


@pytest.mark.parametrize("before", [GOOD, None, INVALID, EMPTY, OpenRouterState.API_KEY_MISSING])
def test_where_the_key_did_not_fail_with_the_calls_a_good_check_says_nothing(before: OpenRouterState | None) -> None:
    assert after(OPEN, GOOD, before=before) == OPEN


def test_nor_where_it_failed_in_an_outage_before() -> None:
    assert after(OPEN, GOOD, before_s=70 - 61) == OPEN


def test_it_may_have_failed_just_before_the_breaker_opened() -> None:
    assert isinstance(after(OPEN, GOOD, before_s=70 - 59), HalfOpen)


@pytest.mark.parametrize("began_at", [79.0, math.inf])
def test_one_that_began_before_it_failed_or_nobody_knows_when_says_nothing(began_at: float) -> None:
    assert after(OPEN, GOOD, began_at=began_at) == OPEN


@pytest.mark.parametrize("found", [DOWN, ALONE, INVALID, EMPTY, OpenRouterState.API_KEY_MISSING])
@pytest.mark.parametrize("reason", ["timeout", "service_unavailable", INVALID.value, EMPTY.value])
def test_a_bad_one_changes_nothing(reason: str, found: OpenRouterState) -> None:
    breaker = Open(reason, 70, until=130)
    assert after(breaker, found) == breaker


class TestWhereAPersonMustAct:
    REVOKED = Open("api_key_invalid", 70, until=900, trips=7)
    SPENT = Open("credits_exhausted", 70, until=900, trips=7)

    def test_a_key_that_works_ends_the_wait_at_once(self) -> None:
        assert after(self.REVOKED, GOOD, before=None) == HalfOpen("api_key_invalid", 70, 7, tried_at=NOW_S, until=900)

    @pytest.mark.parametrize(("balance", "ends"), [(3.0, True), (0.0, False), (None, False)])
    def test_an_empty_account_waits_for_a_balance(self, balance: float | None, ends: bool) -> None:
        found = after(self.SPENT, GOOD, before=EMPTY, balance=balance)
        assert isinstance(found, HalfOpen) is ends

    def test_not_what_was_asked_before_it_opened(self) -> None:
        assert after(self.REVOKED, GOOD, before=None, began_at=69) == self.REVOKED


def test_a_wait_that_is_nearly_over_ends_by_itself() -> None:
    # A trial call that fails would take until after its end, and the next one would go later than without a check.
    nearly = Open("service_unavailable", 70, until=102)
    assert after(nearly, GOOD) == nearly
