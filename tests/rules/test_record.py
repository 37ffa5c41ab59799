"""Changes of the shared state, at 100 s on the Redis clock."""

import json
from dataclasses import replace

import pytest

from openrouter_guard.rules import admission, evaluation, health_checks, shared_state, transitions, trial_calls
from openrouter_guard.rules.breaker import Breaker, BreakerState, Closed, HalfOpen, Open, Policy
from openrouter_guard.rules.evaluation import evaluate
from openrouter_guard.rules.loss import recovered
from openrouter_guard.rules.shared_state import News, SharedState, Upstream
from openrouter_guard.rules.signals import NEUTRAL, SUCCESS, Effect, ErrorType, OpenRouterState, Signal

NOW_S = 100.0
POLICY = Policy(first_wait_s=10, longest_wait_s=30, jitter=0, permit_lease_s=15)
TIMEOUT = Signal(Effect.FAILURE, ErrorType.TIMEOUT)
LIMIT = Signal(Effect.RATE_LIMIT, ErrorType.RATE_LIMITED, wait_s=30)
ONE = frozenset({"wa"})
THREE = frozenset({"wa", "wb", "wc"})


def settle(record: SharedState) -> SharedState:
    return evaluate(record, now=NOW_S, policy=POLICY, by="me")


@pytest.mark.parametrize(
    ("breaker", "live", "expected"),
    [
        pytest.param(Closed(4, ONE), 1, BreakerState.CLOSED, id="four failures are not enough"),
        pytest.param(Closed(5, ONE), 1, BreakerState.OPEN, id="the fifth in a row opens"),
        pytest.param(Closed(50, ONE), 3, BreakerState.CLOSED, id="one worker with a bad payload stops nobody"),
        pytest.param(Closed(5, THREE), 100, BreakerState.OPEN, id="three reporters are enough for any fleet"),
        pytest.param(Closed(5, frozenset({"wa", "wb"})), 2, BreakerState.OPEN, id="two, where two live"),
    ],
)
def test_enough_failures_from_enough_reporters_open_the_breaker(
    breaker: Closed, live: int, expected: BreakerState
) -> None:
    assert settle(SharedState(breaker, epoch=7, live_reporters=live)).phase(NOW_S) is expected


@pytest.mark.parametrize(
    ("shares", "live", "calls_per_minute", "expected"),
    [
        pytest.param(
            {"wa": 100, "wb": 1, "wc": 1}, 200, 0.0, BreakerState.CLOSED, id="one that loops, and two by chance"
        ),
        pytest.param({"wa": 2, "wb": 2, "wc": 1}, 200, 0.0, BreakerState.OPEN, id="three that fail"),
        pytest.param(
            {"wa": 100, "wb": 2, "wc": 1}, 3, 0.0, BreakerState.OPEN, id="one that loops, and others that fail too"
        ),
        pytest.param(
            {"wa": 3, "wb": 3, "wc": 1}, 200, 400.0, BreakerState.CLOSED, id="a busy fleet: three of each count"
        ),
        pytest.param({"wa": 3, "wb": 3, "wc": 2}, 200, 400.0, BreakerState.OPEN, id="a busy fleet: eight count"),
        pytest.param(
            {"wa": 9, "wb": 1}, 2, 0.0, BreakerState.CLOSED, id="two live: one of them is half of it and no more"
        ),
        pytest.param({"wa": 9, "wb": 2}, 2, 0.0, BreakerState.OPEN, id="two live, and both fail"),
        pytest.param({"wa": 5}, 1, 0.0, BreakerState.OPEN, id="one lives: its failures are all there are"),
        pytest.param(
            {"wa": 5, "c1": 1}, 2, 0.0, BreakerState.OPEN, id="one lives, and a health check agrees with it"
        ),
        pytest.param(
            {"wa": 9, "wb": 1, "c1": 1}, 200, 0.0, BreakerState.CLOSED, id="a check by chance, as any other"
        ),
        pytest.param({f"w{n}": 1 for n in range(5)}, 200, 0.0, BreakerState.OPEN, id="one each of five"),
    ],
)
def test_no_reporter_counts_for_more_than_its_share(
    shares: dict[str, int], live: int, calls_per_minute: float, expected: BreakerState
) -> None:
    breaker = Closed(sum(shares.values()), frozenset(list(shares)[:3]), shares=shares)
    record = SharedState(breaker, epoch=7, live_reporters=live, calls_per_minute=calls_per_minute)
    assert settle(record).phase(NOW_S) is expected


