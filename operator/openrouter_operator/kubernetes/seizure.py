"""The Lease of an operator that is being uninstalled, taken from it so that it acts no more."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from .client import Cluster, Conflict, NotFound

__all__ = ["HOLD_S", "Ending", "Seized", "seized"]

HOLD_S = 600
"""So long no operator may act, should nobody give the Lease back."""
_HOLDER = "openrouter-guard-rescue-"
_GRACE_S = 1.0


class Ending(StrEnum):
    """What becomes of the Lease at the end."""

    GIVE_BACK = "give back"
    KEEP = "keep"
    DELETE = "delete"


@dataclass(slots=True)
class Seized:
    """A Lease that was taken; whoever took it says how it ends."""

    ending: Ending = Ending.GIVE_BACK


@asynccontextmanager
async def seized(cluster: Cluster, namespace: str, name: str) -> AsyncIterator[Seized]:
    """Hold the Lease as long as the context lasts, whoever had it, and once that one has stopped.

    An operator whose Lease is gone writes nothing more once the life of the Lease is over. It ends, and its next
    start waits for the Lease. By default it gets the Lease back: after an error it is to go on. Keep the Lease from
    an operator that is about to be removed, which would pause again what has just come back.

    Raises:
        ClusterError: If the Lease cannot be taken.
    """
    identity = _HOLDER + secrets.token_hex(3)
    await asyncio.sleep(await _take(cluster, namespace, name, identity))
    held = Seized()
    try:
        yield held
    finally:
        with suppress(NotFound):
            if held.ending is Ending.DELETE:
                await cluster.delete_lease(namespace, name)
            elif held.ending is Ending.GIVE_BACK:
                await _give_back(cluster, namespace, name, identity)


async def _take(cluster: Cluster, namespace: str, name: str, identity: str) -> float:
    """Write our name into the Lease; returns how long, in seconds, the holder before us may go on."""
    while True:
        with suppress(Conflict):  # the operator renews it
            try:
                found = await cluster.lease(namespace, name)
            except NotFound:
                return 0.0  # no operator has ever acted
            spec = found.get("spec") or {}
            await cluster.replace_lease(namespace, name, {**found, "spec": _claim(spec, identity)})
            holder = spec.get("holderIdentity") or ""
            is_an_operators = holder and not holder.startswith(_HOLDER)
            return float(spec.get("leaseDurationSeconds") or 0) + _GRACE_S if is_an_operators else 0.0


def _claim(spec: Mapping[str, Any], identity: str) -> dict[str, Any]:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    transitions = int(spec.get("leaseTransitions") or 0) + 1
    return {
        "holderIdentity": identity,
        "leaseDurationSeconds": HOLD_S,
        "acquireTime": now,
        "renewTime": now,
        "leaseTransitions": transitions,
    }


async def _give_back(cluster: Cluster, namespace: str, name: str, identity: str) -> None:
    found = await cluster.lease(namespace, name)
    if found["spec"].get("holderIdentity") == identity:
        found["spec"] |= {"holderIdentity": "", "leaseDurationSeconds": 1}
        await cluster.replace_lease(namespace, name, found)
