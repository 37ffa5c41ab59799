"""A long rate limit of one reporter does not stop the fleet for hours, and the service checks each."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openrouter_guard.rules import evaluation, limits, trial_calls
from openrouter_guard.rules.admission import fleet_refusal
from openrouter_guard.rules.breaker import BreakerState, Closed, HalfOpen, Open, Policy
from openrouter_guard.rules.codec import encode, parse
from openrouter_guard.rules.health_checks import after_check, with_check_slot
from openrouter_guard.rules.limits import AGAIN_S, LONG_S, LOOK_S
from openrouter_guard.rules.loss import recovered
from openrouter_guard.rules.override import Override, OverrideKind
from openrouter_guard.rules.shared_state import Limit, SharedState, Upstream
from openrouter_guard.rules.signals import MAX_WAIT_S, NEUTRAL, SUCCESS, Effect, ErrorType, OpenRouterState, Signal
from openrouter_guard.rules.trial_calls import after_trial, holds_permit, with_permit

NOW_S = 1_772_366_400.0
POLICY = Policy()
DAY_S = 86_400.0
HOUR_S = 3600.0
FAILURE = Signal(Effect.FAILURE, ErrorType.SERVICE_UNAVAILABLE)


def told(record: SharedState, wait_s: float, by: str = "w1", at: float = 0.0) -> SharedState:
    signal = Signal(Effect.RATE_LIMIT, ErrorType.RATE_LIMITED, "slow down", 429, wait_s)
    return trial_calls.limited(record, signal, NOW_S + at, by=by)


def waits_s(record: SharedState, at: float = 0.0) -> float:
    blocked = fleet_refusal(record, NOW_S + at)
    return blocked[0] if blocked else 0.0


def succeeded(record: SharedState, at: float) -> SharedState:
    return replace(record, upstream=replace(record.upstream, last_success_at=NOW_S + at))


FLEET = SharedState(Closed(), epoch=1, live_reporters=5)
AGREED = told(told(FLEET, DAY_S), DAY_S, by="w2")
"""Two of them say that the day is over."""


@pytest.mark.parametrize("wait_s", [0.0, 30.0, LONG_S])
def test_a_short_limit_stands_at_once(wait_s: float) -> None:
    after = told(FLEET, wait_s)
    assert waits_s(after) == wait_s
    assert after.limit == Limit()


def test_a_long_one_of_one_reporter_holds_five_minutes() -> None:
    after = told(FLEET, DAY_S)
    assert waits_s(after) == LONG_S
    assert (after.upstream.state, after.upstream.message) == (OpenRouterState.RATE_LIMITED, "slow down")


def test_however_often_it_says_so_meanwhile() -> None:
    after = told(told(FLEET, DAY_S), DAY_S, at=60)
    assert waits_s(after, 60) == LONG_S


@pytest.mark.parametrize(
    ("first_s", "second_s", "stands_s"),
    [
        pytest.param(DAY_S, DAY_S, DAY_S, id="the same"),
        pytest.param(DAY_S, HOUR_S, HOUR_S, id="the second a shorter one"),
        pytest.param(HOUR_S, DAY_S, HOUR_S, id="the second a longer one"),
        pytest.param(DAY_S, 60.0, LONG_S, id="the second a short one"),
    ],
)
def test_it_stands_as_far_as_a_second_reporter_says_so(first_s: float, second_s: float, stands_s: float) -> None:
    after = told(told(FLEET, first_s), second_s, by="w2")
    assert waits_s(after) == stands_s


def test_a_third_one_agrees_with_the_longest() -> None:
    after = told(told(told(FLEET, DAY_S), HOUR_S, by="w2"), DAY_S / 2, by="w3")
    assert waits_s(after) == DAY_S / 2


def test_a_second_reporter_may_come_after_the_five_minutes() -> None:
    after = told(told(FLEET, DAY_S), DAY_S, by="w2", at=LONG_S + 1)
    assert waits_s(after, LONG_S + 1) == DAY_S - LONG_S - 1


class TestOneWorkerBehindABrokenProxy:
    AGAIN_S = LONG_S + 60
    WELL = succeeded(told(FLEET, DAY_S), LONG_S + 30)
    """The others' calls succeeded once they were let go."""

    def test_holds_the_fleet_once(self) -> None:
        assert waits_s(told(self.WELL, DAY_S, at=self.AGAIN_S), self.AGAIN_S) == 0
        assert told(self.WELL, DAY_S, at=self.AGAIN_S) == self.WELL

    def test_is_no_second_voice_either(self) -> None:
        after = told(self.WELL, DAY_S, by="w2", at=self.AGAIN_S)
        assert waits_s(after, self.AGAIN_S) == LONG_S

    def test_is_believed_where_it_is_the_only_one(self) -> None:
        alone = replace(self.WELL, live_reporters=1)
        assert waits_s(told(alone, DAY_S, at=self.AGAIN_S), self.AGAIN_S) == LONG_S

    def test_may_still_say_that_the_limit_is_short(self) -> None:
        assert waits_s(told(self.WELL, 60.0, at=self.AGAIN_S), self.AGAIN_S) == 60

    def test_is_believed_again_after_its_own_time(self) -> None:
        assert waits_s(told(self.WELL, DAY_S, at=DAY_S + 1), DAY_S + 1) == LONG_S


