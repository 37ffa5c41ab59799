"""``openrouter-guard workers``: who reports, and the last error of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from openrouter_guard.cli.console.output import Answer
from openrouter_guard.cli.console.tables import Block, Table
from openrouter_guard.cli.console.times import ago
from openrouter_guard.rules.codec import iso, parse_iso
from openrouter_guard.store.presence import WORKER_LIFE_S, WORKER_LIVE_S, Presence

from .scopes import OpenScope

__all__ = ["blocks", "is_live", "of_scope"]

ERRORS_READ = 1_000


def is_live(about: Mapping[str, Any], now: float) -> bool:
    """Return whether its last heartbeat is recent."""
    return now - _seen_at(about.get("last_seen")) <= WORKER_LIVE_S


async def of_scope(scope: OpenScope, limit: int) -> dict[str, Any]:
    """Return the workers of a scope, the most recent first.

    Raises:
        StoreError: If Redis cannot be read.
    """
    now = (await scope.store.read()).now
    beats = await scope.store.workers(10_000)
    errors = _last_errors(await scope.store.worker_errors(ERRORS_READ, now=now))
    listed = [_worker(name, beats.get(name, {}), errors.get(name), now) for name in beats.keys() | errors.keys()]
    known = [each for each in listed if _seen_at(each["last_seen"]) >= now - WORKER_LIFE_S]
    known.sort(key=lambda each: (-_seen_at(each["last_seen"]), each["worker_id"]))
    return {
        "scope": scope.name,
        "workers": known[:limit],
        "total": len(known),
        "live": sum(each["live"] for each in known),
        "now": iso(now),
    }


def blocks(answer: Answer) -> Sequence[Block]:
    return [_table(each, with_title=len(answer["scopes"]) > 1) for each in answer["scopes"]]


def _table(each: Mapping[str, Any], *, with_title: bool) -> Table:
    now = parse_iso(each["now"])
    rows = [
        (
            worker["worker_id"],
            worker["version"],
            "yes" if worker["live"] else "no",
            ago(worker["last_seen"], now),
            _error(worker["last_error"], now),
        )
        for worker in each["workers"]
    ]
    columns = ("worker", "version", "live", "seen", "last error")
    empty = "no worker has reported in the last ten minutes"
    return Table(columns, rows, title=f"scope {each['scope']}" if with_title else "", empty=empty)


def _error(error: Mapping[str, Any] | None, now: float) -> str | None:
    return f"{error['error_type']} {ago(error['at'], now)}: {error['error_message']}" if error else None


def _worker(name: str, about: Presence, error: dict[str, Any] | None, now: float) -> dict[str, Any]:
    last_at = max(_seen_at(about.get("last_seen")), _seen_at(error["at"]) if error else 0.0)
    return {
        "worker_id": name,
        "version": _text(about.get("version")) or None,
        "settings": _text(about.get("settings")) or None,
        "last_seen": iso(last_at) or None,
        "live": now - last_at <= WORKER_LIVE_S,
        "last_error": error,
    }


def _last_errors(rows: Sequence[Presence]) -> dict[str, dict[str, Any]]:
    """Return the newest error of each worker; the input is newest first."""
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        name = _text(row.get("worker_id"))
        if name and name not in found:
            found[name] = _as_error(row)
    return found


def _as_error(row: Presence) -> dict[str, Any]:
    code = row.get("status_code")
    return {
        "at": iso(_seen_at(row.get("timestamp"))) or None,
        "error_type": _text(row.get("error_type")) or "unknown_error",
        "error_message": _text(row.get("error_message")),
        "status_code": code if isinstance(code, int) else None,
    }


def _seen_at(value: Any) -> float:
    return parse_iso(_text(value))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
