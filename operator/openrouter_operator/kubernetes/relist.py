"""Forgets what is gone without a word: while a watch begins anew, nobody tells of what was deleted meanwhile."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from openrouter_operator.resource.precedence import Precedence
from openrouter_operator.workloads.inventory import Inventory

from .client import AUTOSCALERS, RESOURCE, Cluster, ClusterError, NotFound, Path

__all__ = ["Relist"]

logger = logging.getLogger(__name__)

SETTLE_S = 1.0
AGAIN_S = 30.0


class Relist:
    """Counts what there is, each time that a watch has begun anew.

    Args:
        cluster: The one to ask.
        inventory: Where autoscalers and workloads are forgotten.
        claims: Where resources are.
        on_news: Told the namespaces in which something was forgotten.
        namespaces: Those that are looked after; none means all.
    """

    def __init__(
        self,
        cluster: Cluster,
        inventory: Inventory,
        precedence: Precedence,
        on_news: Callable[[str], None],
        namespaces: Sequence[str] = (),
    ) -> None:
        self._cluster = cluster
        self._inventory = inventory
        self._precedence = precedence
        self._on_news = on_news
        self.keep_to(namespaces)
        self._hint = asyncio.Event()

    def keep_to(self, namespaces: Sequence[str]) -> None:
        """Count in these namespaces; none means all. One that may not be read would end every count."""
        self._namespaces = tuple(namespaces) or ("",)

    def trigger(self) -> None:
        """A watch has begun anew."""
        self._hint.set()

    async def run(self) -> None:
        """Wait for a hint, then count; watches that begin anew together are counted once."""
        await self._hint.wait()
        await asyncio.sleep(SETTLE_S)
        self._hint.clear()
        try:
            for namespace in sorted(await self.count()):
                self._on_news(namespace)
        except ClusterError as error:
            logger.warning("what is gone cannot be told from what is there: %s", error)
            self.trigger()
            await asyncio.sleep(AGAIN_S)

    async def count(self) -> set[str]:
        """Forget what is not there any more; the namespaces in which something was forgotten.

        Raises:
            ClusterError: If the API server does not say what there is.
        """
        # What is known is noted first: what comes to be while we count is no ghost.
        touched: set[str] = set()
        for kind in self._inventory.kinds:
            known = self._inventory.of_kind(kind)
            alive = await self._alive(kind.path)
            for workload in known:
                if (workload.namespace, workload.name) not in alive:
                    self._inventory.drop(workload)
                    touched.add(workload.namespace)
        for places, forget, path in (
            (self._inventory.autoscalers(), self._inventory.drop_autoscaler, AUTOSCALERS),
            (self._precedence.places(), self._precedence.drop_at, RESOURCE),
        ):
            alive = await self._alive(path)
            for place in places - alive:
                forget(*place)
                touched.add(place[0])
        return touched

    async def _alive(self, path: Path) -> set[tuple[str, str]]:
        """Namespace and name of each object there is."""
        found = set()
        for namespace in self._namespaces:
            try:
                async for body in self._cluster.list(path, namespace):
                    found.add((body["metadata"]["namespace"], body["metadata"]["name"]))
            except NotFound:
                continue  # the kind itself is gone, and all of its objects with it
        return found
