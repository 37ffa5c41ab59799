"""A drill of one ``OpenRouterStatus``, with a kubeconfig alone: its operator forces the scope open."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

from openrouter_guard.cli.cluster.resources import acts, resource_of
from openrouter_guard.cli.cluster.workloads import kinds_of
from openrouter_guard.errors import ConfigurationError
from openrouter_guard.rules.codec import iso
from openrouter_operator.decisions.targets import Candidate, Owner
from openrouter_operator.kubernetes.cli_cluster import CliCluster
from openrouter_operator.resource.spec import Spec, parse
from openrouter_operator.workloads.workload import Workload

from .course import Seen
from .rehearsal import WHY

__all__ = ["ResourceSubject"]


class ResourceSubject:
    """A resource whose ``spec.override`` forces its scope open."""

    def __init__(self, cluster: CliCluster, namespace: str, name: str) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._name = name
        self._override: dict[str, Any] | None = None

    @property
    def name(self) -> str:
        return f"OpenRouterStatus {self._name} in {self._namespace}"

    async def seen(self) -> Seen:
        resource = await self._read()
        spec, owner = parse(resource.get("spec")), Owner(resource["metadata"]["uid"], self._name)
        paused, pods = set(), 0
        async for workload, running in self._workloads(spec):
            if Candidate(workload).is_paused_by(owner):
                paused.add(str(workload))
            pods += running
        return Seen(frozenset(paused), pods)

    async def force(self, for_s: float) -> None:
        resource = await self._read()
        told = resource_of(resource)
        if told["override"] or (told["breaker"] or {}).get("state") != "closed" or acts(told) != "yes":
            raise ConfigurationError(
                f"{self.name} does not act, or its breaker is not closed: drill when all is well"
            )
        if (resource["spec"].get("override") or {}).get("action", "None") != "None":
            raise ConfigurationError(f"{self.name} has an override in its spec: take it out first")
        until = iso(self._cluster.now + for_s)
        self._override = {"action": "ForceOpen", "reason": WHY, "until": until}
        await self._cluster.override(resource, self._override)

    async def release(self) -> bool:
        resource = await self._read()
        found = resource["spec"].get("override")
        if found is None or found != self._override:
            return False
        await self._cluster.override(resource, None)
        return True

    async def _read(self) -> dict[str, Any]:
        return await self._cluster.one_resource(self._namespace, self._name)

    async def _workloads(self, spec: Spec) -> AsyncIterator[tuple[Workload, int]]:
        """Yield the targets with the number of their pods."""
        for kind in await kinds_of(self._cluster, spec):
            if not any(target.is_of(kind) for target in spec.targets):
                continue
            async for body in self._cluster.list(kind.path, self._namespace):
                workload = Workload.of(kind, body)
                if spec.matches(workload):
                    yield workload, _pods(body)


def _pods(body: Mapping[str, Any]) -> int:
    return int((body.get("status") or {}).get("replicas") or 0)
