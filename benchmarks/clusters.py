"""Deployments, resources and operators on a control plane, and how to observe them.

Times are the API server's own, from its audit log, which is read on and never anew: to ask the API server itself
would take the time that is measured.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from openrouter_operator.kubernetes.client import AT_ONCE, Cluster
from openrouter_operator.kubernetes.paths import RESOURCE
from openrouter_operator.workloads.kinds import DEPLOYMENT
from openrouter_operator.workloads.workload import Workload
from tests.chart.helm import wait_for_crd
from tests.controlplane import ControlPlane
from tests.operator.conftest import CRDS, Operator, resource
from tests.operator.crashes import create, one_of

from .measuring import Row

__all__ = [
    "PODS",
    "Answers",
    "Fleet",
    "World",
    "at_rest",
    "installed",
    "patches",
    "some_at_once",
    "statuses",
    "tidings",
    "until",
]

PODS = 3
"""Of each Deployment, while it is not paused."""
_QUICK: Mapping[str, Any] = {
    "pauseAfterSeconds": 0,
    "minPausedSeconds": 0,
    "resume": {"strategy": "Immediate", "canary": False},
}
PATIENCE_S = 600.0
_POLL_S = 0.1
_SETTLE_S = 6.0
"""After which nothing is under way any more of what was done last: kopf lets go of an object after five."""
_Event = dict[str, Any]


def installed(control_plane: ControlPlane) -> None:
    control_plane.apply(CRDS)
    wait_for_crd(control_plane)


async def until(holds: Callable[[], Awaitable[bool]], poll_s: float = _POLL_S) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not await holds():  # noqa: ASYNC110  nothing tells of it
            await asyncio.sleep(poll_s)


async def some_at_once(work: Iterable[Awaitable[object]]) -> None:
    """As many as an operator makes at once."""
    turns = asyncio.Semaphore(AT_ONCE)

    async def one(each: Awaitable[object]) -> None:
        async with turns:
            await each

    await asyncio.gather(*map(one, work))


# -- what the API server did ----------------------------------------------------------------------------------------


class Answers:
    """Successful answers that match, from the moment that this is made: when each was given, Unix seconds."""

    def __init__(self, control_plane: ControlPlane, matches: Callable[[_Event], bool]) -> None:
        self._log = control_plane.audit_log()
        self._matches = matches
        self._at: list[float] = []

    def at(self) -> list[float]:
        """All so far, in order."""
        found = (event for event in self._log.more() if event["responseStatus"]["code"] < 300)
        self._at += [_at(event) for event in found if self._matches(event)]
        return sorted(self._at)

    async def until(self, number: int) -> list[float]:
        async def are_there() -> bool:
            return len(self.at()) >= number

        await until(are_there)
        return self.at()


def patches(control_plane: ControlPlane, namespace: str = "") -> Answers:
    """The pauses and their ends from now on, of Deployments in one namespace or (empty) everywhere.

    An operator names itself in these; it does not where it gives fields back.
    """
    what = ("patch", "deployments", None)
    return Answers(
        control_plane, lambda event: _is(event, what, namespace) and "fieldManager=" in event["requestURI"]
    )


def tidings(control_plane: ControlPlane, namespace: str) -> Answers:
    """The events that are posted in a namespace from now on."""
    return Answers(control_plane, lambda event: _is(event, ("create", "events", None), namespace))


def statuses(control_plane: ControlPlane) -> Answers:
    """The statuses of resources that are written from now on."""
    return Answers(control_plane, lambda event: _is(event, ("update", "openrouterstatuses", "status")))


def _is(event: _Event, what: tuple[str | None, ...], namespace: str = "") -> bool:
    *found, where = _what(event)
    return tuple(found) == what and namespace in ("", where)


def _at(event: _Event) -> float:
    return datetime.fromisoformat(event["stageTimestamp"]).timestamp()


def _what(event: _Event) -> tuple[str | None, ...]:
    """Verb, kind, subresource and namespace."""
    about = event.get("objectRef") or {}
    return event["verb"], about.get("resource"), about.get("subresource"), about.get("namespace")


# -- the world ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class World:
    """What the operators of one run share."""

    control_plane: ControlPlane
    redis_url: str
    folder: Path

    @contextmanager
    def operating(self, name: str, *namespaces: str, **environ: str) -> Iterator[Operator]:
        """An operator of its own user; without namespaces it looks after all of them."""
        kubeconfig = self.control_plane.kubeconfig_for(user_of(name), ["system:masters"])
        ours = {
            "KUBECONFIG": str(kubeconfig),
            "REDIS_URL": self.redis_url,
            "OPENROUTER_GUARD_NAMESPACES": ",".join(namespaces),
            "OPENROUTER_GUARD_LEASE_NAMESPACE": "default",
            "OPENROUTER_GUARD_LEASE_NAME": user_of(name),
            "OPENROUTER_GUARD_OPERATOR_PORT": "0",
            "OPENROUTER_GUARD_ACCESS": json.dumps([{"scopes": [name]}]),
        }
        operator = Operator(ours | environ, self.folder / f"{name}.log")
        try:
            yield operator
        finally:
            operator.kill()


def user_of(name: str) -> str:
    return f"operator-{name}"


@dataclass(frozen=True, slots=True)
class Fleet:
    """Deployments in a namespace of their own, whose rollouts have not begun, so that no pods are measured.

    One whose namespace is empty is all of them.
    """

    cluster: Cluster
    namespace: str

    async def create(self, deployments: int) -> None:
        await create(self.cluster, "/api/v1/namespaces", {"metadata": {"name": self.namespace}})
        place = f"/apis/apps/v1/namespaces/{self.namespace}/deployments"
        names = [f"worker-{number:04}" for number in range(deployments)]
        await some_at_once(create(self.cluster, place, one_of("Deployment", name, PODS)) for name in names)

    async def watch(self, **resources: Mapping[str, Any]) -> None:
        """Create resources, by name, and wait until each has a status."""
        place = f"/apis/openrouter-guard.io/v1alpha1/namespaces/{self.namespace}/openrouterstatuses"
        await some_at_once(
            create(self.cluster, place, resource(name, **_QUICK, **spec)) for name, spec in resources.items()
        )

        async def are_taken_up() -> bool:
            return all(map(_has_status, await self.resources()))

        await until(are_taken_up)

    async def resources(self) -> list[Mapping[str, Any]]:
        return [found async for found in self.cluster.list(RESOURCE, self.namespace)]

    async def until_settled(self) -> None:
        """Until the Deployment controller has written into each what it writes."""

        async def is_settled() -> bool:
            found = [body async for body in self.cluster.list(DEPLOYMENT.path, self.namespace)]
            return all(body["status"].get("observedGeneration") == body["metadata"]["generation"] for body in found)

        await until(is_settled, poll_s=0.5)

    async def until_free(self) -> None:
        """Until the operator has given back its fields, those of the bare patches too: that is work of its own."""

        async def is_free() -> bool:
            return not any(workload.owes_fields for workload in await self.workloads())

        await until(is_free, poll_s=0.5)

    async def workloads(self) -> list[Workload]:
        return [Workload.of(DEPLOYMENT, body) async for body in self.cluster.list(DEPLOYMENT.path, self.namespace)]

    async def have(self, replicas: int) -> bool:
        """Whether all Deployments have so many."""
        return all(workload.value == replicas for workload in await self.workloads())


def _has_status(found: Mapping[str, Any]) -> bool:
    return bool(found.get("status"))


# -- at rest --------------------------------------------------------------------------------------------------------


async def at_rest(control_plane: ControlPlane, operators: Mapping[str, Operator], idle_s: float) -> list[Row]:
    """What operators cost that have nothing to do, all in the same time; they are called as what they look after."""
    await asyncio.sleep(min(_SETTLE_S, idle_s))
    log, before_s = control_plane.audit_log(), {name: _cpu_s(each.pid) for name, each in operators.items()}
    await asyncio.sleep(idle_s)
    spent_s = {name: _cpu_s(each.pid) - before_s[name] for name, each in operators.items()}
    asked = Counter((event["user"]["username"], _what(event)[1] == "leases") for event in log.more())
    return [
        row
        for name, operator in operators.items()
        for row in (
            Row(f"at rest with {name}: memory", _memory_mb(operator.pid), "MB"),
            Row(f"at rest with {name}: CPU", 100 * spent_s[name] / idle_s, "% of a core"),
            Row(
                f"at rest with {name}: requests for its Lease",
                _hourly(asked[user_of(name), True], idle_s),
                "per hour",
            ),
            Row(f"at rest with {name}: other requests", _hourly(asked[user_of(name), False], idle_s), "per hour"),
        )
    ]


def _hourly(requests: int, seconds: float) -> float:
    return requests * 3600 / seconds


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _memory_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024
