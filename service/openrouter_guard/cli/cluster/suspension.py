"""``openrouter-guard suspend`` and ``resume``: set ``spec.suspend``, and leave no workload paused unasked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

from openrouter_guard.cli.console.output import Answer
from openrouter_guard.cli.console.tables import Block, Table, Text
from openrouter_guard.errors import ConfigurationError
from openrouter_operator.decisions.targets import Candidate, Owner
from openrouter_operator.kubernetes.cli_cluster import CliCluster
from openrouter_operator.kubernetes.client import ClusterError, Refused
from openrouter_operator.resource.spec import InvalidSpec, Spec, parse

from .resources import acts, resource_of
from .workloads import kinds_of, listed

__all__ = ["blocks", "resumed", "suspended"]

TAKEN_UP_S = 10.0
"""How long to wait for the operator; without one, nothing is paused any more either."""
_AGAIN_S = 0.25
_SHOWN = 5


async def suspended(cluster: CliCluster, namespace: str, name: str, *, keeps_paused: bool) -> dict[str, Any]:
    """Suspend a resource, and return it with the workloads that it has paused.

    Args:
        cluster: The cluster.
        namespace: Its namespace.
        name: Its name.
        keeps_paused: Whether paused workloads may stay paused.

    Raises:
        ClusterError: If it cannot be read or changed.
        ConfigurationError: If there is no such resource, or it has paused workloads and *keeps_paused* is false.
    """
    before = await cluster.one_resource(namespace, name)
    if _is_suspended(before):
        return _answer(cluster, before, await _paused_by(cluster, before), is_changed=False)
    if not keeps_paused and (paused := await _paused_by(cluster, before)):
        raise _refusal(before, paused, "it was not suspended")
    made = await cluster.suspend(namespace, name, is_suspended=True)
    try:
        made = await _taken_up(cluster, made)
        paused = await _paused_by(cluster, made)
    except ClusterError as error:
        raise ConfigurationError(f"{_name(made)} is suspended, but it is not known what is paused: {error}") from None
    if paused and not keeps_paused:
        # The operator has paused them between the first look and the change.
        await cluster.suspend(namespace, name, is_suspended=False)
        raise _refusal(before, paused, "it acts again")
    return _answer(cluster, made, paused, is_changed=True)


async def resumed(cluster: CliCluster, namespace: str, name: str) -> dict[str, Any]:
    """Let a resource act again, and return it with the workloads that it has paused.

    Raises:
        ClusterError: If it cannot be read or changed.
        ConfigurationError: If there is no such resource.
    """
    found = await cluster.one_resource(namespace, name)
    is_changed = _is_suspended(found)
    if is_changed:
        found = await cluster.suspend(namespace, name, is_suspended=False)
    try:
        paused = await _paused_by(cluster, found)
    except ClusterError:
        paused = []  # it acts again, which was asked for; the list only adds to that
    return _answer(cluster, found, paused, is_changed=is_changed)


async def _taken_up(cluster: CliCluster, made: dict[str, Any]) -> dict[str, Any]:
    """Return the resource once the operator has seen the change, or after a while."""
    metadata, deadline = made["metadata"], time.monotonic() + TAKEN_UP_S
    while not resource_of(made)["current"] and time.monotonic() < deadline:
        await asyncio.sleep(_AGAIN_S)
        made = await cluster.one_resource(metadata["namespace"], metadata["name"])
    return made


async def _paused_by(cluster: CliCluster, resource: Mapping[str, Any]) -> list[str]:
    metadata = resource["metadata"]
    owner, spec, found = Owner(metadata["uid"], metadata["name"]), _spec(resource), []
    for kind in await kinds_of(cluster, spec):
        try:
            workloads = [each async for each in listed(cluster, kind, metadata["namespace"])]
        except Refused:
            if any(target.is_of(kind) for target in spec.targets):
                raise
            continue  # it has paused some only if an earlier spec named the kind
        found += [str(each) for each in workloads if Candidate(each).is_paused_by(owner)]
    return found


def _spec(resource: Mapping[str, Any]) -> Spec:
    try:
        return parse(resource.get("spec"))
    except InvalidSpec:
        return Spec()


def _is_suspended(resource: Mapping[str, Any]) -> bool:
    return bool(resource_of(resource)["suspend"])


def _refusal(resource: Mapping[str, Any], paused: Sequence[str], outcome: str) -> ConfigurationError:
    more = f" and {len(paused) - _SHOWN} more" if len(paused) > _SHOWN else ""
    return ConfigurationError(
        f"{_name(resource)} has paused {', '.join(paused[:_SHOWN])}{more}, which would "
        f"stay paused: {outcome}; wait until they are back, or add --keep-paused"
    )


def _name(resource: Mapping[str, Any]) -> str:
    return f"OpenRouterStatus {resource['metadata']['name']}"


def _answer(
    cluster: CliCluster, resource: Mapping[str, Any], paused: list[str], *, is_changed: bool
) -> dict[str, Any]:
    return {"cluster": cluster.host, "resource": resource_of(resource), "changed": is_changed, "paused": paused}


def blocks(answer: Answer) -> Sequence[Block]:
    resource, paused = answer["resource"], [(each,) for each in answer["paused"]]
    name = f"OpenRouterStatus {resource['name']} in {resource['namespace']}"
    found: list[Block] = [Text(f"{name} {_words(answer)}.")]
    if answer["changed"] and resource["suspend"] and not resource["current"]:
        found.append(Text("No operator has taken that up yet: openrouter-guard doctor checks its Lease."))
    if paused:
        title = "stay paused until you resume it" if resource["suspend"] else "paused now"
        found.append(Table(("workload",), paused, title=title))
    return found


def _words(answer: Answer) -> str:
    resource, is_changed = answer["resource"], answer["changed"]
    if resource["suspend"]:
        return f"is suspended{'' if is_changed else ' already'}: its workloads stay as they are until you resume it"
    if not is_changed:
        return "is not suspended: nothing was changed"
    why = acts(resource)
    if why != "yes":
        return f"is no longer suspended, and still does not act ({why[4:]})"
    return "acts again: it pauses and resumes workloads by the state of the breaker"