def test_calls_that_were_under_way_when_it_came_disprove_nothing() -> None:
    record = succeeded(told(FLEET, DAY_S), LONG_S - 1)
    assert waits_s(told(record, DAY_S, by="w2", at=LONG_S), LONG_S) == DAY_S - LONG_S


class TestTheServicesOwnCheck:
    def checked(self, record: SharedState, wait_s: float = 0.0, state: OpenRouterState | None = None) -> SharedState:
        found = Upstream(state or OpenRouterState.RATE_LIMITED, rate_limit_reset_at=NOW_S + wait_s if wait_s else 0.0)
        return after_check(record, found, now=NOW_S, policy=POLICY, by="service", reporter="c1")

    @pytest.mark.parametrize(("wait_s", "stands_s"), [(0.0, DAY_S), (DAY_S, DAY_S), (HOUR_S, HOUR_S)])
    def test_is_a_second_voice_where_it_meets_one_too(self, wait_s: float, stands_s: float) -> None:
        assert waits_s(self.checked(told(FLEET, DAY_S), wait_s)) == stands_s

    def test_alone_holds_five_minutes_too(self) -> None:
        assert waits_s(self.checked(FLEET, DAY_S)) == LONG_S

    def test_a_key_that_works_says_nothing_of_calls(self) -> None:
        assert waits_s(self.checked(told(FLEET, DAY_S), state=OpenRouterState.ACTIVE)) == LONG_S
        assert waits_s(self.checked(AGREED, state=OpenRouterState.ACTIVE)) == DAY_S

    def test_is_made_at_once_and_then_every_few_minutes(self) -> None:
        claim = told(FLEET, DAY_S)
        assert with_check_slot(claim, now=NOW_S, slot_s=60, policy=POLICY)
        after = self.checked(AGREED)
        checked = replace(after, upstream=replace(after.upstream, checked_at=NOW_S), check_slot_at=0.0)
        assert not with_check_slot(checked, now=NOW_S + LOOK_S - 1, slot_s=60, policy=POLICY)
        assert with_check_slot(checked, now=NOW_S + LOOK_S, slot_s=60, policy=POLICY)

    def test_is_not_made_while_a_short_one_stands(self) -> None:
        assert not with_check_slot(told(FLEET, 60.0), now=NOW_S, slot_s=60, policy=POLICY)