def test_failures_that_nobody_signed_count_each() -> None:
    assert (
        settle(SharedState(Closed(5, THREE, shares={"wa": 1}), epoch=7, live_reporters=3)).phase(NOW_S)
        is BreakerState.OPEN
    )


def test_a_success_ends_all_shares() -> None:
    record = SharedState(epoch=7, live_reporters=3)
    for reporter in ("wa", "wa", "wb"):
        record = evaluation.counted(record, TIMEOUT, reporter)
    assert isinstance(record.breaker, Closed)
    assert record.breaker.shares == {"wa": 2, "wb": 1}
    after = evaluation.counted(record, SUCCESS, "wa").breaker
    assert isinstance(after, Closed)
    assert (after.failures, after.shares) == (0, {})


class TestANetworkThatMayBeOneWorkersOwn:
    UNREACHABLE = Upstream(OpenRouterState.ERROR, error_details=json.dumps({"error_type": "network_error"}))

    def seen(self, run: frozenset[str], live: int, failures: int = 5, checked_at: float = 0.0) -> SharedState:
        upstream = replace(self.UNREACHABLE, checked_at=checked_at)
        return SharedState(Closed(failures, run), epoch=7, live_reporters=live, upstream=upstream)

    def test_stops_nobody_where_one_worker_reports_and_a_check_is_asked_for(self) -> None:
        after = settle(self.seen(ONE, live=1))
        assert (after.phase(NOW_S), after.check_wanted_at) == (BreakerState.CLOSED, NOW_S)
        assert health_checks.wants_check(after, now=NOW_S, policy=POLICY)

    def test_is_asked_about_once_a_minute(self) -> None:
        asked = self.seen(ONE, live=1, checked_at=NOW_S - 59)
        assert settle(asked) is asked

    def test_is_not_asked_about_before_the_threshold(self) -> None:
        few = self.seen(ONE, live=1, failures=4)
        assert settle(few) is few

    @pytest.mark.parametrize("other", ["wb", "c1"], ids=["another worker", "the service's check"])
    def test_opens_the_breaker_once_another_does_not_get_through(self, other: str) -> None:
        assert settle(self.seen(ONE | {other}, live=2)).phase(NOW_S) is BreakerState.OPEN

    def test_opens_it_for_a_worker_that_is_alone(self) -> None:
        alone = evaluate(self.seen(ONE, live=100), now=NOW_S, policy=POLICY.alone, by="me")
        assert alone.phase(NOW_S) is BreakerState.OPEN


@pytest.mark.parametrize(("failures", "expected"), [(7, BreakerState.CLOSED), (8, BreakerState.OPEN)])
def test_a_busy_fleet_opens_later(failures: int, expected: BreakerState) -> None:
    busy = SharedState(Closed(failures, THREE), epoch=7, live_reporters=200, calls_per_minute=400)
    assert settle(busy).phase(NOW_S) is expected


def test_the_opening_says_why_who_and_when() -> None:
    upstream = Upstream(OpenRouterState.ERROR, error_details=json.dumps({"error_type": "timeout"}))
    after = settle(SharedState(Closed(5, ONE), epoch=7, upstream=upstream))
    assert after.breaker == Open("timeout", NOW_S, NOW_S + 10, 1, 5)
    assert after.epoch == 8
    assert after.transitions == (
        shared_state.Transition(8, BreakerState.CLOSED, BreakerState.OPEN, "timeout", "me", NOW_S),
    )


def test_a_first_epoch_is_the_servers_clock_so_that_it_never_repeats() -> None:
    assert settle(SharedState(Closed(5, ONE))).epoch == 100_000


