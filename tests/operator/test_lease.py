"""Leader election: two candidates for one Lease of 3 s, on a real API server."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from kubernetes.aio.client import Configuration
from kubernetes.aio.config import load_kube_config

from openrouter_operator.kubernetes import lease as leases
from openrouter_operator.kubernetes.client import Cluster, NotLeading
from openrouter_operator.kubernetes.lease import Lease
from openrouter_operator.workloads.workload import Change
from tests.controlplane import ControlPlane
from tests.operator.samples import workload

pytestmark = pytest.mark.cluster

LIFE_S = 3.0
"""A candidate gives each request a fifth of it, which a busy machine needs."""
PATIENCE_S = 60.0
SLOW_MACHINE_S = 10.0
NAME = "operator"

Candidates = Callable[[str], Awaitable[Lease]]


class Clock:
    """The clock of all candidates in a test that would else have to wait."""

    def __init__(self) -> None:
        self.now = 100.0

    def passes(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(leases, "_now", lambda: clock.now)
    return clock


@pytest.fixture
async def candidate(control_plane: ControlPlane, namespace: str) -> AsyncIterator[Candidates]:
    """Makes candidates, each with a connection of its own, and fenced by its lease."""
    async with AsyncExitStack() as stack:

        async def make(identity: str) -> Lease:
            configuration = Configuration()
            found = str(control_plane.kubeconfig)
            await load_kube_config(found, client_configuration=configuration)  # type: ignore[no-untyped-call]
            cluster = await stack.enter_async_context(Cluster(configuration))
            lease = Lease(cluster, namespace=namespace, name=NAME, identity=identity, life_s=LIFE_S)
            cluster.fence = lease.check
            return lease

        yield make


@asynccontextmanager
async def keeping(lease: Lease) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(lease.keep())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def soon(lease: Lease) -> None:
    """Acquire it."""
    async with asyncio.timeout(PATIENCE_S):
        await lease.acquire()


async def trusted_s(lease: Lease) -> float:
    """For how many seconds its holder still counts on it."""
    began_at = time.monotonic()
    while lease.is_held:  # noqa: ASYNC110  nothing tells of time that has passed
        await asyncio.sleep(0.01)
    return time.monotonic() - began_at


async def test_the_first_candidate_gets_it_and_the_second_learns_who_has_it(candidate: Candidates) -> None:
    first, second = await candidate("first"), await candidate("second")
    await soon(first)
    assert first.is_held
    assert not await second._try()
    assert (second.is_held, second.holder) == (False, "first")


async def test_of_two_that_try_at_the_same_moment_one_gets_it(candidate: Candidates, clock: Clock) -> None:
    both = [await candidate("first"), await candidate("second")]
    assert sorted(await asyncio.gather(*(lease._try() for lease in both))) == [False, True]
    clock.passes(LIFE_S)
    assert not any(lease.is_held for lease in both)
    # Each must see for itself that it is not renewed: the loser of the first race begins to watch now.
    await asyncio.gather(*(lease._try() for lease in both))
    assert sum(lease.is_held for lease in both) == 1


async def test_while_it_is_renewed_no_moment_has_two_holders_nor_none(candidate: Candidates) -> None:
    first, second = await candidate("first"), await candidate("second")
    await soon(first)
    waiting = asyncio.create_task(second.acquire())
    async with keeping(first):
        ends_s = time.monotonic() + 2 * LIFE_S
        while time.monotonic() < ends_s:
            assert (first.is_held, second.is_held) == (True, False)
            await asyncio.sleep(0.02)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def test_when_the_holder_dies_the_other_takes_over_within_the_life_and_not_earlier(
    candidate: Candidates,
) -> None:
    first, second = await candidate("first"), await candidate("second")
    await soon(first)
    died_at = time.monotonic()
    waiting = asyncio.create_task(soon(second))
    while not second.is_held:
        assert not waiting.done()
        await asyncio.sleep(0.01)
        assert not (first.is_held and second.is_held)
    took_s = time.monotonic() - died_at
    await waiting
    # It looks five times in a life, so it may see the end a fifth of it late; the rest is a slow machine.
    assert LIFE_S * 0.95 < took_s < LIFE_S * 1.2 + SLOW_MACHINE_S


async def test_it_is_taken_over_only_after_its_whole_life_was_watched(candidate: Candidates, clock: Clock) -> None:
    first, second = await candidate("first"), await candidate("second")
    await soon(first)
    clock.passes(1_000)
    assert not await second._try(), "an old Lease may belong to one that renews it: its times are not ours"
    clock.passes(LIFE_S)
    assert not await second._try(), "its life is not quite over"
    clock.passes(0.01)
    assert await second._try()


async def test_a_renewal_begins_the_watch_anew(candidate: Candidates, clock: Clock) -> None:
    first, second = await candidate("first"), await candidate("second")
    await soon(first)
    for _ in range(5):
        assert not await second._try()
        clock.passes(LIFE_S * 0.9)
        assert await first._try()
    assert not await second._try()


async def test_the_holder_stops_counting_on_it_before_anybody_may_take_it(
    candidate: Candidates, clock: Clock
) -> None:
    first, second = await candidate("first"), await candidate("second")
    await soon(first)
    await second._try()
    clock.passes(LIFE_S * 0.8)
    assert not first.is_held
    assert not await second._try()


async def test_released_it_is_taken_at_once(candidate: Candidates, clock: Clock) -> None:
    first, second = await candidate("first"), await candidate("second")
    await soon(first)
    assert not await second._try()
    await first.release()
    assert not first.is_held
    assert await second._try()


async def test_to_renew_it_takes_one_request_unless_somebody_else_wrote_it(candidate: Candidates) -> None:
    lease = await candidate("a")
    await soon(lease)
    assert await asked(lease, lease._try) == {("PUT", "200"): 1}

    cluster = lease._cluster
    labelled = await cluster.lease(lease._namespace, NAME)
    labelled["metadata"]["labels"] = {"a": "person"}
    await cluster.replace_lease(lease._namespace, NAME, labelled)
    assert await asked(lease, lease._try) == {("PUT", "409"): 1, ("GET", "200"): 1, ("PUT", "200"): 1}
    assert lease.is_held


async def asked(lease: Lease, work: Callable[[], Awaitable[bool]]) -> Counter[tuple[str, str]]:
    """What work that succeeds asks of the API server."""
    before = lease._cluster.answers.copy()
    assert await work()
    return lease._cluster.answers - before


async def test_releasing_what_another_one_holds_takes_nothing_from_it(candidate: Candidates, clock: Clock) -> None:
    first, second = await candidate("first"), await candidate("second")
    await soon(first)
    await second._try()
    clock.passes(LIFE_S + 0.01)
    assert await second._try()
    await first.release()
    assert second.is_held
    assert not await first._try()
    assert first.holder == "second"


async def test_a_process_that_was_stopped_may_not_write_when_it_wakes_up(candidate: Candidates, clock: Clock) -> None:
    lease = await candidate("first")
    await soon(lease)
    lease.check()
    clock.passes(LIFE_S)
    with pytest.raises(NotLeading, match="not known to be held; nothing is written"):
        await lease._cluster.change(Change(workload(), 0, pause=None))


async def test_it_may_write_again_once_it_has_renewed_what_nobody_took(candidate: Candidates, clock: Clock) -> None:
    lease = await candidate("first")
    await soon(lease)
    clock.passes(LIFE_S)
    assert await lease._try()
    lease.check()


async def test_a_renewal_counts_from_its_beginning_and_not_from_its_answer(
    candidate: Candidates, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = await candidate("first")
    await soon(lease)
    answer = lease._cluster.replace_lease

    async def stopped_before_the_answer(*arguments: object) -> object:
        answered = await answer(*arguments)  # type: ignore[arg-type]
        clock.passes(LIFE_S)
        return answered

    monkeypatch.setattr(lease._cluster, "replace_lease", stopped_before_the_answer)
    assert await lease._try()
    assert not lease.is_held


async def test_when_it_is_lost_the_holder_is_told(candidate: Candidates, clock: Clock) -> None:
    first, second = await candidate("first"), await candidate("second")
    await soon(first)
    await second._try()
    clock.passes(LIFE_S + 0.01)
    assert await second._try()
    async with asyncio.timeout(PATIENCE_S):
        await first.keep()
    assert not first.is_held


async def test_a_holder_whose_lease_was_deleted_lets_go_as_soon_as_it_sees_another_one(
    candidate: Candidates, control_plane: ControlPlane, namespace: str, clock: Clock
) -> None:
    first, second = await candidate("first"), await candidate("second")
    await soon(first)
    control_plane.kubectl("delete", "lease", NAME, f"--namespace={namespace}")
    await soon(second)
    assert not await first._try()
    assert not first.is_held


async def test_a_frozen_api_server_ends_the_holders_trust_before_the_life_is_over(
    candidate: Candidates, control_plane: ControlPlane
) -> None:
    first, second = await candidate("first"), await candidate("second")
    await soon(first)
    async with keeping(first) as kept:
        await asyncio.sleep(LIFE_S / 2)
        assert first.is_held
        with control_plane.pause_apiserver():
            assert await trusted_s(first) < LIFE_S
            await asyncio.wait_for(kept, PATIENCE_S)
    await soon(second)
    assert second.is_held


async def test_people_can_read_who_holds_it_and_how_often_it_changed_hands(
    candidate: Candidates, control_plane: ControlPlane, namespace: str
) -> None:
    first, second = await candidate("first"), await candidate("second")
    await soon(first)
    await first.release()
    await soon(second)
    found = control_plane.get("lease", NAME, f"--namespace={namespace}")["spec"]
    assert (found["holderIdentity"], found["leaseDurationSeconds"], found["leaseTransitions"]) == ("second", 3, 1)
    assert found["acquireTime"] <= found["renewTime"]
