"""Stories that kill and restart the operator at some request while it pauses and resumes a fleet.

Each has a namespace, a scope, an operator process and a proxy of its own, so that many can run at once.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import random
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from kubernetes.aio.client import Configuration
from kubernetes.aio.config import load_kube_config

from openrouter_guard import OpenRouterStateManager, StoreUnavailable
from openrouter_operator.kubernetes.client import Cluster, Unavailable
from openrouter_operator.workloads.kinds import BY_NAME
from openrouter_operator.workloads.workload import Workload
from tests.controlplane import ControlPlane
from tests.operator.conftest import deployment, resource
from tests.operator.proxy import Do, Fault, Proxy, Reset, Seen

__all__ = ["Body", "Deaths", "Outcome", "Story", "connected", "create", "fleet_of", "one_of", "play", "random_deaths"]

LEASE_S = (1, 16)
"""The life of the first operator's lease, and the longest: after one that could not renew its own in time, the next
one gets twice as long, so that a slow machine is not taken for a bad operator."""
REDIS_S = "5"
"""So long an operator waits for Redis, for the same reason."""
PATIENCE_S = 60.0
"""Without any progress: a change of a workload, or of the status."""
STARVED_S = 10.0
"""After so long, one that says that it gets no answer about its lease is given more time."""
_NO_ANSWER = b"no answer within"
_POLL_S = 0.2
_RESOURCES = "/apis/openrouter-guard.io/v1alpha1/namespaces/{}/openrouterstatuses"
Body: TypeAlias = dict[str, Any]
_forkserver = multiprocessing.get_context("forkserver")
_forkserver.set_forkserver_preload(["openrouter_operator.main"])


@dataclass(frozen=True, slots=True)
class Deaths:
    """After which requests the operator dies, counted anew since its start and since each turn of the story.

    The API server has done what was asked; the operator never hears of it.

    Attributes:
        pausing: One number for each operator that is to die while pausing.
        resuming: The same while resuming.
        only_writes: Whether only writes count, which then go one by one.
    """

    pausing: Sequence[int] = ()
    resuming: Sequence[int] = ()
    only_writes: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a story went.

    Attributes:
        wrong: What is not as it should be; empty if all is well.
        deaths: How many operators died.
        writes: How many writes were made while pausing and while resuming.
    """

    wrong: Sequence[str]
    deaths: int
    writes: tuple[int, int]


def random_deaths(seed: int, targets: int) -> Deaths:
    """One or two deaths in each half, somewhere among the requests that it takes."""
    lot = random.Random(seed)

    def some() -> list[int]:
        return [lot.randint(1, targets + 8) for _ in range(lot.randint(1, 2))]

    return Deaths(pausing=some(), resuming=some())


def fleet_of(seed: int, targets: int) -> list[Body]:
    """Workloads of several kinds and sizes; some are at zero, or suspended by their owner."""
    lot = random.Random(seed)
    kinds, sizes = [*_MAKERS, "Deployment", "Deployment"], [0, 1, 1, 2, 3, 8, 100]
    return [one_of(lot.choice(kinds), f"worker-{number:02}", lot.choice(sizes)) for number in range(targets)]


def one_of(kind: str, name: str, pods: int = 1) -> Body:
    """A workload with the label ``fleet: workers``."""
    return _MAKERS[kind](name, pods)


def _deployment(name: str, replicas: int) -> Body:
    """One whose rollout has not begun: nobody looks at its pods here."""
    body = deployment(name, replicas)
    body["spec"]["paused"] = True
    return body


def _stateful_set(name: str, replicas: int) -> Body:
    body = deployment(name, replicas)
    return body | {"kind": "StatefulSet", "spec": body["spec"] | {"podManagementPolicy": "OrderedReady"}}


def _cron_job(name: str, pods: int) -> Body:
    template = {"spec": _job(name, pods)["spec"] | {"suspend": None}}
    return _batch("CronJob", name, schedule="0 0 1 1 *", suspend=pods == 0, jobTemplate=template)


def _job(name: str, pods: int) -> Body:
    container = {"name": "worker", "image": "worker"}
    template = {"spec": {"restartPolicy": "Never", "containers": [container]}}
    return _batch("Job", name, suspend=pods == 0, template=template)


def _batch(kind: str, name: str, **spec: Any) -> Body:
    metadata = {"name": name, "labels": {"fleet": "workers"}}
    return {"apiVersion": "batch/v1", "kind": kind, "metadata": metadata, "spec": spec}


_MAKERS = {"Deployment": _deployment, "StatefulSet": _stateful_set, "CronJob": _cron_job, "Job": _job}


@asynccontextmanager
async def connected(control_plane: ControlPlane) -> AsyncIterator[Cluster]:
    """The administrator's connection."""
    configuration = Configuration()
    await load_kube_config(str(control_plane.kubeconfig), client_configuration=configuration)  # type: ignore[no-untyped-call]
    async with Cluster(configuration) as cluster:
        yield cluster