def test_the_wait_is_a_little_longer_by_lot_and_never_shorter() -> None:
    policy = replace(POLICY, jitter=0.1)
    openings = [SharedState(Closed(5, ONE), epoch=epoch) for epoch in range(1_000, 1_100)]
    opened = [evaluate(record, now=NOW_S, policy=policy, by="me").breaker for record in openings]
    waits_s = [breaker.until - NOW_S for breaker in opened if isinstance(breaker, Open)]
    assert all(10 <= wait_s <= 11 for wait_s in waits_s)
    assert len({round(wait_s, 1) for wait_s in waits_s}) > 5
    # Whoever decides on the same record comes to the same.
    assert [evaluate(record, now=NOW_S, policy=policy, by="you").breaker for record in openings] == opened


class TestOlderWriters:
    """They change ``circuit_breaker_open`` and know of no epoch."""

    def test_their_true_opens_the_breaker_for_everybody(self) -> None:
        after = settle(SharedState(Closed(5), epoch=7, legacy_open=True))
        assert after.phase(NOW_S) is BreakerState.OPEN
        assert after.legacy_open is None

    def test_their_false_closes_nothing_while_the_time_lies_ahead(self) -> None:
        breaker = Open("rate_limited", 90, 101)
        after = settle(SharedState(breaker, epoch=7, legacy_open=False, upstream=Upstream(OpenRouterState.ACTIVE)))
        assert after.breaker == breaker
        assert after.upstream.state is OpenRouterState.RATE_LIMITED

    @pytest.mark.parametrize("breaker", [Open("error", 90, 99), HalfOpen("error", 90)])
    def test_after_that_a_call_of_theirs_that_succeeded_closes_it(self, breaker: Breaker) -> None:
        after = settle(SharedState(breaker, epoch=7, legacy_open=False, legacy_news=News.CALL))
        assert (after.phase(NOW_S), after.epoch) == (BreakerState.CLOSED, 8)

    @pytest.mark.parametrize("breaker", [Open("error", 90, 99), HalfOpen("error", 90)])
    def test_whatever_else_they_write_closes_nothing(self, breaker: Breaker) -> None:
        after = settle(SharedState(breaker, epoch=7, legacy_open=False))
        assert (after.breaker, after.epoch, after.legacy_open) == (breaker, 7, None)

    def test_two_good_checks_of_theirs_close_it_on_probation_as_two_of_ours_would(self) -> None:
        checked = SharedState(HalfOpen("error", 20, tried_at=30), epoch=7, legacy_open=False, legacy_news=News.CHECK)
        once = settle(checked)
        assert (once.phase(NOW_S), once.good_checks) == (BreakerState.HALF_OPEN, 1)
        twice = settle(replace(once, legacy_open=False, legacy_news=News.CHECK))
        assert twice.breaker == Closed(trips=1, since=NOW_S, on_probation=True)

    def test_their_checks_tell_nothing_of_an_empty_account(self) -> None:
        breaker = HalfOpen("credits_exhausted", 20, tried_at=30)
        checked = SharedState(breaker, epoch=7, legacy_open=False, legacy_news=News.CHECK, good_checks=5)
        assert settle(checked).breaker == breaker

    def test_what_they_say_is_well_is_put_right_in_one_piece(self) -> None:
        said = Upstream(OpenRouterState.ACTIVE, "Service active", last_success_at=99)
        after = settle(SharedState(Open("timeout", 90, 101, failures=5), epoch=7, legacy_open=False, upstream=said))
        assert (after.upstream.state, after.upstream.message) == (OpenRouterState.ERROR, "Worker reported: timeout")
        assert (after.breaker.failures, after.upstream.last_success_at) == (5, 99)


