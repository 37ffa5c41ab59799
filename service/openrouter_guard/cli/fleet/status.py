"""``openrouter-guard status``: the state of each scope, since when, why, and what is paused."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from openrouter_guard.cli.console.output import Answer
from openrouter_guard.cli.console.tables import Block, Facts, Table
from openrouter_guard.cli.console.times import ago, until
from openrouter_guard.rules.codec import parse_iso

from .scopes import OpenScope
from .state import UNKNOWN, paused_of, state_of
from .workers import is_live

__all__ = ["blocks", "of_scope"]

_STATES = {
    "closed": "closed: calls go",
    "open": "open: calls are refused",
    "half_open": "half_open: a few trial calls may go",
    UNKNOWN: "unknown: no process has reported for ten minutes; calls go",
}


async def of_scope(scope: OpenScope) -> dict[str, Any]:
    """Return all that Redis knows of a scope's present.

    Raises:
        StoreError: If Redis cannot be read.
    """
    seen = await scope.store.read()
    workers, clusters = await asyncio.gather(scope.store.workers(10_000), scope.store.paused())
    return {
        **state_of(seen, scope.settings),
        "workers": {"live": sum(is_live(each, seen.now) for each in workers.values()), "known": len(workers)},
        "paused": paused_of(clusters),
    }


def blocks(answer: Answer) -> Sequence[Block]:
    found = answer["scopes"]
    if len(found) == 1:
        return list(_details(found[0]))
    return [_overview(found), *(block for each in found if each["paused"] for block in _paused(each))]


def _overview(found: Sequence[Mapping[str, Any]]) -> Table:
    columns = ("scope", "state", "since", "reason", "until", "failures", "workers", "paused", "credit")
    return Table(columns, [_row(each) for each in found])


def _row(each: Mapping[str, Any]) -> list[object]:
    now = parse_iso(each["now"])
    return [
        each["scope"],
        each["state"],
        ago(each["since"], now),
        each["reason"],
        until(each["retry_at"], now),
        _failures(each),
        each["workers"]["live"],
        sum(cluster["paused"] for cluster in each["paused"]),
        _dollars(each["credit"]),
    ]


def _details(each: Mapping[str, Any]) -> Iterator[Block]:
    now = parse_iso(each["now"])
    upstream, override = each["upstream"] or {}, each["override"]
    yield Facts(
        {
            "scope": each["scope"],
            "state": _STATES[each["state"]],
            "since": f"{ago(each['since'], now)}, by {each['by'] or 'time'}" if each["since"] else None,
            "reason": each["reason"],
            "until": until(each["retry_at"], now) if each["retry_at"] else None,
            "override": _override(override, now) if override else None,
            "openrouter": _upstream(upstream) if upstream else None,
            "checked": ago(upstream["checked_at"], now) if upstream.get("checked_at") else None,
            "failures": _failures(each),
            "calls admitted": f"{each['share_admitted']:.0%}" if 0 < each["share_admitted"] < 1 else None,
            "models cooling": each["models_cooling"] or None,
            "workers": f"{each['workers']['live']} live, {each['workers']['known']} in the last ten minutes",
            "credit": f"{_dollars(each['credit'])}, {ago(each['credit']['at'], now)}" if each["credit"] else None,
        }
    )
    yield from _paused(each)


def _failures(each: Mapping[str, Any]) -> str:
    return f"{each['failures']} of {each['failure_threshold']} in a row"


def _upstream(upstream: Mapping[str, Any]) -> str:
    return f"{upstream['state']}: {upstream['message']}"


def _override(override: Mapping[str, Any], now: float) -> str:
    return f"{override['kind']} by {override['who']}: {override['why']}; until {until(override['until'], now)}"


def _dollars(credit: Mapping[str, Any] | None) -> str | None:
    if credit is None:
        return None
    return "no limit" if credit["balance"] is None else f"${credit['balance']:.2f} left"


def _paused(each: Mapping[str, Any]) -> Iterator[Block]:
    rows = [
        (cluster["cluster"], cluster["resource"], workload, ago(cluster["last_seen"], parse_iso(each["now"])))
        for cluster in each["paused"]
        for workload in cluster["workloads"]
    ]
    if rows:
        title = f"paused in scope {each['scope']}"
        yield Table(("cluster", "resource", "workload", "reported"), rows, title=title)
