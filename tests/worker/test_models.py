"""A model with failing providers stops its own calls and no others."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import redis

from openrouter_guard import CallNotPermitted, Guard, Settings
from openrouter_guard.rules.breaker import BreakerState, Policy
from openrouter_guard.rules.models import FINE_KEPT, Model
from tests.waiting import until

pytestmark = pytest.mark.slow

DOWN = {"error": {"code": 502, "message": "down", "metadata": {"provider_name": "Acme"}}}
CAPPED = {"error": {"code": 429, "message": "Rate limit exceeded: free-models-per-day"}}


@pytest.fixture
def guard(redis_url: str) -> Iterator[Guard]:
    with Guard(Settings(redis_url)) as guard:
        yield guard


@pytest.fixture
def other(redis_url: str) -> Iterator[Guard]:
    with Guard(Settings(redis_url)) as other:
        yield other


def call(guard: Guard, model: str | None, status_code: int = 200, body: Any = None) -> None:
    with guard.call(model) as made:
        made.answered(status_code, body=body)


def is_refused(guard: Guard, model: str | None) -> bool:
    try:
        call(guard, model)
    except CallNotPermitted:
        return True
    return False


def failures(guard: Guard, model: str) -> int:
    """As this worker knows them: a call that went through would end the run."""
    return guard._core.view.models.get(model, Model()).failures


def fail(guard: Guard, model: str | None, times: int) -> None:
    for _ in range(times):
        call(guard, model, 502, DOWN)
    guard.flush()


def test_its_calls_wait_in_the_whole_fleet_and_others_go(guard: Guard, other: Guard) -> None:
    call(other, "works")
    other.flush()
    call(guard, "works")
    guard.flush()
    fail(guard, "broken", 5)
    until(lambda: is_refused(other, "broken"))
    assert is_refused(guard, "broken")
    assert not is_refused(guard, "works")
    assert not is_refused(guard, None)
    assert (guard.state.phase, guard.state.failures) == (BreakerState.CLOSED, 0)


def test_once_the_wait_is_over_few_try_until_a_call_has_succeeded(redis_url: str) -> None:
    settings = Settings(redis_url, policy=Policy(cooldown_s=3.0, permits=1))
    with ExitStack() as guards:
        fleet = [guards.enter_context(Guard(settings)) for _ in range(8)]
        for each in fleet:
            call(each, "works")
            each.flush()
        fail(fleet[0], "broken", 5)
        until(lambda: all(failures(each, "broken") == 5 for each in fleet))
        until(lambda: not any(each._core.view.model_refusal("broken") for each in fleet))
        with ExitStack() as under_way:
            assert sum(_went(each, under_way) for each in fleet) <= 4
            until(lambda: any(_went(each, under_way) for each in fleet))
        # One that succeeds lets the others know within a moment, though successes may wait.
        until(lambda: all(failures(each, "broken") == 0 for each in fleet), seconds=12)
        assert not any(is_refused(each, "broken") for each in fleet)


def _went(guard: Guard, under_way: ExitStack) -> bool:
    try:
        under_way.enter_context(guard.call("broken"))
    except CallNotPermitted as refused:
        assert refused.reason == "recovering"  # noqa: PT017  what else it may be, no test is of
        return False
    return True


def test_where_a_second_one_fails_so_it_is_the_upstream(guard: Guard) -> None:
    call(guard, "works")
    fail(guard, "broken", 4)
    assert guard.state.failures == 0
    call(guard, "another", 502, DOWN)
    guard.flush()
    assert guard.state.failures == 1


@pytest.mark.parametrize("model", ["the only one", None])
def test_a_fleet_with_one_model_is_stopped_by_it(guard: Guard, model: str | None) -> None:
    fail(guard, model, 5)
    until(lambda: guard.state.phase is BreakerState.OPEN)


def test_the_cap_of_the_free_models_leaves_the_others(guard: Guard, other: Guard) -> None:
    call(guard, "a:free", 429, CAPPED)
    guard.flush()
    until(lambda: is_refused(other, "b:free"))
    assert not is_refused(other, "a")
    with pytest.raises(CallNotPermitted) as refused:
        call(other, "b:free")
    assert refused.value.reason == "rate_limited"
    assert refused.value.retry_after_s == pytest.approx(86_400 - time.time() % 86_400, abs=5)


def test_without_redis_it_waits_too() -> None:
    with Guard(Settings("redis://127.0.0.1:1/0")) as alone:
        call(alone, "works")
        for _ in range(5):
            call(alone, "broken", 502, DOWN)
        until(lambda: failures(alone, "broken") == 5)
        assert is_refused(alone, "broken")
        assert not is_refused(alone, "works")


HALF = "openai/gpt-4o\ud83d"
"""As half an emoji in a client's request, cut off by a limit of characters, makes it."""


def test_a_name_with_half_a_character_is_reported_like_any_other(guard: Guard, other: Guard) -> None:
    call(guard, "works")
    half = {"error": {"code": 502, "message": "down \ud83d", "metadata": {"provider_name": "Acme \ud83d"}}}
    for _ in range(5):
        call(guard, HALF, 502, half)
    guard.flush()
    until(lambda: is_refused(other, HALF))
    assert not is_refused(other, "openai/gpt-4o")


def test_names_of_users_who_mistyped_are_not_kept(guard: Guard, redis_url: str) -> None:
    for number in range(3_000):
        call(guard, f"user/typed-this-{number}", 404)
    guard.flush()
    assert redis.Redis.from_url(redis_url).hgetall("openrouter:models") == {}


def test_ten_thousand_names_keep_nobody_from_noticing_an_outage(guard: Guard, other: Guard, redis_url: str) -> None:
    for number in range(10_000):
        call(guard, f"user-{number}/model")
    for _ in range(5):
        call(guard, "openai/gpt-4o", 503)
    guard.flush()
    assert guard.state.phase is BreakerState.OPEN
    until(lambda: other.state.phase is BreakerState.OPEN)
    assert redis.Redis.from_url(redis_url).hlen("openrouter:models") <= FINE_KEPT