class TestTrialCalls:
    HALF_OPEN = SharedState(HalfOpen("error", 90, permits={"me": 110.0}), epoch=7)

    def after(self, signal: Signal, owner: str = "me") -> SharedState:
        return trial_calls.after_trial(self.HALF_OPEN, signal, owner, now=NOW_S, policy=POLICY)

    def test_a_success_closes(self) -> None:
        after = self.after(SUCCESS)
        assert (after.phase(NOW_S), after.epoch, after.breaker.failures) == (BreakerState.CLOSED, 8, 0)
        assert after.upstream.state is OpenRouterState.ACTIVE

    def test_a_failure_opens_again_for_longer(self) -> None:
        after = self.after(TIMEOUT)
        assert after.breaker == Open("timeout", 90, NOW_S + 10, 2)
        assert after.epoch == 8

    def test_the_callers_own_mistake_gives_the_permit_back(self) -> None:
        after = self.after(NEUTRAL)
        assert after.breaker == HalfOpen("error", 90)
        assert after.epoch == 7

    def test_a_call_whose_permit_is_gone_decides_nothing(self) -> None:
        assert self.after(SUCCESS, owner="somebody else") == self.HALF_OPEN

    def test_one_that_meets_a_rate_limit_gives_its_permit_back_and_decides_nothing(self) -> None:
        assert self.after(LIMIT).breaker == HalfOpen("error", 90)
        assert self.after(LIMIT).epoch == 7

    def test_one_that_meets_a_rate_limit_without_an_end_is_a_failure(self) -> None:
        after = self.after(Signal(Effect.FAILURE, ErrorType.RATE_LIMITED))
        assert after.phase(NOW_S) is BreakerState.OPEN

    def test_while_a_rate_limit_lasts_none_begins(self) -> None:
        limited = trial_calls.limited(self.HALF_OPEN, LIMIT, NOW_S)
        assert trial_calls.with_permit(limited, "you", now=NOW_S + 29, policy=POLICY) is None
        assert trial_calls.with_permit(limited, "you", now=NOW_S + 30, policy=POLICY) is not None

    def test_one_that_was_out_before_the_limit_keeps_its_permit(self) -> None:
        limited = trial_calls.limited(self.HALF_OPEN, LIMIT, NOW_S)
        renewed = trial_calls.with_permit(limited, "me", now=NOW_S + 5, policy=POLICY)
        assert renewed is not None
        assert renewed.breaker == HalfOpen("error", 90, permits={"me": NOW_S + 20}, tried_at=NOW_S + 5)

    def test_one_that_succeeds_does_not_end_the_rate_limit_of_another(self) -> None:
        limited = trial_calls.limited(self.HALF_OPEN, LIMIT, NOW_S)
        after = trial_calls.after_trial(limited, SUCCESS, "me", now=NOW_S, policy=POLICY)
        assert after.phase(NOW_S) is BreakerState.CLOSED
        assert admission.fleet_refusal(after, NOW_S) == (30, "rate_limited")

    def test_a_late_trial_does_not_touch_a_closed_breaker(self) -> None:
        closed = SharedState(Closed(2, ONE), epoch=8)
        assert trial_calls.after_trial(closed, TIMEOUT, "me", now=NOW_S, policy=POLICY) == closed

    def test_the_first_permit_turns_open_into_half_open(self) -> None:
        record = SharedState(Open("error", 90, 99), epoch=7)
        after = trial_calls.with_permit(record, "me", now=NOW_S, policy=POLICY)
        assert after is not None
        assert (after.epoch, after.transitions[-1].before, after.transitions[-1].after) == (
            8,
            BreakerState.OPEN,
            BreakerState.HALF_OPEN,
        )

    def test_the_next_permit_is_no_transition(self) -> None:
        after = trial_calls.with_permit(self.HALF_OPEN, "you", now=NOW_S, policy=POLICY)
        assert after is not None
        assert after.epoch == 7


