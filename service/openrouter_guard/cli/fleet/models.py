"""``openrouter-guard models``: the models that cool down or fail, and some of those that work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from openrouter_guard.cli.console.output import Answer
from openrouter_guard.cli.console.tables import Block, Table
from openrouter_guard.cli.console.times import ago, until
from openrouter_guard.rules.codec import iso, parse_iso
from openrouter_guard.rules.models import Model, cooling

from .scopes import OpenScope

__all__ = ["blocks", "of_scope"]


async def of_scope(scope: OpenScope, limit: int) -> dict[str, Any]:
    """Return the known models of a scope; those that cool down come first.

    Raises:
        StoreError: If Redis cannot be read.
    """
    seen = await scope.store.read()
    waits = cooling(seen.models, now=seen.now, policy=scope.settings.policy)
    names = sorted(seen.models, key=lambda name: (name not in waits, -seen.models[name].seen_at, name))
    return {
        "scope": scope.name,
        "models": [_model(name, seen.models[name], waits.get(name)) for name in names[:limit]],
        "total": len(names),
        "cooling": len(waits),
        "now": iso(seen.now),
    }


def _model(name: str, model: Model, wait: tuple[float, str] | None) -> dict[str, Any]:
    return {
        "model": name,
        "cooling": wait is not None,
        "reason": wait[1] or "error" if wait else None,
        "retry_at": iso(wait[0]) if wait else None,
        "failures": model.failures,
        "last_failure": iso(model.failed_at) or None,
        "last_call": iso(model.seen_at) or None,
    }


def blocks(answer: Answer) -> Sequence[Block]:
    return [_table(each, with_title=len(answer["scopes"]) > 1) for each in answer["scopes"]]


def _table(each: Mapping[str, Any], *, with_title: bool) -> Table:
    now = parse_iso(each["now"])
    rows = [
        (
            model["model"],
            "cooling" if model["cooling"] else "ok",
            model["reason"],
            until(model["retry_at"], now),
            model["failures"],
            ago(model["last_call"], now),
        )
        for model in each["models"]
    ]
    columns = ("model", "state", "reason", "until", "failures", "last call")
    empty = "no model has been called in the last ten minutes"
    return Table(columns, rows, title=f"scope {each['scope']}" if with_title else "", empty=empty)
