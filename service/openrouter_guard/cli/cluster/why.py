"""``openrouter-guard why deploy/NAME``: why a workload is at zero, or is not, and when it comes back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from openrouter_guard.cli.console.output import Answer
from openrouter_guard.cli.console.tables import Block, Facts, Table, Text
from openrouter_guard.cli.console.times import ago, until
from openrouter_guard.errors import ConfigurationError
from openrouter_guard.rules.codec import iso, parse_iso
from openrouter_guard.variables import nearest
from openrouter_operator.kubernetes.cli_cluster import CliCluster
from openrouter_operator.kubernetes.client import ClusterError, NotFound
from openrouter_operator.kubernetes.paths import CRDS
from openrouter_operator.resource.spec import InvalidSpec, parse
from openrouter_operator.workloads.kinds import BY_NAME, Kind, UnusableKind, from_crd
from openrouter_operator.workloads.workload import OPT, Workload

from .explanation import explained
from .resources import resource_of

__all__ = ["about", "blocks", "kind_of"]

_SHORT = {"deploy": "Deployment", "sts": "StatefulSet", "cj": "CronJob", "rs": "ReplicaSet", "so": "ScaledObject"}
EVENTS_SHOWN = 15


async def kind_of(cluster: CliCluster, word: str) -> Kind:
    """Return the kind that kubectl means by *word*: ``deploy``, ``deployments``, or the plural of a CRD.

    Raises:
        ConfigurationError: If there is no such kind, or it has no number of replicas.
    """
    names = {form: kind for kind in BY_NAME.values() for form in (kind.name.lower(), kind.plural)}
    names |= {short: BY_NAME[name] for short, name in _SHORT.items() if name in BY_NAME}
    if word.lower() in names:
        return names[word.lower()]
    if "." not in word:
        meant = nearest(word.lower(), names)
        hint = (
            f"did you mean {meant}?"
            if meant
            else "write deploy, sts, cj, job, or a plural such as rollouts.argoproj.io"
        )
        raise ConfigurationError(f"{word!r} is not a kind of workloads: {hint}")
    try:
        return from_crd(await cluster.get(CRDS, "", word.lower()))
    except NotFound:
        raise ConfigurationError(f"this cluster has no {word.lower()}") from None
    except UnusableKind as error:
        raise ConfigurationError(f"{word} cannot be paused: {error}") from None


async def about(cluster: CliCluster, namespace: str, kind: str, name: str) -> dict[str, Any]:
    """Return all that explains the present state of a workload.

    Raises:
        ClusterError: If it cannot be read.
        ConfigurationError: If there is no such kind or workload.
    """
    workload = await _found(cluster, namespace, kind, name)
    owner = _owner(workload, await cluster.resources(namespace))
    told = resource_of(owner) if owner else None
    problems = [each for each in (told or {}).get("problems", ()) if each["target"] == str(workload)]
    return {
        "cluster": cluster.host,
        "workload": _workload(workload),
        "pause": _pause(workload),
        "resource": told,
        "problems": problems,
        "events": await _events(cluster, workload, owner),
        "explanation": list(explained(workload, told, problems)),
        "now": iso(cluster.now),
    }


async def _found(cluster: CliCluster, namespace: str, kind: str, name: str) -> Workload:
    known = await kind_of(cluster, kind)
    try:
        return await cluster.workload_at(known, namespace, name)
    except NotFound:
        if known.has_crd and not await cluster.serves(known.path):
            raise ConfigurationError(f"this cluster has no {known.plural}.{known.group}") from None
        raise ConfigurationError(
            f"there is no {known}/{name} in namespace {namespace}: name another one with --namespace"
        ) from None


def _owner(workload: Workload, resources: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return the resource that has paused it, else the oldest one that names it."""
    pause = workload.pause
    if pause is not None:
        uids = {each["metadata"]["uid"]: each for each in resources}
        named = (each for each in resources if each["metadata"]["name"] == pause.owner)
        return uids.get(pause.owner_uid) or next(named, None)
    by_age = sorted(resources, key=lambda each: str(each["metadata"]["creationTimestamp"]))
    return next((each for each in by_age if _matches(each, workload)), None)


def _matches(resource: Mapping[str, Any], workload: Workload) -> bool:
    try:
        return parse(resource.get("spec")).matches(workload)
    except InvalidSpec:
        return False


def _workload(workload: Workload) -> dict[str, Any]:
    return {
        "kind": workload.kind.name,
        "namespace": workload.namespace,
        "name": workload.name,
        "pods": workload.pods,
        "original_pods": workload.original_pods if workload.pause else None,
        "paused": workload.pause is not None,
        "resume_to": workload.resume_to or None,
        "opt": {"annotation": OPT, "value": workload.opt} if workload.opt else None,
        "damage": workload.damage or None,
        "changed_by": workload.changed_by or None,
    }


def _pause(workload: Workload) -> dict[str, Any] | None:
    pause = workload.pause
    if pause is None:
        return None
    contest = pause.contest
    return {
        "by": pause.owner,
        "at": iso(pause.at),
        "epoch": pause.epoch,
        "original": pause.original,
        "set": pause.set_to,
        "orphaned": pause.is_orphaned,
        "contested": {"times": contest.times, "by": contest.by} if contest else None,
    }


async def _events(cluster: CliCluster, workload: Workload, owner: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Return the newest events about the workload and its resource, newest first; none without the right."""
    try:
        found = await cluster.events(workload.namespace, workload.kind.name, workload.name)
        if owner is not None:
            found += await cluster.events(workload.namespace, "OpenRouterStatus", owner["metadata"]["name"])
    except ClusterError:
        return []
    told = sorted(map(_event, found), key=lambda each: each["at"] or "", reverse=True)
    return told[:EVENTS_SHOWN]


def _event(event: Mapping[str, Any]) -> dict[str, Any]:
    about, at = event["involvedObject"], event.get("lastTimestamp") or event.get("eventTime")
    return {
        "at": iso(parse_iso(str(at))) or None,
        "about": f"{about.get('kind')}/{about.get('name')}",
        "type": event.get("type"),
        "reason": event.get("reason"),
        "message": event.get("message"),
        "count": event.get("count") or 1,
    }


def blocks(answer: Answer) -> Sequence[Block]:
    return list(_blocks(answer))


def _blocks(answer: Answer) -> Iterator[Block]:
    workload, pause, now = answer["workload"], answer["pause"], parse_iso(answer["now"])
    for sentence in answer["explanation"]:
        yield Text(sentence)
    resource = answer["resource"] or {}
    breaker = resource.get("breaker", {})
    yield Facts(
        {
            "workload": f"{workload['kind']}/{workload['name']} in {workload['namespace']}",
            "pods": f"{workload['pods']} of {workload['original_pods']}" if pause else workload["pods"],
            "paused": f"{ago(pause['at'], now)}, by OpenRouterStatus {pause['by']}" if pause else None,
            "resource": f"{resource['name']}, scope {resource['scope']}" if resource else None,
            "breaker": " ".join(str(breaker[each]) for each in ("state", "reason") if breaker.get(each)),
            "trial calls": until(iso(parse_iso(breaker.get("retryAt"))), now) if breaker.get("retryAt") else None,
        }
    )
    if answer["events"]:
        rows = [
            (ago(each["at"], now), each["about"], each["type"], each["reason"], each["message"])
            for each in answer["events"]
        ]
        yield Table(("age", "about", "type", "reason", "message"), rows, title="events")