async def create(cluster: Cluster, path: str, body: Body) -> Body:
    """Make one object; returns it as it is then."""
    return await cluster._request("POST", path, body=body)


async def play(
    stories: Sequence[Story], at_once: int = 4, after: Callable[[Outcome], None] = lambda _: None
) -> list[Outcome]:
    """All of them, a few at a time; *after* is called after each."""
    turns = asyncio.Semaphore(at_once)

    async def one(story: Story) -> Outcome:
        async with turns:
            outcome = await story.run()
        after(outcome)
        return outcome

    return await asyncio.gather(*(one(story) for story in stories))


class _Killer:
    """Kills the operator at the request whose turn it is."""

    def __init__(self, kill: Callable[[], None], only_writes: bool) -> None:
        self.kill = kill
        self.is_dead = False
        self.writes = 0
        self._only_writes = only_writes
        self._at = 0
        self._count = 0

    def arm(self, at: int) -> None:
        self.is_dead, self._at, self._count = False, at, 0

    def rule(self, seen: Seen) -> Fault | None:
        if self.is_dead:
            return Reset()  # sent before it died
        self.writes += seen.is_write
        if seen.is_watch or (self._only_writes and not seen.is_write):
            return None
        self._count += 1
        return Do(after=self._die) if self._count == self._at else None

    def _die(self) -> None:
        self.is_dead = True
        self.kill()


@dataclass
class Story:
    """A fleet, paused by a person and then resumed, and an operator with these deaths."""

    control_plane: ControlPlane
    cluster: Cluster
    redis_url: str
    folder: Path
    name: str
    fleet: Sequence[Body]
    deaths: Deaths
    resume: Mapping[str, Any] = field(default_factory=lambda: {"strategy": "Immediate"})
    _were: dict[str, Workload] = field(default_factory=dict, init=False)

    async def run(self) -> Outcome:
        async with AsyncExitStack() as stack:
            await self._create()
            stack.push_async_callback(self._delete)
            state = OpenRouterStateManager(self.redis_url, scope=self.name)
            stack.push_async_callback(state.close)
            # Before the operator starts: what it writes before that would not count among what it can die of.
            await _force(state, "forced_open")
            proxy = await stack.enter_async_context(
                Proxy(self.control_plane, self.folder / f"{self.name}.kubeconfig")
            )
            life = await stack.enter_async_context(_living(self._environ(proxy), self.folder / f"{self.name}.log"))
            killer = _Killer(life.kill, self.deaths.only_writes)
            proxy.rule, proxy.is_serial = killer.rule, self.deaths.only_writes
            wrong = await self._lock(life, killer, self.deaths.pausing, self._unpaused)
            pausing = killer.writes
            await _force(state, "forced_closed")
            wrong += await self._lock(life, killer, self.deaths.resuming, self._unresumed)
            return Outcome(
                [f"{self.name}: {each}" for each in wrong], life.deaths, (pausing, killer.writes - pausing)
            )

    async def _lock(
        self, life: _Life, killer: _Killer, deaths: Sequence[int], missing: Callable[[], Any]
    ) -> list[str]:
        """Let operators act, and die, until nothing is missing."""
        waiting = list(deaths)
        killer.arm(waiting.pop(0) if waiting else 0)
        patience, found = _Patience(), await missing()
        while found or killer.is_dead:
            if killer.is_dead:
                await life.end()
                life.deaths += 1
                killer.arm(waiting.pop(0) if waiting else 0)
                life.begin()
            elif life.has_ended or (patience.idle_s > STARVED_S and life.is_starved):
                await life.end()
                life.begin_with_more_time()
            if patience.idle_s > PATIENCE_S:
                return list(found)
            await asyncio.sleep(_POLL_S)
            with suppress(Unavailable):  # where a busy machine keeps the API server from answering
                found = await missing()
                patience.see(found)
        return []

    # -- what is missing --------------------------------------------------------------------------------------

    async def _workloads(self) -> list[Workload]:
        return [
            Workload.of(kind, body)
            for kind in {BY_NAME[body["kind"]].path: BY_NAME[body["kind"]] for body in self.fleet}.values()
            async for body in self.cluster.list(kind.path, self.name)
        ]

    async def _unpaused(self) -> list[str]:
        """Workloads that run, or that have forgotten what they were."""
        found = [f"{w}: {w.value!r}, {w.pause}" for w in await self._workloads() if not self._rests(w)]
        return found or await self._untold("True")

    def _rests(self, workload: Workload) -> bool:
        was = self._were[str(workload)]
        if was.pods == 0:
            return workload.pause is None and workload.value == was.value
        return workload.pods == 0 and workload.pause is not None and workload.pause.original == was.value

    async def _unresumed(self) -> list[str]:
        found = [
            f"{w}: {w.value!r} and not {self._were[str(w)].value!r}, {w.pause}"
            for w in await self._workloads()
            if w.pause or w.value != self._were[str(w)].value
        ]
        return found or await self._untold("False")

    async def _untold(self, is_paused: str) -> list[str]:
        """What the status does not say yet."""
        body = await self.cluster.resource(self.name, "default")
        expected = {"Paused": is_paused, "Reconciling": "False", "Ready": "True"}
        told = {c["type"]: c["status"] for c in (body.get("status") or {}).get("conditions") or ()}
        return [f"{kind} is {told.get(kind)}" for kind, status in expected.items() if told.get(kind) != status]

    # -- around it --------------------------------------------------------------------------------------------

    async def _create(self) -> None:
        await create(self.cluster, "/api/v1/namespaces", {"metadata": {"name": self.name}})
        for made in await asyncio.gather(*map(self._make, self.fleet)):
            self._were[str(made)] = made
        kinds = sorted({body["kind"] for body in self.fleet})
        targets = [{"kind": kind, "selector": {"matchLabels": {"fleet": "workers"}}} for kind in kinds]
        quick: dict[str, Any] = {"pauseAfterSeconds": 0, "minPausedSeconds": 0, "resume": dict(self.resume)}
        body = resource(**quick, scope=self.name, targets=targets)
        await create(self.cluster, _RESOURCES.format(self.name), body)

    async def _make(self, body: Body) -> Workload:
        kind = BY_NAME[body["kind"]]
        place = f"/apis/{kind.group}/{kind.version}/namespaces/{self.name}/{kind.plural}"
        return Workload.of(kind, await create(self.cluster, place, body))

    async def _delete(self) -> None:
        place = f"{_RESOURCES.format(self.name)}/default"
        await self.cluster._request("PATCH", place, body={"metadata": {"finalizers": None}})
        await self.cluster._request("DELETE", f"/api/v1/namespaces/{self.name}")

    def _environ(self, proxy: Proxy) -> dict[str, str]:
        return {
            "KUBECONFIG": str(proxy.kubeconfig),
            "REDIS_URL": self.redis_url,
            "OPENROUTER_GUARD_NAMESPACES": self.name,
            "OPENROUTER_GUARD_LEASE_NAMESPACE": self.name,
            "OPENROUTER_GUARD_REDIS_TIMEOUT_SECONDS": REDIS_S,
            "OPENROUTER_GUARD_ACCESS": json.dumps([{"scopes": [self.name]}]),
            "OPENROUTER_GUARD_OPERATOR_PORT": "0",
        }


