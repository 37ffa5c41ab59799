"""How soon after a failure Deployments are at zero, and what an operator adds to the bare patches of many.

Times are the API server's own, from its audit log. The bare loop makes the same patches with the same client and the
same number at a time, without watching anything. It runs first, while no operator does.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from openrouter_guard import AsyncGuard, CallNotPermitted, OpenRouterStateManager, Settings
from openrouter_guard.rules.breaker import Phase, Policy
from openrouter_operator.cluster import AT_ONCE, Cluster
from openrouter_operator.kinds import DEPLOYMENT
from openrouter_operator.workload import Change, Pause, Workload, restored
from tests.chart.helm import wait_for_crd
from tests.controlplane import ControlPlane
from tests.operator.conftest import CRDS, Operator, resource
from tests.operator.crashes import connected, create, one_of

from .measuring import Effort, Row, percentile
from .valkey import embedded_valkey

__all__ = ["installed", "run"]

FEW = 10
RESET_S = 1.0
PATIENCE_S = 300.0
_POLICY = Policy(reset_timeout_s=RESET_S, max_reset_timeout_s=RESET_S)
_WORKERS = {"kind": "Deployment", "selector": {"matchLabels": {"fleet": "workers"}}}
_MS = 1000.0


def run(effort: Effort) -> Iterator[Row]:
    with ControlPlane() as control_plane, embedded_valkey() as url, TemporaryDirectory() as folder:
        installed(control_plane)
        yield from asyncio.run(_latency(control_plane, url, Path(folder), effort.pauses))
        yield from asyncio.run(_many(control_plane, url, Path(folder), effort))


def installed(control_plane: ControlPlane) -> None:
    control_plane.apply(CRDS)
    wait_for_crd(control_plane)


# -- the world ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Fleet:
    """Deployments in a namespace of their own, whose rollouts have not begun, so that no pods are measured."""

    control_plane: ControlPlane
    cluster: Cluster
    namespace: str

    async def create(self, deployments: int) -> None:
        await create(self.cluster, "/api/v1/namespaces", {"metadata": {"name": self.namespace}})
        place = f"/apis/apps/v1/namespaces/{self.namespace}/deployments"
        names = [f"worker-{number:04}" for number in range(deployments)]
        await _some_at_once(create(self.cluster, place, one_of("Deployment", name, 3)) for name in names)

    async def watch(self) -> None:
        quick: dict[str, Any] = {"pauseAfterSeconds": 0, "minPausedSeconds": 0, "targets": [_WORKERS]}
        resume = {"strategy": "Immediate", "canary": False}
        place = f"/apis/openrouter-guard.io/v1alpha1/namespaces/{self.namespace}/openrouterstatuses"
        await create(self.cluster, place, resource(**quick, scope=self.namespace, resume=resume))
        async with asyncio.timeout(PATIENCE_S):
            while not (await self.cluster.resource(self.namespace, "default")).get("status"):  # noqa: ASYNC110
                await asyncio.sleep(0.1)

    async def until_settled(self) -> None:
        """Until the Deployment controller has written into each what it writes."""
        async with asyncio.timeout(PATIENCE_S):
            while not await self._is_settled():  # noqa: ASYNC110
                await asyncio.sleep(0.2)

    async def _is_settled(self) -> bool:
        found = [body async for body in self.cluster.list(DEPLOYMENT.path, self.namespace)]
        return all(body["status"].get("observedGeneration") == body["metadata"]["generation"] for body in found)

    async def workloads(self) -> list[Workload]:
        listed = self.cluster.list(DEPLOYMENT.path, self.namespace)
        return [Workload.of(DEPLOYMENT, body) async for body in listed]

    async def until_all_have(self, replicas: int) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while any(workload.value != replicas for workload in await self.workloads()):  # noqa: ASYNC110
                await asyncio.sleep(0.2)

    def patched_s(self, since_s: float) -> list[float]:
        """When the API server had made each change of a Deployment here, Unix seconds in order."""
        return sorted(
            at_s
            for event in self.control_plane.audit_events()
            if event["verb"] == "patch" and (event.get("objectRef") or {}).get("namespace") == self.namespace
            if event["objectRef"]["resource"] == "deployments" and event["responseStatus"]["code"] == 200
            if (at_s := datetime.fromisoformat(event["stageTimestamp"]).timestamp()) >= since_s
        )


@asynccontextmanager
async def _operating(fleet: Fleet, url: str, folder: Path) -> AsyncIterator[Operator]:
    environ = {
        "KUBECONFIG": str(fleet.control_plane.kubeconfig),
        "REDIS_URL": url,
        "OPENROUTER_GUARD_NAMESPACES": fleet.namespace,
        "OPENROUTER_GUARD_LEASE_NAMESPACE": fleet.namespace,
        "OPENROUTER_GUARD_OPERATOR_PORT": "0",
        "OPENROUTER_GUARD_ACCESS": json.dumps([{"scopes": [fleet.namespace]}]),
        "OPENROUTER_GUARD_RESET_TIMEOUT_SECONDS": str(RESET_S),
        "OPENROUTER_GUARD_MAX_RESET_TIMEOUT_SECONDS": str(RESET_S),
    }
    operator = Operator(environ, folder / f"{fleet.namespace}.log")
    try:
        yield operator
    finally:
        operator.kill()


async def _some_at_once(work: Any) -> None:
    turns = asyncio.Semaphore(AT_ONCE)

    async def one(each: Any) -> None:
        async with turns:
            await each

    await asyncio.gather(*(one(each) for each in work))


# -- from a failure to zero -----------------------------------------------------------------------------------------


async def _latency(control_plane: ControlPlane, url: str, folder: Path, pauses: int) -> Sequence[Row]:
    async with connected(control_plane) as cluster:
        fleet = Fleet(control_plane, cluster, "few")
        await fleet.create(FEW)
        async with _operating(fleet, url, folder), AsyncGuard(Settings(url, scope="few", policy=_POLICY)) as guard:
            await _succeed(guard)
            await fleet.watch()
            taken_s = [await _pause(fleet, guard) for _ in range(pauses)]
    first_s, last_s = zip(*taken_s, strict=True)
    return [
        Row(f"{what}, p{percent}", percentile(times_s, percent) * _MS, "ms")
        for what, times_s in (
            ("failure to the first patch", first_s),
            (f"failure to {FEW} Deployments at zero", last_s),
        )
        for percent in (50, 95)
    ]


async def _pause(fleet: Fleet, guard: AsyncGuard) -> tuple[float, float]:
    """How long after the failure that opens the breaker the first and the last patch were made; then back."""
    for _ in range(4):
        await _fail(guard)
    await guard.flush()
    failed_s = time.time()
    await _fail(guard)
    await fleet.until_all_have(0)
    patched_s = fleet.patched_s(failed_s)[:FEW]
    while guard.state.phase is not Phase.HALF_OPEN:  # noqa: ASYNC110  nothing tells of time that has passed
        await asyncio.sleep(0.05)
    await _succeed(guard)
    await fleet.until_all_have(3)
    return patched_s[0] - failed_s, patched_s[-1] - failed_s


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


# -- many at once ---------------------------------------------------------------------------------------------------


async def _many(control_plane: ControlPlane, url: str, folder: Path, effort: Effort) -> Sequence[Row]:
    async with connected(control_plane) as cluster:
        fleet, state = Fleet(control_plane, cluster, "many"), OpenRouterStateManager(url, scope="many")
        await fleet.create(effort.targets)
        bare_s = await _bare_pause(fleet), await _bare_restore(fleet)
        await state.set_override("forced_closed", who="benchmark", why="to begin with", for_s=3600)
        async with _operating(fleet, url, folder) as operator:
            await fleet.watch()
            await fleet.until_settled()
            pause_s = await _forced(fleet, state, "forced_open", replicas=0)
            await fleet.until_settled()
            resume_s = await _forced(fleet, state, "forced_closed", replicas=3)
            idle = await _idle(fleet, operator, effort.idle_s)
        await state.close()
    return [
        Row(f"{effort.targets:,} Deployments paused", pause_s, "s", bare_s[0]),
        Row(f"{effort.targets:,} Deployments restored", resume_s, "s", bare_s[1]),
        *idle,
    ]


async def _bare_pause(fleet: Fleet) -> float:
    await fleet.until_settled()
    workloads = await fleet.workloads()
    changes = [
        Change(w, 0, Pause("none", "none", epoch=1, original=w.value, set_to=0, at_s=1_000.0)) for w in workloads
    ]
    return await _bare(fleet, changes)


async def _bare_restore(fleet: Fleet) -> float:
    await fleet.until_settled()
    return await _bare(fleet, [change for w in await fleet.workloads() if (change := restored(w))])


async def _bare(fleet: Fleet, changes: Sequence[Change]) -> float:
    began_s = time.time()
    await asyncio.gather(*(fleet.cluster.change(change) for change in changes))
    return fleet.patched_s(began_s)[-1] - began_s


async def _forced(fleet: Fleet, state: OpenRouterStateManager, kind: str, *, replicas: int) -> float:
    began_s = time.time()
    await state.set_override(kind, who="benchmark", why="to measure", for_s=3600)
    await fleet.until_all_have(replicas)
    return fleet.patched_s(began_s)[-1] - began_s


async def _idle(fleet: Fleet, operator: Operator, idle_s: float) -> Sequence[Row]:
    """What an operator costs that has nothing to do."""
    await asyncio.sleep(2.0)  # the last events of the restore
    cpu_s, before = _cpu_s(operator.pid), _requests(fleet)
    await asyncio.sleep(idle_s)
    spent_s, asked = _cpu_s(operator.pid) - cpu_s, _requests(fleet) - before
    return [
        Row("operator at rest: memory", _memory_mb(operator.pid), "MB"),
        Row("operator at rest: CPU", 100 * spent_s / idle_s, "% of a core"),
        Row("operator at rest: requests to the API server", asked * 3600 / idle_s, "per hour"),
    ]


def _requests(fleet: Fleet) -> int:
    """To its namespace, of which only the operator asks now."""
    events = fleet.control_plane.audit_events()
    return sum((event.get("objectRef") or {}).get("namespace") == fleet.namespace for event in events)


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _memory_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024
