"""The loop in the background, from the view of callers that wait for it."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator

import pytest

from openrouter_guard.worker.threads.loop_thread import LoopThread, ended


@pytest.fixture
def thread() -> Iterator[LoopThread]:
    thread = LoopThread("a test's", nothing, nothing)
    yield thread
    thread.end(1)
    thread.join(5)


async def nothing() -> None: ...


async def sleeps() -> None:
    await asyncio.sleep(60)


async def fails() -> None:
    raise LookupError("mine")


async def test_what_came_to_an_end_is_known_from_what_did_not(thread: LoopThread) -> None:
    assert await ended(thread.submit(nothing), 5)
    assert not await ended(thread.submit(sleeps), 0.01)


async def test_what_fails_is_told_to_who_asks_and_to_nobody_else(
    thread: LoopThread, caplog: pytest.LogCaptureFixture
) -> None:
    failing = thread.submit(fails)
    assert await ended(failing, 5)
    assert isinstance(failing.exception(), LookupError)
    del failing
    gc.collect()
    assert caplog.records == []


async def test_what_comes_too_late_is_cancelled() -> None:
    thread = LoopThread("a test's", nothing, nothing)
    waiting = thread.submit(sleeps)
    thread.end(1)
    thread.join(5)
    assert not await ended(waiting, 5)
    assert waiting.cancelled()
    late = thread.submit(fails)
    assert not await ended(late, 5)
    assert late.cancelled()
