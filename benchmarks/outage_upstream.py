"""The upstreams of ``outage_cost``, all in one process. Each fails as planned and records its calls.

Small on purpose: what it spends on a call is lost to those that are measured.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from openrouter_guard.testing import answers

from .fleet import Connection

__all__ = ["TROUBLES", "Call", "Plan", "Trouble", "serve"]

HOST = "127.0.0.1"
MODEL = "openai/gpt-4o"
SPREAD = 0.2
"""A good call takes this much more or less than the plan says, or all calls of a fleet would stay in step."""
TICK_S = 0.05


@dataclass(frozen=True, slots=True)
class Trouble:
    """How calls that begin during it fail.

    Attributes:
        status: Of the answer.
        after_s: How long the answer takes.
        share: So many of the calls; the others are good.
        announces: The answer says in ``Retry-After`` when it is over.
        on_key: So does ``GET /key``.
    """

    status: int
    message: str
    after_s: float = 0.25
    share: float = 1.0
    announces: bool = False
    on_key: bool = True


TROUBLES = {
    "503": Trouble(503, "Service unavailable"),
    "hang, 504": Trouble(504, "Gateway timeout", after_s=10.0),
    "402": Trouble(402, "Insufficient credits", on_key=False),
    "429": Trouble(429, "Rate limit exceeded", announces=True),
    "brown-out": Trouble(503, "Service unavailable", share=0.3, on_key=False),
}


@dataclass(frozen=True, slots=True)
class Plan:
    """What happens when, in Unix seconds.

    Attributes:
        began_at: The workers start.
        down_s: Calls that begin from here on meet the trouble,
        well_s: and from here on none.
        ended_at: The workers stop.
        call_s: What a good call takes.
    """

    trouble: Trouble
    began_at: float
    down_s: float
    well_s: float
    ended_at: float
    call_s: float


class Call(NamedTuple):
    """When it came and was answered (Unix seconds), and whether well."""

    began_at: float
    ended_at: float
    is_good: bool


def serve(parent: Connection, count: int) -> None:
    """Listen on *count* ports, the first answer; then take plans, and tell the calls and the lag, until None."""
    asyncio.run(_serve(parent, count))


async def _serve(parent: Connection, count: int) -> None:
    loop, over = asyncio.get_running_loop(), asyncio.Event()
    upstreams = [_Upstream() for _ in range(count)]
    servers = [await loop.create_server(partial(_Exchange, each), HOST, 0) for each in upstreams]
    parent.send([server.sockets[0].getsockname()[1] for server in servers])
    lags_s: list[float] = []

    def told() -> None:
        match parent.recv():
            case None:
                over.set()
            case "calls":
                parent.send(([each.told() for each in upstreams], max(lags_s, default=0.0)))
            case plan:
                lags_s.clear()
                for each in upstreams:
                    each.follow(plan)

    loop.add_reader(parent.fileno(), told)
    while not over.is_set():
        due_s = loop.time() + TICK_S
        await asyncio.sleep(TICK_S)
        lags_s.append(loop.time() - due_s)


class _Upstream:
    """One strategy's: what it does now, and the calls that came."""

    def __init__(self) -> None:
        self.plan: Plan | None = None
        self.calls: list[Call] = []
        self.under_way: dict[object, Call] = {}
        self._lot = random.Random(1)

    def follow(self, plan: Plan) -> None:
        self.plan = plan
        self.calls.clear()

    def told(self) -> list[Call]:
        """All so far; those under way as they would end."""
        return [*self.calls, *self.under_way.values()]

    def answer(self, path: str, now: float) -> tuple[float, bytes]:
        """How long it takes, and what it is."""
        plan, is_key = self.plan, path.endswith("/key")
        if plan is not None and plan.down_s <= now < plan.well_s:
            trouble = plan.trouble
            if trouble.on_key if is_key else self._lot.random() < trouble.share:
                return trouble.after_s, _failure(trouble, plan.well_s - now)
        takes_s = 0.0 if is_key or plan is None else plan.call_s * self._lot.uniform(1 - SPREAD, 1 + SPREAD)
        return takes_s, _GOOD_KEY if is_key else _GOOD


class _Exchange(asyncio.Protocol):
    """One connection: a request, its answer after a while, the next request."""

    def __init__(self, upstream: _Upstream) -> None:
        self._upstream = upstream
        self._loop = asyncio.get_running_loop()
        self._received = b""
        self._due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        if found and len(body) >= _length(head):
            self._received = b""
            self._begin(head.split(b" ", 2)[1].decode())

    def connection_lost(self, _error: Exception | None) -> None:
        if self._due is not None:
            self._due.cancel()
        if (call := self._upstream.under_way.pop(self, None)) is not None:
            self._upstream.calls.append(call._replace(ended_at=time.time(), is_good=False))

    def _begin(self, path: str) -> None:
        now = time.time()
        takes_s, answer = self._upstream.answer(path, now)
        if not path.endswith("/key"):
            self._upstream.under_way[self] = Call(now, now + takes_s, answer is _GOOD)
        self._due = self._loop.call_later(takes_s, self._end, answer)

    def _end(self, answer: bytes) -> None:
        if (call := self._upstream.under_way.pop(self, None)) is not None:
            self._upstream.calls.append(call._replace(ended_at=time.time()))
        self._transport.write(answer)


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line[15:])
    return 0


def _failure(trouble: Trouble, left_s: float) -> bytes:
    wait = f"retry-after: {max(left_s, 0.0):.0f}\r\n" if trouble.announces else ""
    return _response(trouble.status, answers.error(trouble.status, trouble.message, {}), wait)


def _response(status: int, body: object, headers: str = "") -> bytes:
    payload = json.dumps(body).encode()
    head = f"HTTP/1.1 {status} _\r\ncontent-type: application/json\r\ncontent-length: {len(payload)}\r\n{headers}\r\n"
    return head.encode() + payload


_GOOD = _response(200, answers.body(answers.CHAT, {"model": MODEL}, answers.Account()))
_GOOD_KEY = _response(200, answers.body(answers.KEY, {}, answers.Account()))
