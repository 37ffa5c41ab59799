"""A process that can start no thread, be it that there are too many or that it ends: its calls go all the same."""

from __future__ import annotations

import threading
from contextlib import suppress

import pytest

from openrouter_guard import AsyncGuard, CallNotPermitted, Guard
from openrouter_guard.store import Store
from tests.worker.guards import counters, fail, settings


def start(_thread: threading.Thread) -> None:
    """As Python says it, also while the interpreter ends."""
    raise RuntimeError("can't start new thread")


async def test_every_call_goes_and_raises_what_it_would_without_a_guard(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading.Thread, "start", start)
    guard, async_guard = Guard(settings(redis_url)), AsyncGuard(settings(redis_url))
    for _ in range(3):
        with guard.call():
            pass
        async with async_guard.call("some/model"):
            pass
    mine = ConnectionError("mine")
    with pytest.raises(ConnectionError) as caught, guard.call():
        raise mine
    assert caught.value is mine
    with guard.call() as call:
        call.answered(429, headers={"Retry-After": "30"})
    assert guard(lambda: 7)() == 7
    assert not guard.wait(timeout_s=0.05)
    guard.close()


async def test_it_is_said_once_and_all_is_told_as_soon_as_there_is_one(
    redis_url: str, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "openrouter_guard")
    guard = Guard(settings(redis_url))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        for _ in range(5):
            with suppress(TimeoutError), guard.call():
                raise TimeoutError
    fail(guard, 0)
    assert (await counters(store))["failed_calls"] == 5
    with pytest.raises(CallNotPermitted), guard.call():
        pytest.fail("the call was made")
    first, *others = caplog.messages
    assert first == "The background does not run, calls go unguarded: can't start new thread"
    assert others == ["Calls are guarded again"]
    guard.close()


async def test_the_next_call_tries_again(redis_url: str, store: Store) -> None:
    guard = Guard(settings(redis_url))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        with guard.call():
            pass
    with guard.call():
        pass
    assert [thread for thread in threading.enumerate() if thread.name == "openrouter-guard"]
    guard.close()
    assert (await counters(store))["successful_calls"] == 2