class TestLoss:
    """A missing key means lost, not closed."""

    OPEN = SharedState(Open("error", 90, 200), epoch=7)

    def test_an_open_breaker_that_redis_lost_is_committed_again(self) -> None:
        assert recovered(self.OPEN, None, NOW_S, POLICY) == replace(self.OPEN, epoch=100_000, timed_until=NOW_S)

    def test_so_it_is_over_an_older_epoch(self) -> None:
        assert recovered(self.OPEN, SharedState(epoch=6), NOW_S, POLICY) is not None

    def test_a_closed_one_that_a_failover_took_back_is_committed_again(self) -> None:
        closed = SharedState(Closed(2, ONE), epoch=9)
        assert recovered(closed, replace(self.OPEN, epoch=8), NOW_S, POLICY) == replace(closed, epoch=100_000)
        assert recovered(closed, replace(self.OPEN, epoch=9), NOW_S, POLICY) is None

    def test_a_newer_record_stands(self) -> None:
        assert recovered(self.OPEN, SharedState(epoch=8), NOW_S, POLICY) is None

    def test_so_it_is_over_a_record_that_somebody_began_anew_whatever_its_epoch(self) -> None:
        opened = transitions.now_open(SharedState(epoch=7), "error", "me", NOW_S, POLICY)
        assert recovered(opened, shared_state.fresh(NOW_S + 1), NOW_S + 2, POLICY) == replace(opened, epoch=102_000)
        closed = transitions.now_closed(opened, "me", NOW_S + 1)
        assert recovered(opened, closed, NOW_S + 2, POLICY) is None

    def test_a_rate_limit_that_redis_lost_stands_until_it_is_over(self) -> None:
        limited = SharedState(Closed(3), epoch=7, upstream=Upstream(rate_limit_reset_at=NOW_S + 30))
        assert recovered(limited, None, NOW_S, POLICY) == replace(limited, epoch=100_000, timed_until=NOW_S)
        assert recovered(limited, None, NOW_S + 30, POLICY) is None

    def test_a_closed_breaker_that_expired_is_no_loss(self) -> None:
        assert recovered(SharedState(Closed(3), epoch=7), None, NOW_S, POLICY) is None


class TestRateLimit:
    def test_calls_wait_and_the_breaker_stays_closed(self) -> None:
        after = trial_calls.limited(
            SharedState(), Signal(Effect.RATE_LIMIT, ErrorType.RATE_LIMITED, wait_s=30), NOW_S
        )
        assert admission.fleet_refusal(after, NOW_S) == (30, "rate_limited")
        assert admission.fleet_refusal(after, NOW_S + 30) is None
        assert after.phase(NOW_S) is BreakerState.CLOSED

    def test_the_longer_wait_wins(self) -> None:
        record = SharedState(upstream=Upstream(rate_limit_reset_at=150))
        after = trial_calls.limited(record, Signal(Effect.RATE_LIMIT, wait_s=1), NOW_S)
        assert after.upstream.rate_limit_reset_at == 150


def checked(record: SharedState, found: Upstream) -> SharedState:
    return health_checks.after_check(record, found, now=NOW_S, policy=POLICY, by="service")


class TestProbation:
    """Where nobody is there to make a trial call, a pause must not last for ever. The trial wait is 60 s."""

    GOOD = Upstream(OpenRouterState.ACTIVE, balance=3.0)
    BAD = Upstream(OpenRouterState.SERVICE_UNAVAILABLE)
    IDLE = SharedState(Open("timeout", 10, until=NOW_S - 60, trips=2), epoch=7)

    def test_two_good_checks_in_a_row_close_it(self) -> None:
        once = checked(self.IDLE, self.GOOD)
        assert (once.phase(NOW_S), once.good_checks) == (BreakerState.HALF_OPEN, 1)
        twice = checked(once, self.GOOD)
        assert twice.breaker == Closed(trips=2, since=NOW_S, on_probation=True)
        assert (twice.epoch, twice.transitions[-1].reason, twice.good_checks) == (8, "checks_succeeded", 0)

    def test_a_bad_one_between_them_begins_anew(self) -> None:
        after = checked(checked(checked(self.IDLE, self.GOOD), self.BAD), self.GOOD)
        assert (after.phase(NOW_S), after.good_checks) == (BreakerState.HALF_OPEN, 1)

    @pytest.mark.parametrize(
        "breaker",
        [
            pytest.param(Open("timeout", 10, until=NOW_S - 59), id="half-open for less than the trial wait"),
            pytest.param(HalfOpen("timeout", 10, tried_at=NOW_S - 59), id="a trial call not long ago"),
            pytest.param(HalfOpen("timeout", 10, permits={"me": NOW_S + 1}), id="a trial call under way"),
            pytest.param(Open("timeout", 10, until=NOW_S + 1), id="still open"),
        ],
    )
    def test_as_long_as_somebody_may_try_checks_close_nothing(self, breaker: Breaker) -> None:
        after = checked(replace(self.IDLE, breaker=breaker, good_checks=9), self.GOOD)
        assert after.breaker == breaker

    def test_a_good_one_while_it_is_open_is_not_the_first_of_two(self) -> None:
        still_open = replace(self.IDLE, breaker=Open("timeout", 10, until=NOW_S + 1))
        assert checked(still_open, self.GOOD).good_checks == 0

    @pytest.mark.parametrize(("balance", "closes"), [(None, False), (0.0, False), (0.1, True)])
    def test_an_empty_account_is_not_full_because_the_key_works(self, balance: float | None, closes: bool) -> None:
        empty = SharedState(Open("credits_exhausted", 10, until=NOW_S - 60), epoch=7)
        found = replace(self.GOOD, balance=balance)
        assert isinstance(checked(checked(empty, found), found).breaker, Closed) is closes

    def test_the_first_failure_opens_it_again_for_longer(self) -> None:
        on_probation = Closed(trips=2, since=NOW_S, on_probation=True)
        assert settle(SharedState(on_probation, epoch=8)).breaker == on_probation
        after = settle(SharedState(replace(on_probation, failures=1), epoch=8, live_reporters=50))
        assert isinstance(after.breaker, Open)
        assert (after.breaker.trips, after.breaker.until) == (3, NOW_S + 22.5)

    def test_the_first_success_ends_it(self) -> None:
        record = SharedState(
            Closed(trips=2, since=90, on_probation=True), upstream=Upstream(last_success_at=95), epoch=8
        )
        after = settle(record)
        assert after.breaker == Closed(trips=2, since=NOW_S)
        assert after.epoch == 8


