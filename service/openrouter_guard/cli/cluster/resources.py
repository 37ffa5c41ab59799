"""``openrouter-guard status -A|-n``: the ``OpenRouterStatus`` resources as JSON and as a table; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from openrouter_guard.cli.console.tables import Block, Table
from openrouter_guard.cli.console.times import ago
from openrouter_guard.rules.codec import parse_iso
from openrouter_operator.decisions.status import sound

__all__ = ["blocks", "resource_of"]


def resource_of(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return what people need of one resource; its status is as old as ``observed_at`` of its conditions."""
    metadata, spec, status = found["metadata"], found.get("spec") or {}, sound(found)["status"]
    return {
        "namespace": metadata["namespace"],
        "name": metadata["name"],
        "scope": spec.get("scope", "default"),
        "class": spec.get("class", "default"),
        "mode": spec.get("mode"),
        "suspend": bool(spec.get("suspend")),
        "dry_run": bool(spec.get("dryRun")),
        "current": status.get("observedGeneration") == metadata.get("generation"),
        "upstream": status.get("upstream") or {},
        "breaker": status.get("breaker") or {},
        "override": status.get("override") or None,
        "targets": status.get("targets") or {},
        "progress": status.get("progress") or None,
        "problems": status["problems"],
        "would_change": status.get("wouldChange") or [],
        "conditions": [
            {"type": each["type"], "status": each["status"], "reason": each["reason"], "message": each["message"]}
            | {"since": each["lastTransitionTime"]}
            for each in status["conditions"]
        ],
    }


def blocks(resources: Sequence[Mapping[str, Any]], now: float) -> list[Block]:
    columns = ("namespace", "name", "scope", "state", "breaker", "since", "paused", "ready", "acts")
    rows = [_row(each, now) for each in resources]
    table = Table(columns, rows, title="resources", empty="there is no OpenRouterStatus here")
    problems = [
        (f"{each['namespace']}/{each['name']}", problem["target"], problem["reason"], problem["message"])
        for each in resources
        for problem in each["problems"]
    ]
    found: list[Block] = [table]
    if problems:
        found.append(Table(("resource", "target", "reason", "message"), problems, title="problems"))
    return found


def _row(each: Mapping[str, Any], now: float) -> list[object]:
    return [
        each["namespace"],
        each["name"],
        each["scope"],
        each["upstream"].get("state"),
        each["breaker"].get("state"),
        ago(_rfc(each["breaker"].get("since")), now),
        each["targets"].get("summary"),
        condition(each, "Ready"),
        acts(each),
    ]


def condition(each: Mapping[str, Any], kind: str) -> str | None:
    return next((found["status"] for found in each["conditions"] if found["type"] == kind), None)


def acts(each: Mapping[str, Any]) -> str:
    """Return whether it changes workloads by itself, or why not."""
    if each["suspend"]:
        return "no: suspended"
    if each["dry_run"]:
        return "no: dryRun"
    return "no: Observe" if each["mode"] == "Observe" else "yes"


def _rfc(text: Any) -> str | None:
    """Return a time of Kubernetes if it can be read."""
    return text if isinstance(text, str) and parse_iso(text) else None
