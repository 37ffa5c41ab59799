"""Objects for and from the API server, in its own format; pure."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator
from datetime import UTC, datetime
from typing import Any

from openrouter_operator.workloads.workload import FIELD_MANAGER, Workload

__all__ = ["disowning", "event_on", "lines"]


def event_on(workload: Workload, type_: str, reason: str, message: str, at: float) -> dict[str, Any]:
    """Return an Event about a workload, as of *at*, Unix seconds."""
    kind, stamp = workload.kind, datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
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
        "firstTimestamp": stamp,
        "lastTimestamp": stamp,
    }


def disowning(seen: Workload) -> list[dict[str, Any]]:
    """Return the JSON patch that removes our entries from the managed fields.

    The API server refuses it (422) if they have changed since they were read.

    A merge patch would have to name all entries, and the version, which changes often after a pause. A changed spec,
    as by a new pause, has another generation.
    """
    entries = "/metadata/managedFields"
    tests = [{"op": "test", "path": "/metadata/generation", "value": seen.generation}] if seen.generation else []
    tests += [{"op": "test", "path": f"{entries}/{nth}/manager", "value": FIELD_MANAGER} for nth in seen.owned]
    if len(seen.owned) == seen.owners:
        # An empty list would be ignored, and the present entry would stay.
        return [*tests, {"op": "replace", "path": entries, "value": [{}]}]
    return [*tests, *({"op": "remove", "path": f"{entries}/{nth}"} for nth in reversed(seen.owned))]


async def lines(chunks: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """Yield the complete lines of a watch, of any length."""
    rest = b""
    async for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line
