"""``openrouter-guard history``: the transitions of the breaker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from openrouter_guard.cli.console.output import Answer
from openrouter_guard.cli.console.tables import Block, Table
from openrouter_guard.cli.console.times import ago, clock
from openrouter_guard.rules.codec import iso, parse_iso

from .scopes import OpenScope

__all__ = ["blocks", "of_scope"]


async def of_scope(scope: OpenScope, limit: int) -> dict[str, Any]:
    """Return the newest transitions of a scope, newest first.

    Raises:
        StoreError: If Redis cannot be read.
    """
    now = (await scope.store.read()).now
    entries = await scope.store.history(limit)
    found = [_entry(each) for each in entries]
    return {"scope": scope.name, "transitions": found, "now": iso(now)}


def _entry(entry: Mapping[str, str]) -> dict[str, Any]:
    """Return an entry; ``seq`` is 0 for a transition, more for an alert within its epoch."""
    numbers = {name: int(entry[name]) for name in ("epoch", "seq")}
    return numbers | {name: entry[name] for name in ("from", "to", "reason", "by", "at")}


def blocks(answer: Answer) -> Sequence[Block]:
    return [_table(each, with_title=len(answer["scopes"]) > 1) for each in answer["scopes"]]


def _table(each: Mapping[str, Any], *, with_title: bool) -> Table:
    now = parse_iso(each["now"])
    rows = [
        (clock(change["at"]), ago(change["at"], now), change["from"], change["to"], change["reason"], change["by"])
        for change in each["transitions"]
    ]
    title = f"scope {each['scope']}" if with_title else ""
    return Table(("time", "age", "from", "to", "reason", "by"), rows, title=title, empty="no transition so far")
