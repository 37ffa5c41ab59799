"""``openrouter-guard rescue``: prints the restored workloads line by line."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from openrouter_operator.kubernetes.client import Cluster
from openrouter_operator.rescue import EVERYWHERE, Fate, Only, rescue

__all__ = ["Only", "run"]

DONE, LEFT = 0, 1


def run(namespaces: Sequence[str] | None, *, dry_run: bool, only: Only) -> int:
    """Rescue in these namespaces, or everywhere; return 0 if nothing is left paused, else 1.

    Raises:
        ConfigurationError: If there is no cluster.
    """
    return asyncio.run(_run(namespaces or [EVERYWHERE], dry_run, only))


async def _run(namespaces: Sequence[str], dry_run: bool, only: Only) -> int:
    fates: list[Fate] = []
    async with await Cluster.connect() as cluster:
        async for finding in rescue(cluster, namespaces, dry_run=dry_run, only=only):
            fates.append(finding.fate)
            print(f"(dry run) {finding}" if dry_run else finding, flush=True)
    print(", ".join(f"{fates.count(fate)} {fate}" for fate in Fate))
    if fates.count(Fate.RESTORED) and not dry_run and not only.resource_class:
        print("An operator that still runs may pause them again while the breaker is open.")
    return LEFT if Fate.FAILED in fates else DONE