class TestALongLimitIsLookedAt:
    DUE_S = NOW_S + LOOK_S
    LOOKED = with_permit(AGREED, "w3/1", now=DUE_S, policy=POLICY) or SharedState()

    def after(self, signal: Signal, owner: str = "w3/1") -> SharedState:
        return after_trial(self.LOOKED, signal, owner, now=self.DUE_S + 1, policy=POLICY)

    def test_by_nobody_in_the_first_minutes(self) -> None:
        assert with_permit(AGREED, "w3/1", now=self.DUE_S - 1, policy=POLICY) is None

    def test_by_one_call_at_a_time(self) -> None:
        assert holds_permit(self.LOOKED, "w3/1")
        assert not limits.is_look_due(self.LOOKED, self.DUE_S)
        assert with_permit(self.LOOKED, "w4/1", now=self.DUE_S, policy=POLICY) is None

    def test_by_another_one_where_that_was_not_heard_of_again(self) -> None:
        later = with_permit(self.LOOKED, "w4/1", now=self.DUE_S + LOOK_S, policy=POLICY)
        assert later
        assert holds_permit(later, "w4/1")
        assert not holds_permit(later, "w3/1")

    def test_a_success_ends_it(self) -> None:
        after = self.after(SUCCESS)
        assert fleet_refusal(after, self.DUE_S + 1) is None
        assert (after.upstream.state, after.limit) == (OpenRouterState.ACTIVE, Limit())

    def test_a_limit_once_more_leaves_it(self) -> None:
        limited = told(self.LOOKED, DAY_S - LOOK_S, by="w3", at=LOOK_S)
        limit = Signal(Effect.RATE_LIMIT, ErrorType.RATE_LIMITED)
        after = after_trial(limited, limit, "w3/1", now=self.DUE_S, policy=POLICY)
        assert waits_s(after, LOOK_S) == DAY_S - LOOK_S
        assert not limits.is_look_due(after, self.DUE_S + LOOK_S - 1)
        assert limits.is_look_due(after, self.DUE_S + LOOK_S)

    def test_a_failure_leaves_it(self) -> None:
        after = self.after(FAILURE)
        assert waits_s(after, LOOK_S + 1) == waits_s(self.LOOKED, LOOK_S + 1)
        assert not limits.is_look_due(after, self.DUE_S + AGAIN_S)

    def test_one_that_says_nothing_lets_another_one_try(self) -> None:
        after = self.after(NEUTRAL)
        assert limits.is_look_due(after, self.DUE_S + 1 + AGAIN_S)

    def test_somebody_elses_success_leaves_it(self) -> None:
        assert self.after(SUCCESS, owner="w9/1") == self.LOOKED

    def test_a_short_one_is_not(self) -> None:
        assert not limits.is_look_due(told(FLEET, LONG_S), NOW_S + LONG_S - 1)

    def test_nor_one_while_a_person_decides(self) -> None:
        forced = replace(AGREED, override=Override(OverrideKind.FORCED_CLOSED, "me", "why", NOW_S + DAY_S))
        assert with_permit(forced, "w3/1", now=self.DUE_S, policy=POLICY) is None

    def test_nor_one_under_an_open_breaker(self) -> None:
        opened = replace(AGREED, breaker=Open("timeout", NOW_S, self.DUE_S + 60))
        assert with_permit(opened, "w3/1", now=self.DUE_S, policy=POLICY) is None

    def test_a_half_open_breaker_closes_with_it(self) -> None:
        half_open = replace(AGREED, breaker=HalfOpen("timeout", NOW_S, 1))
        looked = with_permit(half_open, "w3/1", now=self.DUE_S, policy=POLICY)
        assert looked
        assert with_permit(looked, "w4/1", now=self.DUE_S, policy=POLICY) is None
        after = after_trial(looked, SUCCESS, "w3/1", now=self.DUE_S, policy=POLICY)
        assert after.phase(self.DUE_S) is BreakerState.CLOSED
        assert fleet_refusal(after, self.DUE_S) is None

    def test_one_that_another_writer_left_is_too(self) -> None:
        stored = replace(FLEET, upstream=Upstream(rate_limit_reset_at=NOW_S + DAY_S))
        after = evaluation.evaluate(stored, now=NOW_S, policy=POLICY, by="me")
        assert limits.is_look_due(after, self.DUE_S)
        assert evaluation.evaluate(after, now=NOW_S + 1, policy=POLICY, by="me") == after

    def test_the_next_one_begins_anew(self) -> None:
        over_s = DAY_S + 60
        again = told(told(self.LOOKED, DAY_S, at=over_s), DAY_S, by="w2", at=over_s)
        assert not limits.is_look_due(again, NOW_S + over_s + LOOK_S - 1)
        assert limits.is_look_due(again, NOW_S + over_s + LOOK_S)


def test_what_stands_behind_it_survives_redis_and_a_loss() -> None:
    looked = TestALongLimitIsLookedAt.LOOKED
    assert parse(encode(looked), NOW_S + LOOK_S).limit == looked.limit
    again = recovered(looked, None, NOW_S + LOOK_S, POLICY)
    assert again is not None
    assert (again.limit, waits_s(again)) == (looked.limit, DAY_S)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 5000, "null", "[]", '{"look_s": 1e999, "until_s": "nan", "at_s": true}',
        '{"look_s": 99999999999, "until_s": 99999999999, "at_s": 99999999999, "by": 7, "looker": []}',
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_nothing(text: str) -> None:
    found = parse(encode(FLEET) | {"limit": text}, NOW_S).limit
    assert replace(found, by="") == Limit()


STEP = st.tuples(st.sampled_from(["w1", "w2", "w3"]), st.floats(0, MAX_WAIT_S), st.floats(0, 2 * LONG_S))


@given(first=STEP, others=st.lists(STEP, max_size=9))
def test_one_voice_alone_never_holds_longer_than_five_minutes(
    first: tuple[str, float, float], others: list[tuple[str, float, float]]
) -> None:
    record, at, longest_s = FLEET, 0.0, dict[str, float]()
    for by, wait_s, passed_s in (first, *others):
        at += passed_s
        record = told(record, wait_s, by, at)
        longest_s[by] = max(longest_s.get(by, 0.0), at + wait_s)
        agreed_s = sorted(longest_s.values())[-2] if len(longest_s) > 1 else 0.0
        assert at + waits_s(record, at) <= max(at + LONG_S, agreed_s) + 1e-3
        assert parse(encode(record), NOW_S + at).limit.by == record.limit.by
