"""A whole system on one Valkey, and a writer of arbitrary values under its keys.

Used by the fuzz tests, and for ten minutes by the benchmark ``garbage``.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import httpx
import redis
from hypothesis import strategies as st

from openrouter_guard import CallNotPermitted, Guard, OpenRouterStateManager, Settings, StoreError
from openrouter_guard.cli import probe
from openrouter_guard.keys import Keys
from openrouter_guard.rules.breaker import Policy
from openrouter_guard.rules.codec import FIELDS
from openrouter_operator.shared_state.feed import Feed
from tests.service.apps import KEY, STATUS, FakeUpstream, running

__all__ = ["NASTY", "Damage", "Foreign", "System", "damages", "write"]

POLICY = Policy(reset_timeout_s=0.2, max_reset_timeout_s=0.4, recheck_s=0.05, ramp_s=0.1, cooldown_s=0.2)
FLEET = 3
OPENS_S, HEALS_S = 20.0, 30.0
_FAR = [9e15, 1e300, 4e12, 253402300800.0, -1e300]
NASTY: tuple[bytes, ...] = (
    b"", b"\xff", b"\xff\xfe\x00", b"\x00", b"nan", b"inf", b"-inf", b"1e400", b"1e308", b"-1000000", b"0x10",
    b"9" * 400, b"9" * 5000, b"1_000", "٣".encode(), b"[" * 5000,
    b'{"a":' * 5000, b"null", b"true", b"[]", b"{}", b'"x"', b"[1]", b"{", b"open", b"half_open", b"closed",
    b"ajar", b"TRUE", b"2500-01-01T00:00:00+00:00", b"9999-12-31T23:59:59-23:59", b"0001-01-01T00:00:00+23:59",
    b"1969-12-31T00:00:00+00:00", b"zzzz+00:00", b"1:2:3:4:a", b"w1:xx:yy ", b"x " * 1000,
    b"9" * 99 + b":1:1:1:a", b'{"a": 1e999}', b'{"a": NaN}', "\ufffd\u2028<script>".encode(),
    b'[{"epoch": 1e999, "from": "closed", "to": "open", "reason": {}, "by": 7, "at": null}]',
    *(json.dumps({"kind": "disabled", "who": [], "why": None, "until": until}).encode() for until in _FAR),
    *(json.dumps({"kind": "forced_open", "who": "x", "why": "y", "until": until}).encode() for until in _FAR),
    *(json.dumps({"failures": 10**400, "until_s": until, "seen_s": until, "reason": {}}).encode() for until in _FAR),
    *(json.dumps({"last_seen": until, "version": [[]], "workloads": {"a": until}}).encode() for until in _FAR),
)  # fmt: skip
OWN = ("reporters", "calls_counted", "calls_since", "run_since", "counted_call", "older_writer", "version", "alarm")


@dataclass(frozen=True, slots=True)
class Damage:
    """A value that somebody wrote into a field of a hash, a list or a stream of ours."""

    key: str
    name: bytes
    value: bytes

    def do(self, client: redis.Redis) -> None:
        match self.key:
            case "history":
                client.xadd(_key(self.key), {self.name: self.value})
            case "worker_errors":
                client.lpush(_key(self.key), self.value)
            case _:
                client.hset(_key(self.key), self.name, self.value)

    def undo(self, client: redis.Redis) -> None:
        """Take it away, where it still is."""
        if self.key in ("history", "worker_errors"):
            client.delete(_key(self.key))
        elif client.hget(_key(self.key), self.name) == self.value:
            client.hdel(_key(self.key), self.name)


@dataclass(frozen=True, slots=True)
class Foreign:
    """A value of another type under a key of ours."""

    key: str
    is_list: bool

    def do(self, client: redis.Redis) -> None:
        client.delete(_key(self.key))
        if self.is_list and self.key != "worker_errors":
            client.rpush(_key(self.key), "x")
        else:
            client.set(_key(self.key), "x")

    def undo(self, client: redis.Redis) -> None:
        client.delete(_key(self.key))


# A test may have the clock of the system jump.
_true_time = time.time

HASHES = ("state", "models", "workers", "paused", "metrics")
nasty = (
    st.sampled_from(NASTY)
    | st.binary(max_size=40)
    | st.text(max_size=20).map(lambda text: text.encode("utf-8", "replace"))
)
names = st.binary(min_size=1, max_size=12) | st.sampled_from([b"a/b", b"\xff", b"total_calls", b"latency_ms_le_10"])
damages = st.one_of(
    st.builds(Damage, st.just("state"), st.sampled_from([*FIELDS, *OWN]).map(str.encode), nasty),
    st.builds(Damage, st.just("state"), st.sampled_from([*FIELDS, *OWN]).map(str.encode), nasty),
    st.builds(Damage, st.sampled_from(HASHES), names, nasty),
    st.builds(Damage, st.sampled_from(["history", "worker_errors"]), names, nasty),
    st.builds(Foreign, st.sampled_from([*HASHES, "history", "worker_errors"]), st.booleans()),
)  # fmt: skip
pages = (
    "status", "gate", "history", "models", "workers", "paused", "metrics", "metrics?days=30",
    "status?force_refresh=true",
)  # fmt: skip


def _key(name: str) -> str:
    keys, now = Keys(), _true_time()
    return {"metrics": keys.metrics(now), "worker_errors": keys.worker_errors(now)}.get(name) or f"openrouter:{name}"


def write(damage: Sequence[Damage | Foreign], client: redis.Redis) -> None:
    for each in damage:
        # One may have put a value of another type where the next one wants a field.
        with suppress(redis.ResponseError):
            each.do(client)


@dataclass(slots=True)
class System:
    """A service, a fleet, a manager, the operator's reading and the probe.

    Attributes:
        wrong: What did not hold, in words; empty is well.
        refused: The workers that have been refused in this outage.
    """

    url: str
    client: redis.Redis
    service: httpx.AsyncClient
    guards: Sequence[Guard]
    manager: OpenRouterStateManager
    feed: Feed
    wrong: list[str] = field(default_factory=list)
    refused: set[int] = field(default_factory=set)

    @classmethod
    @asynccontextmanager
    async def on(cls, url: str, damaged: str = "") -> AsyncIterator[System]:
        """A system on *url*; the damage is done on that of *damaged*, where it is another way to the same server."""
        settings = Settings(url, api_key=KEY, policy=POLICY, redis_timeout_s=5.0)
        async with AsyncExitStack() as stack:
            service = await stack.enter_async_context(running(settings, FakeUpstream()))
            manager = await stack.enter_async_context(OpenRouterStateManager(url))
            feed = Feed(settings, "operator", lambda _scope: None)
            await feed.start()
            stack.push_async_callback(feed.stop)
            guards = [Guard(settings) for _ in range(FLEET)]
            client = stack.enter_context(redis.Redis.from_url(damaged or url))
            system = cls(url, client, service, guards, manager, feed)
            try:
                yield system
            finally:
                for guard in guards:
                    with system.noting("close()"):
                        await asyncio.to_thread(guard.close)

    @contextlib.contextmanager
    def noting(self, what: str) -> Any:
        """Nothing but our own errors may come of it."""
        try:
            yield
        except StoreError:
            pass
        except Exception as error:  # noqa: BLE001  that is what is looked for
            self.wrong.append(f"{what} raised {error!r:.200}")

    async def round(self, damage: Sequence[Damage | Foreign], jump: Callable[[], object] = lambda: None) -> None:
        """Damage, use everything, an outage, and once the damage is gone, recovery.

        Args:
            damage: What somebody writes.
            jump: Called between the steps.
        """
        write(damage, self.client)
        jump()
        await self.is_used()
        if any(isinstance(each, Foreign) and each.key == "state" for each in damage):
            await self.becomes("degraded", self._is_degraded, OPENS_S)
        jump()
        self.refused.clear()
        await self.becomes("protected in an outage", self._is_protected, OPENS_S)
        jump()
        await self.is_used()
        for each in damage:
            with suppress(redis.ResponseError):
                each.undo(self.client)
        await self.becomes("well again", self._is_well, HEALS_S)

    async def is_used(self) -> None:
        for guard in self.guards:
            with self.noting("a call"):
                await asyncio.to_thread(_call, guard, 200)
            with self.noting("flush()"):
                await asyncio.to_thread(guard.flush)
        for ask in (
            self.manager.get_state,
            self.manager.is_fresh,
            self.manager.should_skip_api_call,
            self.manager.get_metrics,
        ):
            with self.noting(f"the manager's {ask.__name__}"):
                await ask()
        with self.noting("the operator's reading"):
            reading = self.feed.read()
            assert reading.outage is not None
        if self.feed.stalled():
            self.wrong.append("a loop of the operator has ended")
        await self._probed()
        for page in pages:
            with self.noting(page):
                answer = await self.service.get(f"{STATUS.rpartition('/')[0]}/{page}")
                if answer.status_code >= 500 and answer.status_code != 503:
                    self.wrong.append(f"{page} answered {answer.status_code}")
                answer.json()
        for page in ("/", "/metrics", "/readyz", "/livez"):
            with self.noting(page):
                answer = await self.service.get(page)
                if answer.status_code >= 500 and page != "/readyz":
                    self.wrong.append(f"{page} answered {answer.status_code}")

    async def _probed(self) -> int:
        said, code = io.StringIO(), -1
        with self.noting("the probe"), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            code = probe.run({"REDIS_URL": self.url}, timeout_s=5, passes_unknown=False)
            if code not in (0, 1, 2) or said.getvalue().count("\n") != 1:
                self.wrong.append(f"the probe said {said.getvalue()!r:.100} and {code}")
        return code

    async def becomes(self, what: str, holds: Callable[[], Any], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not await holds():
            if time.monotonic() > deadline:
                self.wrong.append(f"not {what} within {seconds:g} s: {await self._shown()}")
                return
            await asyncio.sleep(0.05)

    async def _shown(self) -> str:
        status = (await self.service.get(STATUS)).json()
        phases = [str(guard.state.phase) for guard in self.guards]
        return f"{phases} {status['circuit_breaker']} {self.feed.read().error}"

    async def _is_degraded(self) -> bool:
        status = (await self.service.get(STATUS)).json()
        return bool(status["degraded"]) and not self.feed.read().is_fresh and await self._probed() == probe.UNKNOWN

    async def _is_protected(self) -> bool:
        """Whether each worker has been refused since all calls fail."""
        for guard in self.guards:
            if not await asyncio.to_thread(_call, guard, 503):
                self.refused.add(id(guard))
        return len(self.refused) == len(self.guards)

    async def _is_well(self) -> bool:
        went = [await asyncio.to_thread(_call, guard, 200) for guard in self.guards]
        for guard in self.guards:
            with self.noting("flush()"):
                await asyncio.to_thread(guard.flush)
        status = (await self.service.get(f"{STATUS}?force_refresh=true")).json()
        is_well = not status["degraded"] and status["circuit_breaker"]["state"] == "closed"
        reading = self.feed.read()
        return all(went) and is_well and reading.is_fresh and reading.phase == "closed" and await self._probed() == 0


def _call(guard: Guard, status_code: int) -> bool:
    """Whether it went."""
    try:
        with guard.call() as call:
            call.answered(status_code)
    except CallNotPermitted:
        return False
    return True
