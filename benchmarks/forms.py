"""How we and others guard a call: one statement each, and a check that it really refuses.

A form that goes on calling while its breaker is open has nothing to compare with: it is left out, and said so.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeAlias
from uuid import uuid4

import redis

from openrouter_guard import AsyncGuard, Guard, Settings

__all__ = ["OURS", "PEERS", "Form", "Names", "PeersMissing", "Run", "peer", "refuses", "timed"]

Names: TypeAlias = Mapping[str, Any]
Work: TypeAlias = Callable[[], Any]
Run: TypeAlias = Callable[[Any], Any]
"""Runs what is async to its end, always in the same event loop."""
TRIES = 12
"""Every breaker here opens at five failures in a row."""


class PeersMissing(Exception):
    """The other libraries are not installed."""


@dataclass(frozen=True, slots=True)
class Form:
    """One way to guard a call.

    Attributes:
        library: Whose; and where its state lives, if not in memory.
        kind: Only forms of one kind are compared.
        statement: The guarded call.
        names: What the statement uses, for given work, the address of a Valkey, and what runs async code.
    """

    library: str
    kind: str
    statement: str
    names: Callable[[Work, str, Run], AbstractContextManager[Names]]

    @property
    def is_async(self) -> bool:
        return self.statement.startswith(("async", "await"))


# -- ours ---------------------------------------------------------------------------------------------------------


@contextmanager
def _guard(work: Work, url: str, _run: Run) -> Iterator[Names]:
    with Guard(Settings(url, scope=_name())) as guard:
        yield {"guard": guard, "guarded": guard(work), "work": work, "flush": guard.flush}


@contextmanager
def _async_guard(work: Work, url: str, run: Run) -> Iterator[Names]:
    guard = AsyncGuard(Settings(url, scope=_name()))

    yield {"guard": guard, "guarded": guard(work), "work": work, "flush": lambda: run(guard.flush())}
    run(guard.close())


# -- others -------------------------------------------------------------------------------------------------------


@contextmanager
def _circuitbreaker(work: Work, _url: str, _run: Run) -> Iterator[Names]:
    breaker = peer("circuitbreaker").CircuitBreaker(name=_name())
    yield {"breaker": breaker, "guarded": breaker(work), "work": work}


@contextmanager
def _pybreaker(work: Work, _url: str, _run: Run) -> Iterator[Names]:
    breaker = peer("pybreaker").CircuitBreaker()
    yield {"breaker": breaker, "guarded": breaker(work), "work": work}


@contextmanager
def _pybreaker_on_redis(work: Work, url: str, _run: Run) -> Iterator[Names]:
    pybreaker, client = peer("pybreaker"), redis.Redis.from_url(url)
    storage = pybreaker.CircuitRedisStorage(pybreaker.STATE_CLOSED, client, namespace=_name())
    breaker = pybreaker.CircuitBreaker(state_storage=storage)
    yield {"breaker": breaker, "guarded": breaker(work), "work": work}
    client.close()


@contextmanager
def _purgatory(work: Work, _url: str, _run: Run) -> Iterator[Names]:
    factory = peer("purgatory").SyncCircuitBreakerFactory()
    yield {"breaker": factory.get_breaker("upstream"), "guarded": factory("upstream")(work), "work": work}


@contextmanager
def _async_purgatory(work: Work, _url: str, run: Run) -> Iterator[Names]:
    factory = peer("purgatory").AsyncCircuitBreakerFactory()
    breaker = run(factory.get_breaker("upstream"))
    yield {"breaker": breaker, "guarded": factory("upstream")(work), "work": work}


@contextmanager
def _async_purgatory_on_redis(work: Work, url: str, run: Run) -> Iterator[Names]:
    purgatory, name = peer("purgatory"), _name()
    state = purgatory.AsyncRedisUnitOfWork(url)
    factory = purgatory.AsyncCircuitBreakerFactory(uow=state)
    yield {"factory": factory, "name": name, "guarded": factory(name)(work), "work": work}
    run(state.contexts.redis.aclose())


@contextmanager
def _aiobreaker(work: Work, _url: str, _run: Run) -> Iterator[Names]:
    yield {"guarded": peer("aiobreaker").CircuitBreaker()(work), "work": work}


def peer(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise PeersMissing(f"{name} is not installed: `make bench` does it, from requirements/bench.txt") from error


def _name() -> str:
    """A state that nobody else uses."""
    return uuid4().hex[:12]


OURS = (
    Form("ours", "with", "with guard.call(): work()", _guard),
    Form("ours", "decorator", "guarded()", _guard),
    Form("ours", "async with", "async with guard.call(): await work()", _async_guard),
    Form("ours", "async decorator", "await guarded()", _async_guard),
)
PEERS = (
    Form("circuitbreaker", "with", "with breaker: work()", _circuitbreaker),
    Form("pybreaker", "with", "with breaker.calling(): work()", _pybreaker),
    Form("purgatory", "with", "with breaker: work()", _purgatory),
    Form("pybreaker on Redis", "with", "with breaker.calling(): work()", _pybreaker_on_redis),
    Form("circuitbreaker", "decorator", "guarded()", _circuitbreaker),
    Form("pybreaker", "decorator", "guarded()", _pybreaker),
    Form("purgatory", "decorator", "guarded()", _purgatory),
    Form("aiobreaker", "decorator", "guarded()", _aiobreaker),
    Form("pybreaker on Redis", "decorator", "guarded()", _pybreaker_on_redis),
    Form("purgatory", "async with", "async with breaker: await work()", _async_purgatory),
    # Only who asks for the breaker anew learns what others saw.
    Form(
        "purgatory on Redis",
        "async with",
        "async with await factory.get_breaker(name): await work()",
        _async_purgatory_on_redis,
    ),
    Form("circuitbreaker", "async decorator", "await guarded()", _circuitbreaker),
    Form("purgatory", "async decorator", "await guarded()", _async_purgatory),
    Form("aiobreaker", "async decorator", "await guarded()", _aiobreaker),
    Form("purgatory on Redis", "async decorator", "await guarded()", _async_purgatory_on_redis),
)


# -- running a form -----------------------------------------------------------------------------------------------


def timed(form: Form, names: Names, calls: int, run: Run) -> Callable[[], float]:
    """A function that makes *calls* calls and returns the seconds of one; *run* drives what is async."""
    loop = _loop(form, names)

    async def in_loop() -> float:
        began_at = time.perf_counter()
        await loop(range(calls))
        return time.perf_counter() - began_at

    def here() -> float:
        began_at = time.perf_counter()
        loop(range(calls))
        return time.perf_counter() - began_at

    return lambda: float(run(in_loop()) if form.is_async else here()) / calls


def refuses(form: Form, url: str, run: Run) -> bool:
    """Whether the form stops calling what fails every time."""
    calls = 0

    def fails() -> None:
        nonlocal calls
        calls += 1
        raise TimeoutError

    async def fails_later() -> None:
        fails()

    with form.names(fails_later if form.is_async else fails, url, run) as names:
        loop = _loop(form, names)
        for _ in range(TRIES):
            with suppress(Exception):
                run(loop(range(1))) if form.is_async else loop(range(1))
            names.get("flush", lambda: None)()
    return calls < TRIES


def _loop(form: Form, names: Names) -> Any:
    """The statement in a loop of its own, as :mod:`timeit` does it: no call is added to what is timed."""
    prefix = "async " if form.is_async else ""
    scope = dict(names)
    exec(f"{prefix}def loop(times):\n    for _ in times:\n        {form.statement}\n", scope)
    return scope["loop"]
