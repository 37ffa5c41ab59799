"""``openrouter-guard rescue``: prints the restored workloads line by line."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from openrouter_guard.variables import is_strict_x509
from openrouter_operator.kubernetes.client import Cluster
from openrouter_operator.kubernetes.seizure import Ending, Seized, seized
from openrouter_operator.rescue import EVERYWHERE, Fate, Only, rescue

__all__ = ["Ending", "LeaseToTake", "Only", "run"]

DONE, LEFT = 0, 1


@dataclass(frozen=True, slots=True)
class LeaseToTake:
    """Of an operator that is to act no more.

    Attributes:
        ending: What becomes of it if all goes well.
    """

    namespace: str
    name: str
    ending: Ending


def run(namespaces: Sequence[str] | None, *, dry_run: bool, only: Only, lease: LeaseToTake | None = None) -> int:
    """Rescue in these namespaces, or everywhere; return 0 if nothing is left paused, else 1.

    Raises:
        ConfigurationError: If there is no cluster.
        ClusterError: If the Lease cannot be taken, given back or deleted.
    """
    return asyncio.run(_run(namespaces or [EVERYWHERE], dry_run, only, lease))


async def _run(namespaces: Sequence[str], dry_run: bool, only: Only, lease: LeaseToTake | None) -> int:
    fates: list[Fate] = []
    connected = await Cluster.connect(strict_x509=is_strict_x509(os.environ))
    async with connected as cluster, _taken(cluster, lease, dry_run) as held:
        async for finding in rescue(cluster, namespaces, dry_run=dry_run, only=only):
            fates.append(finding.fate)
            print(f"(dry run) {finding}" if dry_run else finding, flush=True)
        if lease and Fate.FAILED not in fates:
            held.ending = lease.ending
    print(", ".join(f"{fates.count(fate)} {fate}" for fate in Fate))
    if fates.count(Fate.RESTORED) and not dry_run and not only.resource_class:
        print("A running operator may pause them again while the breaker is open.")
    return LEFT if Fate.FAILED in fates else DONE


@asynccontextmanager
async def _taken(cluster: Cluster, lease: LeaseToTake | None, dry_run: bool) -> AsyncIterator[Seized]:
    if lease is None or dry_run:
        yield Seized()
        return
    print(f"taking the Lease {lease.name} in {lease.namespace}, and waiting for its operator to stop", flush=True)
    async with seized(cluster, lease.namespace, lease.name) as held:
        yield held
