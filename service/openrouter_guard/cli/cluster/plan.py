"""``openrouter-guard plan``: what a resource would pause if the breaker opened now. Nothing is changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from openrouter_guard.cli.console.output import Answer
from openrouter_guard.cli.console.tables import Block, Table, Text
from openrouter_guard.errors import ConfigurationError
from openrouter_guard.rules.breaker import Open
from openrouter_guard.rules.shared_state import SharedState
from openrouter_operator.controller.gather import Gatherer, unmatched, unwatched
from openrouter_operator.controller.pause_journal import PauseJournal
from openrouter_operator.decisions.goal import Goal, Step
from openrouter_operator.decisions.plan import changes
from openrouter_operator.decisions.snapshot import ScopeSnapshot
from openrouter_operator.decisions.targets import Owner, skip
from openrouter_operator.kubernetes.cli_cluster import CliCluster
from openrouter_operator.kubernetes.client import NotFound
from openrouter_operator.kubernetes.paths import AUTOSCALERS
from openrouter_operator.resource.precedence import Precedence
from openrouter_operator.resource.spec import Spec, parse
from openrouter_operator.workloads.inventory import Inventory

from .resources import acts, resource_of
from .workloads import kinds_of, listed

__all__ = ["blocks", "in_file", "planned"]

_YOUNGEST = "9999-12-31T23:59:59Z"
_WAIT_S = 60.0


def in_file(text: str, namespace: str) -> dict[str, Any]:
    """Return the one ``OpenRouterStatus`` of a manifest.

    Raises:
        ConfigurationError: If there is none, or more than one, or it is not YAML.
    """
    import yaml

    try:
        found = [each for each in yaml.safe_load_all(text) if isinstance(each, dict)]
    except yaml.YAMLError as error:
        raise ConfigurationError(f"the file is not YAML{_place(error)}") from None
    ours = [each for each in found if each.get("kind") == "OpenRouterStatus"]
    if len(ours) != 1:
        raise ConfigurationError(f"the file has {len(ours)} OpenRouterStatus resources: write exactly one")
    metadata = ours[0].get("metadata") or {}
    named = {"namespace": metadata.get("namespace", namespace), "name": str(metadata.get("name", "default"))}
    return {**ours[0], "metadata": named}


def _place(error: Exception) -> str:
    """Return where the file is damaged; the message itself quotes it, and a Secret may be in it too."""
    mark = getattr(error, "problem_mark", None)
    return f": see line {mark.line + 1}" if mark else ""


async def planned(cluster: CliCluster, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a resource would do if the breaker opened now.

    Args:
        cluster: Is only read.
        wanted: The resource: one of the cluster, or a new one, or a new spec for one.

    Raises:
        ClusterError: If the API server cannot be read.
        InvalidSpec: If the spec is invalid.
    """
    resource, exists = await _as_there(cluster, wanted)
    metadata, spec = resource["metadata"], parse(resource.get("spec"))
    namespace, owner = metadata["namespace"], Owner(metadata["uid"], metadata["name"])
    inventory, precedence = await _inventory(cluster, namespace, spec), await _precedence(cluster, resource)
    targets = Gatherer(inventory, precedence, PauseJournal()).targets(namespace, owner, spec)
    snapshot = _outage(spec, cluster.now)
    made = changes(Goal(Step.PAUSE, "Planned"), snapshot, targets)
    left = [(c.workload, skip(c, owner, snapshot.outage)) for c in targets.matched]
    lacking = [*unwatched(inventory, spec), *unmatched(inventory, namespace, spec)]
    return {
        "cluster": cluster.host,
        "resource": {"namespace": namespace, "name": owner.name, "exists": exists},
        "acts": acts(resource_of(resource)),
        "would_pause": [
            {"workload": str(each.workload), "pods": each.workload.pods, "to": each.pods}
            for each in made
            if each.pause is not None and each.is_written
        ],
        "paused": [str(c.workload) for c in targets.owned],
        "left_alone": [
            {"workload": str(workload), "reason": why.reason, "message": why.message or None}
            for workload, why in left
            if why is not None
        ],
        "problems": [{"target": each.target, "reason": each.reason, "message": each.message} for each in lacking],
    }


async def _as_there(cluster: CliCluster, wanted: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """Return the resource with the identity that it has in the cluster, or would get there."""
    metadata = wanted["metadata"]
    try:
        there = (await cluster.resource(metadata["namespace"], metadata["name"]))["metadata"]
    except NotFound:
        return {**wanted, "metadata": {**metadata, "uid": "planned", "creationTimestamp": _YOUNGEST}}, False
    return {**wanted, "metadata": there}, True


async def _inventory(cluster: CliCluster, namespace: str, spec: Spec) -> Inventory:
    kinds = await kinds_of(cluster, spec)
    inventory = Inventory(kinds)
    for kind in kinds:
        async for workload in listed(cluster, kind, namespace):
            inventory.put(workload)
    async for body in cluster.list(AUTOSCALERS, namespace):
        inventory.put_autoscaler(body)
    return inventory


async def _precedence(cluster: CliCluster, resource: Mapping[str, Any]) -> Precedence:
    precedence = Precedence()
    for each in await cluster.resources(resource["metadata"]["namespace"]):
        precedence.put(each)
    # As if it acted: the question is what it would do.
    spec = {**(resource.get("spec") or {}), "suspend": False, "dryRun": False}
    precedence.put({**resource, "spec": spec})
    return precedence


def _outage(spec: Spec, now: float) -> ScopeSnapshot:
    record = SharedState(Open("planned", now, now + _WAIT_S), epoch=1)
    return ScopeSnapshot(record, now, is_fresh=True, last_known_at=now, since=now, scope=spec.scope)


def blocks(answer: Answer) -> Sequence[Block]:
    return list(_blocks(answer))


def _blocks(answer: Answer) -> Iterator[Block]:
    resource = answer["resource"]
    name = f"OpenRouterStatus {resource['name']} in {resource['namespace']}"
    yield Text(f"If the breaker opened now, {name} would pause:")
    rows = [(each["workload"], each["pods"], each["to"]) for each in answer["would_pause"]]
    yield Table(("workload", "pods", "would have"), rows, empty="nothing")
    if answer["acts"] != "yes":
        yield Text(f"But it would not act by itself ({answer['acts'][4:]}).")
    if answer["paused"]:
        yield Table(("workload",), [(each,) for each in answer["paused"]], title="already paused")
    if answer["left_alone"]:
        alone = [(each["workload"], each["reason"], each["message"]) for each in answer["left_alone"]]
        yield Table(("workload", "reason", "message"), alone, title="left alone")
    if answer["problems"]:
        problems = [(each["target"], each["reason"], each["message"]) for each in answer["problems"]]
        yield Table(("target", "reason", "message"), problems, title="problems")
