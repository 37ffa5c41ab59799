"""Restores workloads whose resource is gone, whoever paused them and whenever.

The same applies to a copy of a paused workload, made by hand or by a backup tool in another namespace or cluster: the
owner of the original does not know it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from openrouter_guard.rules import log_facts
from openrouter_operator.decisions.events import Event
from openrouter_operator.decisions.workload_events import notice
from openrouter_operator.kubernetes.client import Cluster, ClusterError, NotFound
from openrouter_operator.workloads.inventory import Inventory
from openrouter_operator.workloads.workload import Change, Pause, Workload, forgets, raised, restored

from .apply import Applier

__all__ = ["Ownerless"]

logger = logging.getLogger(__name__)

AGAIN_S = 5.0
SKEW_S = 5.0
"""Tolerated difference of the clocks of the API server and of Redis."""


class Ownerless:
    """Looks for paused workloads without an owner after each trigger.

    Args:
        is_looked_after: Returns whether a resource is handled, by its UID.
        is_held: Returns whether a resource has paused a workload, by its UID, whatever its annotation says by now.
        on_released: Called with the namespace of a restored workload: other resources may want it.
        tell: Called with an event to post on a workload.
    """

    def __init__(
        self,
        cluster: Cluster,
        inventory: Inventory,
        is_looked_after: Callable[[str, str], bool],
        is_held: Callable[[str], bool],
        on_released: Callable[[str], None],
        tell: Callable[[Workload, Event], None],
    ) -> None:
        self._cluster = cluster
        self._inventory = inventory
        self._is_looked_after = is_looked_after
        self._is_held = is_held
        self._on_released = on_released
        self._tell = tell
        self._ran_at: dict[str, float] = {}
        self._applier = Applier(cluster, inventory)
        self._hint = asyncio.Event()

    def trigger(self) -> None:
        self._hint.set()

    def saw(self, workload: Workload, *, is_gone: bool = False) -> None:
        """Record when a workload was last seen to run (the API server's clock)."""
        if is_gone:
            self._ran_at.pop(workload.uid, None)
        elif workload.pause is None and workload.copied is None:
            self._ran_at[workload.uid] = self._cluster.now

    async def run(self) -> None:
        """Wait for a trigger, then restore what has no owner; failures are retried after a moment."""
        await self._hint.wait()
        self._hint.clear()
        try:
            ownerless = await self._read_anew(await self._ownerless(self._inventory.paused()))
            left = await self._restore([*ownerless, *self._inventory.copies()])
        except ClusterError as error:
            logger.warning("workloads of a vanished OpenRouterStatus wait: %s", error)
            left = True
        if left:
            self.trigger()
            await asyncio.sleep(min(self._applier.due_in_s(), AGAIN_S))

    async def _restore(self, found: Sequence[Workload]) -> bool:
        """Return whether an orphan is left."""
        wanted = list(map(self._change, found))
        for change in await self._applier.make([change for change in wanted if change]):
            if event := notice(change, "The operator", _why(change.workload)):
                self._tell(change.workload, event)
        left = {workload.uid for workload in (*self._inventory.paused(), *self._inventory.copies())}
        done = [workload for workload in found if workload.uid not in left]
        for workload in done:
            why = _why(workload)
            facts = log_facts.of_pause("Resumed", str(workload), workload.namespace, reason=why)
            logger.info("restored %s in %s: %s", workload, workload.namespace, why, extra=facts)
        for namespace in {workload.namespace for workload in done}:
            self._on_released(namespace)
        return len(done) < len(found)

    def _change(self, workload: Workload) -> Change | None:
        if workload.copied is not None and self._inventory.is_over(workload.copied):
            return forgets(workload)
        if workload.pause and self._is_over(workload, workload.pause):
            return forgets(workload)
        return raised(workload) or restored(workload)

    def _is_over(self, workload: Workload, pause: Pause) -> bool:
        """Return whether it has run since the pause began, so that no late write of ours has paused it."""
        return pause.at < self._ran_at.get(workload.uid, 0.0) - SKEW_S and not workload.is_our_value

    async def _ownerless(self, paused: Iterable[Workload]) -> list[Workload]:
        """Return those whose owner does not exist (any more)."""
        owners: dict[tuple[str, str], str] = {}
        found = []
        for workload in paused:
            pause = workload.pause
            if pause is None or pause.is_orphaned or self._is_looked_after(pause.owner_uid, workload.namespace):
                continue
            if self._is_held(workload.uid):
                continue
            owner = (workload.namespace, pause.owner)
            if owner not in owners:
                owners[owner] = await self._uid_of(*owner)
            if owners[owner] != pause.owner_uid:
                found.append(workload)
        return found

    async def _read_anew(self, ownerless: Sequence[Workload]) -> list[Workload]:
        """Return those that are still paused.

        The operator of another class may just have restored them, and the watch may not have shown it yet.
        """
        await asyncio.gather(*map(self._read, ownerless))
        uids = {workload.uid for workload in ownerless}
        return [workload for workload in self._inventory.paused() if workload.uid in uids]

    async def _read(self, workload: Workload) -> None:
        """Without an answer the known state counts: a change is refused if it is outdated."""
        with suppress(ClusterError):
            try:
                now = await self._cluster.workload(workload)
            except NotFound:
                self._inventory.drop(workload)
            else:
                if not workload.is_stripped:  # then its annotation is not the one that counts
                    self._inventory.put(now)

    async def _uid_of(self, namespace: str, name: str) -> str:
        try:
            found = await self._cluster.resource(namespace, name)
        except NotFound:
            return ""
        return str(found["metadata"]["uid"])


def _why(workload: Workload) -> str:
    return "it is a copy of a paused one" if workload.copied else "its OpenRouterStatus is gone"