class TestChecks:
    FOUND = Upstream(OpenRouterState.ACTIVE, "Service active", balance=3.0, checked_at=NOW_S)

    def check(self, record: SharedState) -> SharedState:
        return checked(record, self.FOUND)

    def test_a_check_brings_what_it_found(self) -> None:
        record = SharedState(upstream=Upstream(last_success_at=90, last_api_call_at=95))
        after = self.check(record).upstream
        assert after == replace(self.FOUND, last_success_at=90, last_api_call_at=95)

    @pytest.mark.parametrize(("known_s", "found_s"), [(150, 0), (150, 120), (120, 150)])
    def test_of_two_rate_limits_the_longer_stands(self, known_s: float, found_s: float) -> None:
        record = SharedState(upstream=Upstream(rate_limit_reset_at=known_s))
        after = checked(record, replace(self.FOUND, rate_limit_reset_at=found_s))
        assert after.upstream.rate_limit_reset_at == 150

    @pytest.mark.parametrize("breaker", [Closed(1, ONE), Open("error", 90, 200), HalfOpen("error", 90)])
    def test_a_good_key_does_not_overrule_what_workers_saw(self, breaker: Breaker) -> None:
        record = SharedState(breaker, upstream=Upstream(OpenRouterState.ERROR, "Worker reported: timeout"))
        after = self.check(record).upstream
        assert (after.state, after.message, after.balance) == (OpenRouterState.ERROR, "Worker reported: timeout", 3.0)

    def test_it_does_where_only_checks_had_failed(self) -> None:
        record = SharedState(Closed(1, frozenset({"cabc"})), upstream=Upstream(OpenRouterState.ERROR))
        assert self.check(record).upstream.state is OpenRouterState.ACTIVE

    @pytest.mark.parametrize(
        ("record", "is_ours"),
        [
            pytest.param(None, True, id="nothing known yet"),
            pytest.param(SharedState(check_slot_at=NOW_S), True, id="the slot is over"),
            pytest.param(SharedState(check_slot_at=NOW_S + 1), False, id="somebody has it"),
            pytest.param(SharedState(Open("error", 90, 105.1)), True, id="while open too"),
            pytest.param(SharedState(upstream=Upstream(rate_limit_reset_at=101)), False, id="nor while rate limited"),
        ],
    )
    def test_one_check_at_a_time_for_the_whole_fleet(self, record: SharedState | None, is_ours: bool) -> None:
        after = health_checks.with_check_slot(record, now=NOW_S, slot_s=60, policy=POLICY)
        assert (after is not None) is is_ours
        assert after is None or after.check_slot_at == NOW_S + 60
