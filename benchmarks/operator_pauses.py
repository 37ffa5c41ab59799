"""How soon after a failure Deployments are at zero, and the operator's overhead over bare patches.

The bare loop makes the same patches with the same client and the same number at a time, without watching anything. It
runs first, while no operator looks on. Operators that are done are left to rest, and looked at together.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from openrouter_guard import AsyncGuard, CallNotPermitted, OpenRouterStateManager, Settings
from openrouter_guard.rules.breaker import BreakerState, Policy
from openrouter_operator.decisions.status import is_true
from openrouter_operator.workloads.workload import Change, Pause, Workload, restored
from tests.controlplane import ControlPlane
from tests.operator.conftest import Operator
from tests.operator.crashes import connected

from .clusters import PODS, Fleet, World, at_rest, installed, patches, statuses, tidings, until
from .measuring import Effort, Row, percentile
from .valkey import embedded_valkey

__all__ = ["run"]

FEW = 10
TEAM = 10
"""Resources in one namespace."""
RESET_S = 1.0
_POLICY = Policy(reset_timeout_s=RESET_S, max_reset_timeout_s=RESET_S)
_RESET = {
    "OPENROUTER_GUARD_RESET_TIMEOUT_SECONDS": str(RESET_S),
    "OPENROUTER_GUARD_MAX_RESET_TIMEOUT_SECONDS": str(RESET_S),
}
_WORKERS = {"kind": "Deployment", "selector": {"matchLabels": {"fleet": "workers"}}}
_MS = 1000.0


def run(effort: Effort) -> Iterator[Row]:
    with ControlPlane() as control_plane, embedded_valkey() as url, TemporaryDirectory() as folder:
        installed(control_plane)
        world = World(control_plane, url, Path(folder))
        name = f"{effort.resources}-resources"
        with world.operating(name) as operator:
            yield from asyncio.run(_resources(world, name, effort.resources))
            yield from asyncio.run(at_rest(control_plane, {name: operator}, effort.idle_s))
        yield from asyncio.run(_latency(world, effort.pauses))
        with ExitStack() as stack:
            resting: dict[str, Operator] = {}
            for targets in effort.targets:
                name = f"{targets}-targets"
                bare_s = asyncio.run(_bare(world, name, targets))
                resting[name] = stack.enter_context(world.operating(name, name))
                yield from asyncio.run(_many(world, name, targets, bare_s))
            yield from asyncio.run(at_rest(control_plane, resting, effort.idle_s))


# -- from a failure to zero -----------------------------------------------------------------------------------------


async def _latency(world: World, pauses: int) -> Sequence[Row]:
    policy = Settings(world.redis_url, scope="few", policy=_POLICY)
    async with connected(world.control_plane) as cluster:
        fleet = Fleet(cluster, "few")
        await fleet.create(FEW)
        with world.operating("few", "few", **_RESET):
            async with AsyncGuard(policy) as guard:
                await _succeed(guard)
                await fleet.watch(default={"scope": "few", "targets": [_WORKERS]})
                taken_s = [await _pause(world, fleet, guard) for _ in range(pauses)]
    first_s, last_s = zip(*taken_s, strict=True)
    return [
        Row(f"{what}, p{percent}", percentile(times_s, percent) * _MS, "ms")
        for what, times_s in (
            ("failure to the first patch", first_s),
            (f"failure to {FEW} Deployments at zero", last_s),
        )
        for percent in (50, 95)
    ]


async def _pause(world: World, fleet: Fleet, guard: AsyncGuard) -> tuple[float, float]:
    """How long after the failure that opens the breaker the first and the last patch were made; then back."""
    made, failed_s = patches(world.control_plane, fleet.namespace), await _open(guard)
    at = await made.until(FEW)
    made = patches(world.control_plane, fleet.namespace)
    while guard.state.phase is not BreakerState.HALF_OPEN:  # noqa: ASYNC110  nothing tells of time that has passed
        await asyncio.sleep(0.05)
    await _succeed(guard)
    await made.until(FEW)
    return at[0] - failed_s, at[-1] - failed_s


async def _open(guard: AsyncGuard) -> float:
    """Fail until the breaker opens: five times, and more often once there are many calls in a minute.

    Returns when the last failure began, Unix seconds.
    """
    failed_s = 0.0
    with suppress(CallNotPermitted):
        while guard.state.phase is not BreakerState.OPEN:
            began_at = time.time()
            await _fail(guard)
            failed_s = began_at
            await guard.flush()
    return failed_s


async def _fail(guard: AsyncGuard) -> None:
    with suppress(TimeoutError):
        async with guard.call():
            raise TimeoutError("upstream took too long")


async def _succeed(guard: AsyncGuard) -> None:
    """One good call, as soon as one may go."""
    while True:
        with suppress(CallNotPermitted):
            async with guard.call():
                break
        await asyncio.sleep(0.05)
    await guard.flush()


# -- many targets of one resource -----------------------------------------------------------------------------------


async def _bare(world: World, namespace: str, targets: int) -> tuple[float, float]:
    """Make the Deployments; how long bare patches take to pause them, and to restore them."""
    async with connected(world.control_plane) as cluster:
        fleet = Fleet(cluster, namespace)
        await fleet.create(targets)
        if not targets:
            return 0.0, 0.0
        await fleet.until_settled()
        pause_s = await _changed(world, fleet, [_paused(workload) for workload in await fleet.workloads()])
        await fleet.until_settled()
        changes = [change for workload in await fleet.workloads() if (change := restored(workload))]
        return pause_s, await _changed(world, fleet, changes)


def _paused(workload: Workload) -> Change:
    pause = Pause("none", "none", epoch=1, original=workload.value, set_to=0, at=1_000.0)
    return Change(workload, 0, pause)


async def _changed(world: World, fleet: Fleet, changes: Sequence[Change]) -> float:
    made, began_at = patches(world.control_plane, fleet.namespace), time.time()
    await asyncio.gather(*(fleet.cluster.change(change) for change in changes))
    return (await made.until(len(changes)))[-1] - began_at


async def _many(world: World, namespace: str, targets: int, bare_s: tuple[float, float]) -> Sequence[Row]:
    async with connected(world.control_plane) as cluster:
        fleet, state = Fleet(cluster, namespace), OpenRouterStateManager(world.redis_url, scope=namespace)
        await _force(state, "forced_closed")
        await fleet.watch(default={"scope": namespace, "targets": [_WORKERS]})
        taken_s = []
        for kind, replicas in (("forced_open", 0), ("forced_closed", PODS)) if targets else ():
            await fleet.until_free()
            await fleet.until_settled()
            told = tidings(world.control_plane, namespace)
            made, began_at = patches(world.control_plane, namespace), time.time()
            await _force(state, kind)
            taken_s.append((await made.until(targets))[-1] - began_at)
            assert await fleet.have(replicas)
            await told.until(targets)  # each workload's own event, after all changes: the next turn begins at rest
        await fleet.until_settled()
        await state.close()
    what = (f"{targets:,} Deployments {done}" for done in ("paused", "restored"))
    return [Row(name, ours_s, "s", peer_s) for name, ours_s, peer_s in zip(what, taken_s, bare_s, strict=False)]


async def _force(state: OpenRouterStateManager, kind: str) -> None:
    await state.set_override(kind, who="benchmark", why="to measure", for_s=3600)


# -- many resources -------------------------------------------------------------------------------------------------


async def _resources(world: World, name: str, resources: int) -> Sequence[Row]:
    """As many resources as Deployments, in the namespaces of some teams, and one operator for all."""
    async with connected(world.control_plane) as cluster:
        everywhere, state = Fleet(cluster, ""), OpenRouterStateManager(world.redis_url, scope=name)
        await _force(state, "forced_closed")
        for first in range(0, resources, TEAM):
            await _create_team(Fleet(cluster, f"team-{first}"), name, min(TEAM, resources - first))
        rows = []
        for kind, done in (("forced_open", "paused"), ("forced_closed", "restored")):
            await everywhere.until_settled()
            made, told, began_at = patches(world.control_plane), statuses(world.control_plane), time.time()
            await _force(state, kind)
            patched_s = (await made.until(resources))[-1] - began_at
            await told.until(resources)  # before that, to look would only hinder
            await until(partial(_are_told, everywhere, is_paused=done == "paused"))
            told_s = told.at()[-1] - began_at
            rows.append(Row(f"{resources} resources: Deployments {done}", patched_s, "s"))
            rows.append(Row(f"{resources} resources: all {done}, and their statuses say so", told_s, "s"))
        await everywhere.until_settled()
        await state.close()
        return rows


async def _create_team(team: Fleet, scope: str, resources: int) -> None:
    await team.create(resources)
    named = [workload.name for workload in await team.workloads()]
    await team.watch(**{name: {"scope": scope, "targets": [{"kind": "Deployment", "name": name}]} for name in named})


async def _are_told(fleet: Fleet, is_paused: bool) -> bool:
    """Whether each resource says how it is, and that nothing is under way."""
    return all(
        is_true(found["status"], "Paused") is is_paused and not is_true(found["status"], "Reconciling")
        for found in await fleet.resources()
    )
