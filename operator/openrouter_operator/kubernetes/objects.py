"""What goes to the API server and comes from it, in its own forms; pure."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator
from datetime import UTC, datetime
from typing import Any

from openrouter_operator.workloads.workload import FIELD_MANAGER, Workload

__all__ = ["disowning", "event_on", "lines"]


def event_on(workload: Workload, type_: str, reason: str, message: str, at_s: float) -> dict[str, Any]:
    """An Event about a workload, as of *at_s*, Unix seconds."""
    kind, at = workload.kind, datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "metadata": {"generateName": "openrouter-guard-", "namespace": workload.namespace},
        "involvedObject": {
            "apiVersion": f"{kind.group}/{kind.version}".strip("/"),
            "kind": kind.name,
            "namespace": workload.namespace,
            "name": workload.name,
            "uid": workload.uid,
        },
        "type": type_,
        "reason": reason,
        "message": message,
        "count": 1,
        "source": {"component": FIELD_MANAGER},
        "reportingComponent": FIELD_MANAGER,
        "firstTimestamp": at,
        "lastTimestamp": at,
    }


def disowning(seen: Workload) -> list[dict[str, Any]]:
    """The JSON patch that takes our entries from the managed fields, refused (422) where they are not as seen.

    A merge patch would have to name all entries, and the version, which changes all the while after a pause. A spec
    that has changed, as by a new pause, has another generation.
    """
    entries = "/metadata/managedFields"
    tests = [{"op": "test", "path": "/metadata/generation", "value": seen.generation}] if seen.generation else []
    tests += [{"op": "test", "path": f"{entries}/{nth}/manager", "value": FIELD_MANAGER} for nth in seen.owned]
    if len(seen.owned) == seen.owners:
        # A list without entries would be taken for none, and the one that there is would stay.
        return [*tests, {"op": "replace", "path": entries, "value": [{}]}]
    return [*tests, *({"op": "remove", "path": f"{entries}/{nth}"} for nth in reversed(seen.owned))]


async def lines(chunks: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """The lines of a watch, however long they are, as they are complete."""
    rest = b""
    async for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line
