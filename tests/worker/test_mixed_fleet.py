"""Existing workers and ours on one state: a fleet can be migrated one worker at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import redis

from openrouter_guard import CallNotPermitted, Guard, Settings
from openrouter_guard.rules.breaker import BreakerState, Policy
from tests.existing import FIELDS, STATE, ExistingWorker
from tests.waiting import until

pytestmark = pytest.mark.slow


@pytest.fixture
def guard(redis_url: str) -> Iterator[Guard]:
    with Guard(Settings(redis_url, policy=Policy(reset_timeout_s=60))) as guard:
        yield guard


@pytest.fixture
def quick(redis_url: str) -> Iterator[Guard]:
    """A guard whose breaker half-opens soon."""
    with Guard(Settings(redis_url, policy=Policy(reset_timeout_s=0.3))) as guard:
        yield guard


@pytest.fixture
def existing(redis_url: str) -> Iterator[ExistingWorker]:
    with ExistingWorker(redis_url) as worker:
        yield worker


@pytest.fixture
def client(redis_url: str) -> Iterator[Any]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


def fail(guard: Guard, times: int) -> None:
    for _ in range(times):
        with suppress(TimeoutError, CallNotPermitted), guard.call():
            raise TimeoutError
    guard.flush()


def fail_as_before(existing: ExistingWorker, times: int) -> None:
    for _ in range(times):
        assert existing.report_api_error()


def history(client: Any) -> list[tuple[str, str]]:
    return [(entry["from"], entry["to"]) for _, entry in client.xrange("openrouter:history")]


def test_when_ours_open_the_breaker_existing_workers_skip_their_calls(guard: Guard, existing: ExistingWorker) -> None:
    fail(guard, 5)
    until(existing.should_skip_api_call)
    assert guard.state.phase is BreakerState.OPEN


def test_when_existing_workers_open_it_ours_are_refused(guard: Guard, existing: ExistingWorker, client: Any) -> None:
    for _ in range(2):
        with guard.call():
            pass
        guard.flush()
        # They push nothing: what they write is noticed, and from then on looked for every second.
        assert existing.report_api_success()
    with guard.call():
        pass
    guard.flush()
    fail_as_before(existing, 5)
    until(lambda: guard.state.phase is BreakerState.OPEN)
    with pytest.raises(CallNotPermitted) as refused, guard.call():
        pytest.fail("the call was made")
    assert refused.value.reason == "service_unavailable"
    assert existing.should_skip_api_call()
    until(lambda: history(client) == [("closed", "open")])


@pytest.mark.parametrize("ours_first", [True, False])
def test_the_failures_of_both_are_one_run(guard: Guard, existing: ExistingWorker, *, ours_first: bool) -> None:
    if ours_first:
        fail(guard, 3)
        fail_as_before(existing, 2)
    else:
        fail_as_before(existing, 3)
        fail(guard, 2)
    until(lambda: guard.state.phase is BreakerState.OPEN)
    until(existing.should_skip_api_call)


@pytest.mark.parametrize("ours_fail", [True, False])
def test_a_success_of_either_ends_the_others_run(guard: Guard, existing: ExistingWorker, *, ours_fail: bool) -> None:
    if ours_fail:
        fail(guard, 4)
        assert existing.report_api_success()
    else:
        fail_as_before(existing, 4)
        with guard.call():
            pass
        guard.flush()
    fail(guard, 4)
    assert guard.state.phase is BreakerState.CLOSED
    assert not existing.should_skip_api_call()


def test_a_trial_call_of_ours_brings_existing_workers_back(
    quick: Guard, existing: ExistingWorker, client: Any
) -> None:
    fail_as_before(existing, 5)
    until(lambda: quick.state.phase is BreakerState.HALF_OPEN)
    assert existing.should_skip_api_call()
    with quick.call():
        pass
    until(lambda: not existing.should_skip_api_call())
    until(lambda: history(client) == [("closed", "open"), ("open", "half_open"), ("half_open", "closed")])


def test_once_the_time_has_passed_an_existing_workers_success_closes_it_for_ours(
    quick: Guard, existing: ExistingWorker, client: Any
) -> None:
    fail(quick, 5)
    until(lambda: quick.state.phase is BreakerState.HALF_OPEN)
    assert existing.report_api_success()
    until(lambda: quick.state.phase is BreakerState.CLOSED)
    with quick.call():
        pass
    until(lambda: history(client) == [("closed", "open"), ("open", "closed")])


def test_before_that_their_success_closes_nothing(guard: Guard, existing: ExistingWorker, client: Any) -> None:
    fail(guard, 5)
    until(lambda: client.hget(STATE, "open_until"))
    open_until = client.hget(STATE, "open_until")
    assert existing.report_api_success()
    until(existing.should_skip_api_call)
    assert client.hget(STATE, "open_until") == open_until
    # Their expiry would let an open breaker vanish early; ours is an hour after its end.
    until(lambda: client.ttl(STATE) > 3600)
    with pytest.raises(CallNotPermitted), guard.call():
        pytest.fail("the call was made")


def test_their_failures_while_it_is_open_change_nothing(guard: Guard, existing: ExistingWorker, client: Any) -> None:
    fail(guard, 5)
    until(lambda: client.hget(STATE, "open_until"))
    before = guard.state
    fail_as_before(existing, 3)
    guard.flush()
    assert (guard.state.phase, guard.state.epoch) == (BreakerState.OPEN, before.epoch)
    until(lambda: history(client) == [("closed", "open")])


def test_neither_loses_a_report_to_the_other(guard: Guard, existing: ExistingWorker, client: Any) -> None:
    """Existing workers drop a report while the lock is held: ours never hold it."""
    kept: list[bool] = []
    theirs = threading.Thread(target=lambda: kept.extend(existing.report_api_success() for _ in range(200)))
    theirs.start()
    for _ in range(200):
        with guard.call():
            pass
    theirs.join()
    guard.flush()
    (metrics,) = client.keys("openrouter:metrics:*")
    assert kept == [True] * 200
    assert client.hget(metrics, "successful_calls") == "400"


def test_existing_workers_leave_our_fields_and_we_keep_theirs(
    guard: Guard, existing: ExistingWorker, client: Any
) -> None:
    assert existing.report_api_success()
    client.hset(STATE, mapping={"balance": "12.5", "usage_today": "1.5"})
    fail(guard, 1)
    epoch = client.hget(STATE, "epoch")
    assert existing.report_api_error()
    fields = client.hgetall(STATE)
    assert (fields["epoch"], fields["consecutive_failures"]) == (epoch, "2")
    assert (fields["balance"], fields["usage_today"]) == ("12.5", "1.5")
    assert set(FIELDS) - fields.keys() == {"usage_month", "rate_limit_reset"}
