"""Drops cached objects that were deleted while a watch was being re-established."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from openrouter_operator.resource.precedence import Precedence
from openrouter_operator.workloads.inventory import Inventory

from .client import Cluster, ClusterError, NotFound
from .paths import AUTOSCALERS, RESOURCE, Path

__all__ = ["Relist"]

logger = logging.getLogger(__name__)

SETTLE_S = 1.0
AGAIN_S = 30.0


class Relist:
    """Lists the existing objects each time that a watch was re-established.

    Args:
        cluster: The API client.
        inventory: The cache of autoscalers and workloads.
        precedence: The claims of the resources.
        on_news: Called with the namespaces in which objects were dropped.
        namespaces: The watched namespaces; none means all.
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
        """Set the namespaces to list; none means all. An unreadable one would end every run."""
        self._namespaces = tuple(namespaces) or ("",)

    def trigger(self) -> None:
        """Note that a watch was re-established."""
        self._hint.set()

    async def run(self) -> None:
        """Wait for a trigger, then list; watches re-established together are listed once."""
        await self._hint.wait()
        await asyncio.sleep(SETTLE_S)
        self._hint.clear()
        try:
            for namespace in sorted(await self.count()):
                self._on_news(namespace)
        except ClusterError as error:
            logger.warning("deleted objects cannot be found: %s", error)
            self.trigger()
            await asyncio.sleep(AGAIN_S)

    async def count(self) -> set[str]:
        """Drop objects that no longer exist; return the namespaces in which some were dropped.

        Raises:
            ClusterError: If the API server does not list them.
        """
        # Take the known objects first, so that objects created during the listing are not dropped.
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
        """Return namespace and name of each existing object."""
        found = set()
        for namespace in self._namespaces:
            try:
                async for body in self._cluster.list(path, namespace):
                    found.add((body["metadata"]["namespace"], body["metadata"]["name"]))
            except NotFound:
                continue  # the kind itself is gone, and all of its objects
        return found
