"""A distant Redis, with TLS and without: the breaker is obeyed and closes as with a near one."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from openrouter_guard import CallNotPermitted, Guard, Settings
from openrouter_guard.rules import shared_state, transitions
from openrouter_guard.rules.breaker import BreakerState, HalfOpen, Open, Policy
from openrouter_guard.rules.shared_state import SharedState
from openrouter_guard.store import Store
from openrouter_guard.worker.reporting.permits import PERMIT_S
from tests.controlplane.certificates import Authority
from tests.relay import distant, relaying
from tests.waiting import until
from tests.worker.guards import fail

pytestmark = pytest.mark.slow

SCHEMES = pytest.mark.parametrize("scheme", ["redis", "rediss"])
AWAY_S = pytest.mark.parametrize("round_trip_s", [0.04, 0.08, 0.15])
QUICK = Policy(reset_timeout_s=0.3)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    file: Path = tmp_path_factory.mktemp("tls") / "server.pem"
    file.write_bytes(b"".join(Authority().issue_server()))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(file)
    return context


@pytest.fixture
def far(scheme: str, redis_url: str, certificate: ssl.SSLContext, round_trip_s: float) -> Iterator[str]:
    """The address of the same Redis, as seen from where it is far away."""
    tls, options = (certificate, "?ssl_cert_reqs=none") if scheme == "rediss" else (None, "")
    with _encrypted(_port(redis_url), tls) as port, distant(port, round_trip_s) as far:
        yield f"{scheme}://127.0.0.1:{far}/0{options}"


@contextmanager
def _encrypted(port: int, certificate: ssl.SSLContext | None) -> Iterator[int]:
    if certificate is None:
        yield port
        return
    with relaying(lambda: port, tls=certificate) as encrypted:
        yield encrypted


def _port(redis_url: str) -> int:
    return int(redis_url.rpartition(":")[2].partition("/")[0])


async def _opened(store: Store, *, ends_in_s: float) -> None:
    """Open the breaker, as if a while ago, so that it may be tried in *ends_in_s*."""

    def opened(record: SharedState | None, now: float) -> SharedState:
        after = transitions.now_open(record or shared_state.fresh(now), "timeout", "ann", now, Policy())
        return replace(after, breaker=Open("timeout", now, now + ends_in_s))

    await store.change(opened)


@SCHEMES
@AWAY_S
class TestAWorkerFarAway:
    async def test_the_first_call_of_a_process_obeys_an_open_breaker(self, far: str, store: Store) -> None:
        await _opened(store, ends_in_s=60)
        assert await asyncio.to_thread(_said, _ONE_CALL, far) == "refused: timeout"

    async def test_a_permit_is_had_and_half_open_closes(self, far: str, store: Store) -> None:
        await _opened(store, ends_in_s=0)
        with Guard(Settings(far)) as guard:
            with ExitStack() as calls:
                until(lambda: _goes(calls, guard), seconds=10)
                assert isinstance((await _read(store)).breaker, HalfOpen)
            until(lambda: guard.state.phase is BreakerState.CLOSED)
        assert (await _read(store)).phase(time.time()) is BreakerState.CLOSED

    async def test_with_all_permits_out_it_is_refused(self, far: str, store: Store) -> None:
        await _opened(store, ends_in_s=0)
        with Guard(Settings(far)) as guard, ExitStack() as calls:
            # The second one goes ten seconds after the first.
            for _ in range(2):
                until(lambda: _goes(calls, guard), seconds=60)
            began_at = time.monotonic()
            with pytest.raises(CallNotPermitted, match="timeout"), guard.call():
                pytest.fail("a third call was made")
            assert time.monotonic() - began_at < PERMIT_S[1] + 3

    async def test_it_hears_of_an_opening_one_way_after_it_was_written_down(
        self, far: str, store: Store, round_trip_s: float
    ) -> None:
        with Guard(Settings(far)) as guard:
            fail(guard, 1)
            until(lambda: _hears(guard))
            await _opened(store, ends_in_s=60)
            began_at = time.monotonic()
            until(lambda: guard.state.phase is BreakerState.OPEN)
            assert time.monotonic() - began_at < round_trip_s + 0.1
            assert guard.state.reason == "timeout"

    def test_what_it_sees_itself_opens_the_breaker_for_all(self, far: str, redis_url: str) -> None:
        with Guard(Settings(far, policy=QUICK)) as guard, Guard(Settings(redis_url)) as near:
            fail(guard, 5)
            until(lambda: near.state.phase is not BreakerState.CLOSED)


class TestManyThatStartAtOnce:
    # The relays of TLS are a part of this process, and soon too slow for more.
    @pytest.mark.parametrize(
        ("scheme", "round_trip_s", "processes"), [("redis", 0.0, 50), ("redis", 0.08, 50), ("rediss", 0.08, 10)]
    )
    async def test_of_all_processes_that_start_while_half_open_two_call_at_the_most(
        self, far: str, store: Store, processes: int
    ) -> None:
        await _opened(store, ends_in_s=0)
        # On a machine that is busy, a permit may come too late for who asked for it.
        assert int(await asyncio.to_thread(_said, _MANY, far, str(processes))) <= 2

    @SCHEMES
    @pytest.mark.parametrize("round_trip_s", [0.0, 0.08])
    async def test_nor_do_the_threads_of_a_process_overtake_its_first_look(self, far: str, store: Store) -> None:
        await _opened(store, ends_in_s=0)
        with Guard(Settings(far)) as guard, ThreadPoolExecutor(20) as threads:
            may_end = threading.Event()
            calls = [threads.submit(_is_out, guard, may_end) for _ in range(20)]
            until(lambda: sum(call.done() for call in calls) >= 18, seconds=20)
            may_end.set()
            assert sum(call.result() for call in calls) <= 2


async def _read(store: Store) -> SharedState:
    record = (await store.read()).record
    assert record is not None
    return record


def _said(script: str, *arguments: str) -> str:
    """What a process of its own prints."""
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    return done.stdout.strip()


def _goes(calls: ExitStack, guard: Guard) -> bool:
    """Whether a call may go; then it lasts as long as *calls*."""
    with suppress(CallNotPermitted):
        calls.enter_context(guard.call())
        return True
    return False


def _hears(guard: Guard) -> bool:
    live = guard._core._live
    return live is not None and live.agent._is_pushed


def _is_out(guard: Guard, may_end: threading.Event) -> bool:
    with suppress(CallNotPermitted), guard.call():
        may_end.wait(10)
        return True
    return False


_ONE_CALL = """
import sys
from openrouter_guard import CallNotPermitted, Guard

try:
    with Guard.from_url(sys.argv[1]).call():
        print("went")
except CallNotPermitted as refused:
    print("refused:", refused.reason)
"""

_MANY = """
import multiprocessing, sys
from openrouter_guard import CallNotPermitted, Guard

guard = Guard.from_url(sys.argv[1])

def call(start, said, end):
    start.wait()
    try:
        with guard.call():
            said.put("went")
            end.wait()
    except CallNotPermitted:
        said.put("refused")

fork = multiprocessing.get_context("fork")
start, end, said = fork.Event(), fork.Event(), fork.Queue()
workers = [fork.Process(target=call, args=(start, said, end)) for _ in range(int(sys.argv[2]))]
for worker in workers:
    worker.start()
start.set()
answers = [said.get(timeout=120) for _ in workers]
end.set()
for worker in workers:
    worker.join()
print(answers.count("went"))
"""
