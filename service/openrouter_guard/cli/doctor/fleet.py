"""Checks the fleet of a scope: its state, its workers, and their versions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from openrouter_guard.cli.fleet import status, workers
from openrouter_guard.cli.fleet.scopes import OpenScope
from openrouter_guard.version import package_version

from .checks import Check, ok, skipped, warning

__all__ = ["checked_fleet"]

AREA = "workers"


async def checked_fleet(scope: OpenScope) -> list[Check]:
    """Return the checks of one scope.

    Raises:
        StoreError: If Redis cannot be read.
    """
    state = await status.of_scope(scope)
    found = await workers.of_scope(scope, 10_000)
    return [_state(state), *_workers(found)]


def _state(state: Mapping[str, Any]) -> Check:
    name = f"breaker of {state['scope']}"
    match state["state"]:
        case "closed" if not state["retry_at"]:
            return ok(AREA, name, "closed")
        case "unknown":
            return skipped(AREA, name, "no process has reported for ten minutes")
        case phase:
            advice = f"openrouter-guard history --scope {state['scope']} shows what happened"
            return warning(AREA, name, f"{phase}: {state['reason']}", advice)


def _workers(found: Mapping[str, Any]) -> Iterator[Check]:
    scope = found["scope"]
    if not found["total"]:
        advice = "let the workers use the same REDIS_URL and OPENROUTER_GUARD_SCOPE"
        yield warning(AREA, f"workers of {scope}", "none in the last ten minutes", advice)
        return
    yield ok(AREA, f"workers of {scope}", f"{found['live']} live of {found['total']}")
    versions = Counter(each["version"] or "an earlier system" for each in found["workers"] if each["live"])
    told = ", ".join(f"{number} with {version}" for version, number in sorted(versions.items()))
    if versions and versions.keys() != {package_version()}:
        advice = f"this is version {package_version()}: bring all parts to one version, the service first"
        yield warning(AREA, f"versions of {scope}", told, advice)
    elif versions:
        yield ok(AREA, f"versions of {scope}", told)
    settings = {each["settings"] for each in found["workers"] if each["live"] and each["settings"]}
    if len(settings) > 1:
        advice = "set the same OPENROUTER_GUARD_… variables for all: `openrouter-guard config` in a pod shows its own"
        yield warning(
            AREA, f"settings of {scope}", f"the workers' breakers have {len(settings)} different ones", advice
        )
    elif settings:
        yield ok(AREA, f"settings of {scope}", "the same for all workers")
