"""``@guard``: each call of a function is a guarded call."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from openrouter_guard import AsyncGuard, CallNotPermitted, Guard
from tests.worker.guards import fail, settings


def test_a_function_is_called_as_before(guard: Guard) -> None:
    @guard
    def summary(text: str, *, words: int = 3) -> str:
        """A summary."""
        return " ".join(text.split()[:words])

    answer: str = summary("one two three four", words=2)
    assert answer == "one two"
    assert (summary.__name__, summary.__doc__) == ("summary", "A summary.")
    assert list(inspect.signature(summary).parameters) == ["text", "words"]


def test_what_it_raises_is_counted_and_comes_out(guard: Guard) -> None:
    @guard
    def slow() -> None:
        raise TimeoutError("mine")

    for _ in range(5):
        with pytest.raises(TimeoutError, match="mine"):
            slow()
    guard.flush()
    with pytest.raises(CallNotPermitted):
        slow()


async def test_a_coroutine_function_is_guarded_until_it_ends(redis_url: str) -> None:
    async with AsyncGuard(settings(redis_url)) as guard:

        @guard
        async def doubled(number: int) -> int:
            if number < 0:
                raise TimeoutError
            return 2 * number

        answer: int = await doubled(2)
        assert answer == 4
        assert inspect.iscoroutinefunction(doubled)
        for _ in range(5):
            with pytest.raises(TimeoutError):
                await doubled(-1)
        await guard.flush()
        with pytest.raises(CallNotPermitted):
            await doubled(2)


async def coroutine() -> None: ...
def function() -> None: ...
def generator() -> Iterator[int]:
    yield 1


async def async_generator() -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("kind", "function", "message"),
    [
        (Guard, coroutine, "coroutine is a coroutine function: decorate it with an AsyncGuard"),
        (Guard, generator, r"generator is a generator: .* use guard\.call\(\) inside it"),
        (Guard, async_generator, r"async_generator is a generator: .* use guard\.call\(\) inside it"),
        (AsyncGuard, function, "function is not a coroutine function: decorate it with a Guard"),
        (AsyncGuard, generator, r"generator is a generator: .* use guard\.call\(\) inside it"),
        (AsyncGuard, async_generator, r"async_generator is a generator: .* use guard\.call\(\) inside it"),
    ],
)
def test_what_it_cannot_guard_is_said_at_once(kind: Any, function: Any, message: str, redis_url: str) -> None:
    with pytest.raises(TypeError, match=message):
        kind(settings(redis_url))(function)


def test_a_paused_function_does_not_run(guard: Guard) -> None:
    fail(guard, 5)

    @guard
    def call() -> None:
        pytest.fail("the call was made")

    with pytest.raises(CallNotPermitted):
        call()