async def _force(state: OpenRouterStateManager, kind: str) -> None:
    """A person's word; said again where a busy machine keeps Redis from answering in time."""
    async with asyncio.timeout(2 * PATIENCE_S):
        while True:
            with suppress(StoreUnavailable):
                await state.set_override(kind, who="story", why="crash test", for_s=3600)
                return
            await asyncio.sleep(_POLL_S)


class _Patience:
    """Counts the time since something has changed, however long it all takes."""

    def __init__(self) -> None:
        self._seen: Sequence[str] = ()
        self._since = time.monotonic()

    @property
    def idle_s(self) -> float:
        return time.monotonic() - self._since

    def see(self, found: Sequence[str]) -> None:
        if found != self._seen:
            self._seen, self._since = found, time.monotonic()


class _Life:
    """One operator process after another."""

    def __init__(self, environ: Mapping[str, str], log: Path) -> None:
        self.deaths = 0
        self._lease_s = LEASE_S[0]
        self._environ, self._log, self._said = dict(environ), log, 0
        self.begin()

    def kill(self) -> None:
        self._process.kill()

    @property
    def has_ended(self) -> bool:
        return not self._process.is_alive()

    @property
    def is_starved(self) -> bool:
        """Whether it says that the API server is too slow for its lease."""
        return self._log.exists() and _NO_ANSWER in self._log.read_bytes()[self._said :]

    async def end(self) -> None:
        self._process.kill()
        while self._process.is_alive():  # noqa: ASYNC110  nothing tells of it
            await asyncio.sleep(0.01)
        self._process.join()

    def begin(self) -> None:
        environ = self._environ | {"OPENROUTER_GUARD_LEASE_SECONDS": str(self._lease_s)}
        self._said = self._log.stat().st_size if self._log.exists() else 0
        self._process = _forkserver.Process(target=_operate, args=(environ, str(self._log)), daemon=True)
        self._process.start()

    def begin_with_more_time(self) -> None:
        """After one that could not take or renew its lease in time."""
        self._lease_s = min(2 * self._lease_s, LEASE_S[1])
        self.begin()


@asynccontextmanager
async def _living(environ: Mapping[str, str], log: Path) -> AsyncIterator[_Life]:
    life = _Life(environ, log)
    try:
        yield life
    finally:
        await life.end()


def _operate(environ: dict[str, str], log: str) -> None:
    """``openrouter-guard operate`` in a process that has loaded it already."""
    os.environ.update(environ)
    with Path(log).open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    from kubernetes.aio.config import kube_config

    from openrouter_guard.cli import main

    kube_config.KUBE_CONFIG_DEFAULT_LOCATION = environ["KUBECONFIG"]  # it was read when that was loaded
    sys.exit(main(["operate"]))
