"""A fleet under a long rate limit: one report holds it for minutes, two for its length, and the service checks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace

import pytest

from openrouter_guard import CallNotPermitted, Guard
from openrouter_guard.rules.limits import LONG_S
from openrouter_guard.rules.shared_state import SharedState
from openrouter_guard.store import Store
from tests.ports import free_port
from tests.waiting import until
from tests.worker.guards import settings

pytestmark = pytest.mark.slow

DAY_S = 86_400.0
A_DAY = {"Retry-After": "90000"}


@pytest.fixture
def fleet(redis_url: str) -> Iterator[Sequence[Guard]]:
    """Five workers, all of them at work."""
    with ExitStack() as stack:
        guards = [stack.enter_context(Guard(settings(redis_url))) for _ in range(5)]
        for guard in guards:
            with guard.call():
                pass
            guard.flush()
        yield guards


def meets_a_limit(guard: Guard) -> None:
    with guard.call() as call:
        call.answered(429, headers=A_DAY)
    guard.flush()


def waits(fleet: Sequence[Guard], least_s: float, most_s: float) -> bool:
    return all(least_s < guard.state.retry_after_s <= most_s for guard in fleet)


def may_go(guard: Guard) -> bool:
    try:
        with guard.call():
            return True
    except CallNotPermitted:
        return False


async def agreed(fleet: Sequence[Guard], store: Store) -> None:
    """Two of them were told to wait a day, and it is time to look if that still holds."""
    with fleet[0].call() as first, fleet[1].call() as second:
        first.answered(429, headers=A_DAY)
        second.answered(429, headers=A_DAY)
    until(lambda: waits(fleet, DAY_S, 1.1 * DAY_S))

    def minutes_later(record: SharedState | None, now: float) -> SharedState | None:
        assert record is not None
        # The hold is written again, so that everybody looks.
        held = replace(record.upstream, rate_limit_reset_at=record.upstream.rate_limit_reset_at - 1)
        return replace(record, upstream=held, limit=replace(record.limit, retest_at=now - 1))

    await store.change(minutes_later)


def test_what_one_is_told_holds_all_for_five_minutes(fleet: Sequence[Guard]) -> None:
    meets_a_limit(fleet[0])
    until(lambda: waits(fleet, LONG_S - 30, LONG_S))
    assert not any(map(may_go, fleet))
    assert waits(fleet, LONG_S - 60, LONG_S)


async def test_one_call_looks_and_its_success_brings_all_back(fleet: Sequence[Guard], store: Store) -> None:
    await agreed(fleet, store)
    assert fleet[3].wait(timeout_s=5)
    assert not fleet[2].wait(timeout_s=0.2)
    with fleet[3].call():
        assert not any(map(may_go, fleet))
    until(lambda: waits(fleet, -1, 0))
    # Not all in the same instant.
    until(lambda: all(map(may_go, fleet)))


async def test_one_that_meets_the_limit_again_leaves_all_waiting(fleet: Sequence[Guard], store: Store) -> None:
    await agreed(fleet, store)
    assert fleet[3].wait(timeout_s=5)
    meets_a_limit(fleet[3])
    assert not any(map(may_go, fleet))
    assert waits(fleet, DAY_S, 1.1 * DAY_S)


async def test_one_that_fails_in_another_way_leaves_them_too(fleet: Sequence[Guard], store: Store) -> None:
    await agreed(fleet, store)
    assert fleet[3].wait(timeout_s=5)
    with pytest.raises(TimeoutError), fleet[3].call():
        raise TimeoutError
    fleet[3].flush()
    assert not any(map(may_go, fleet))


def test_a_worker_without_redis_waits_five_minutes_too() -> None:
    with Guard(settings(f"redis://127.0.0.1:{free_port()}/0")) as guard:
        with guard.call() as call:
            call.answered(429, headers=A_DAY)
        until(lambda: waits([guard], LONG_S - 60, LONG_S))
        assert not may_go(guard)
