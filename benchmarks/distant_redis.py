"""How long a call waits with Redis 0 to 150 ms away, plain and over TLS, and how soon it learns of an opening."""

from __future__ import annotations

import asyncio
import ssl
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from openrouter_guard import Guard, Settings
from openrouter_guard.rules import shared_state, transitions
from openrouter_guard.rules.breaker import BreakerState, Open, Policy
from openrouter_guard.rules.shared_state import SharedState
from openrouter_guard.store import Store
from tests.controlplane.certificates import Authority
from tests.relay import distant, relaying
from tests.waiting import until

from .calling import WAIT_S, goes
from .measuring import Effort, Row
from .valkey import embedded_valkey

__all__ = ["run"]

ROUND_TRIPS_S = (0.0, 0.04, 0.08, 0.15)
_MS = 1000.0
_AGES_S = 60.0


@dataclass(frozen=True, slots=True)
class _Place:
    """Two addresses of one Redis: of next door, and of far away."""

    near: str
    far: str


def run(effort: Effort) -> Iterator[Row]:
    samples = max(effort.rounds // 4, 1)
    for scheme in ("redis", "rediss"):
        for round_trip_s in ROUND_TRIPS_S:
            with _far(scheme, round_trip_s) as place:
                yield from _rows(f"{scheme}://, {round_trip_s * _MS:g} ms away", place, samples)


def _rows(where: str, place: _Place, samples: int) -> Iterator[Row]:
    _change(place.near, lambda record, now: record or shared_state.fresh(now))
    for what, measured in (
        ("until a new process knows the state", _first_view_s),
        ("a permit, while half-open", _permit_s),
        ("until it refuses after an opening", _propagation_s),
    ):
        yield Row(f"{where}: {what}", statistics.median(measured(place) for _ in range(samples)) * _MS, "ms")


def _first_view_s(place: _Place) -> float:
    began_at = time.perf_counter()
    with Guard(Settings(place.far)) as guard:
        until(lambda: guard.state.epoch, seconds=WAIT_S)
        return time.perf_counter() - began_at


def _permit_s(place: _Place) -> float:
    """From the call on until it may go; a refusal is followed by the next try."""
    _open(place.near, wait_s=0.0)
    with Guard(Settings(place.far)) as guard:
        until(lambda: guard.state.epoch, seconds=WAIT_S)
        time.sleep(1.0)  # what it does at its start is over
        began_at = time.perf_counter()
        until(lambda: goes(guard), seconds=WAIT_S)
        took_s = time.perf_counter() - began_at
        until(lambda: guard.state.phase is BreakerState.CLOSED, seconds=WAIT_S)
        return took_s


def _propagation_s(place: _Place) -> float:
    with Guard(Settings(place.far)) as guard:
        until(lambda: guard.state.epoch, seconds=WAIT_S)
        time.sleep(1.0)
        _open(place.near, wait_s=_AGES_S)
        began_at = time.perf_counter()
        until(lambda: guard.state.phase is BreakerState.OPEN, seconds=WAIT_S)
        took_s = time.perf_counter() - began_at
    _change(place.near, lambda record, now: record and transitions.now_closed(record, "bench", now))
    return took_s


def _open(url: str, *, wait_s: float) -> None:
    def opened(record: SharedState | None, now: float) -> SharedState:
        after = transitions.now_open(record or shared_state.fresh(now), "timeout", "bench", now, Policy())
        return replace(after, breaker=Open("timeout", now, now + wait_s))

    _change(url, opened)


def _change(url: str, decide: Callable[[SharedState | None, float], SharedState | None]) -> None:
    async def change() -> None:
        store = Store.from_url(url)
        await store.change(decide)
        await store.close()

    asyncio.run(change())


@contextmanager
def _far(scheme: str, round_trip_s: float) -> Iterator[_Place]:
    with embedded_valkey() as near, ExitStack() as stack:
        port = int(near.rpartition(":")[2].partition("/")[0])
        if scheme == "rediss":
            server = port
            port = stack.enter_context(relaying(lambda: server, tls=_certified()))
        far = stack.enter_context(distant(port, round_trip_s))
        yield _Place(near, f"{scheme}://127.0.0.1:{far}/0" + ("?ssl_cert_reqs=none" if scheme == "rediss" else ""))


def _certified() -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "server.pem"
        file.write_bytes(b"".join(Authority().issue_server()))
        context.load_cert_chain(file)
    return context
