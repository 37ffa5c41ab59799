"""What a pause leaves behind, which is taken away once it is over.

Copies of annotations: a Deployment hands its annotations down to its ReplicaSets, and a Rollout does too. They
stay there, and ``kubectl rollout undo`` puts those of an older ReplicaSet back onto the Deployment. Both kinds would
mislead us: what we wrote about a pause, and what the owner wrote about its end, which would count for the next pause.
Where an operator has just started, the copies tell which annotation is the newest.

The ownership of fields: the API server knows us as who wrote the replicas last, and would refuse them to the next
tool that applies server-side (Helm 4, Flux, ``kubectl apply --server-side``).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from openrouter_guard.log_once import LogOnce
from openrouter_operator.kubernetes.client import Cluster, ClusterError, Conflict, NotFound
from openrouter_operator.workloads.inventory import Inventory
from openrouter_operator.workloads.kinds import BY_NAME
from openrouter_operator.workloads.workload import PAUSED, RELEASED, RESUME_TO, Pause, Workload

__all__ = ["Copy", "Leftovers", "newest"]

logger = logging.getLogger(__name__)

REPLICA_SETS = BY_NAME["ReplicaSet"]
SETTLE_S = 5.0
"""So long the controllers may need to see that a pause is over; until then they would hand it down again."""
GIVE_BACK_S = 0.3
"""Who applies right after an outage is to find no field of ours; those of many pauses are given back together."""
YIELD_S = 5.0
"""So long they let changes of workloads go first: the outage of thousands is not to last longer for them."""
_AT_ONCE = 8
_LOOK_S = 0.05
_OF_A_PAUSE = (PAUSED, RELEASED, RESUME_TO)
EVERYWHERE = ""


@dataclass(frozen=True, slots=True)
class Copy:
    """A ReplicaSet that carries annotations of a pause.

    Attributes:
        version: Its ``resourceVersion``.
        controller: The UID of what it belongs to.
        pause: The pause that it tells of; None if of none, or it cannot be read.
        notes: The names of these annotations.
    """

    namespace: str
    name: str
    version: str
    controller: str
    pause: Pause | None
    notes: frozenset[str]

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> Copy | None:
        """The copy in the metadata of a ReplicaSet; None if it carries none, or belongs to nobody."""
        metadata = body["metadata"]
        notes = metadata.get("annotations") or {}
        owners = [owner["uid"] for owner in metadata.get("ownerReferences") or () if owner.get("controller")]
        found = frozenset(_OF_A_PAUSE) & notes.keys()
        if not found or not owners:
            return None
        pause: Pause | None = None
        with suppress(ValueError):
            pause = Pause.parse(notes.get(PAUSED, ""), REPLICA_SETS.control)
        return cls(metadata["namespace"], metadata["name"], metadata["resourceVersion"], owners[0], pause, found)


def newest(workload: Workload, copies: Iterable[Copy]) -> Workload:
    """The workload with the latest of its own pauses, where a copy tells of a later one than it remembers itself."""
    pauses = (copy.pause for copy in copies if copy.controller == workload.uid)
    own = [pause for pause in pauses if pause is not None and pause.uid == workload.uid]
    latest = max(own, key=lambda pause: pause.at_s, default=None)
    if latest is None or workload.pause is None or latest.at_s <= workload.pause.at_s:
        return workload
    return replace(workload, pause=latest, is_stripped=True)


class Leftovers:
    """Looks for what is left over, some seconds after a pause has ended."""

    def __init__(self, cluster: Cluster, inventory: Inventory) -> None:
        self._cluster = cluster
        self._inventory = inventory
        self._hinted: set[str] = set()
        self._hint = asyncio.Event()
        self._owing = asyncio.Event()
        self._looking = LogOnce(
            "Annotations stay on ReplicaSets, where an undone rollout finds them", "They are gone"
        )
        self._disowning = LogOnce(
            "Fields of workloads stay ours, and others may not apply them", "They are given back"
        )
        self._turns = asyncio.Semaphore(_AT_ONCE)

    def trigger(self, namespace: str) -> None:
        """A pause is over there, or may be; *namespace* may be :data:`EVERYWHERE`."""
        self._hinted.add(namespace)
        self._hint.set()
        self.owe()

    def owe(self) -> None:
        """Some workload may have fields of ours that it should not."""
        self._owing.set()

    async def correct(self) -> None:
        """Put right what an undone rollout has brought back while no operator was there."""
        paused = defaultdict[str, list[Workload]](list)
        for workload in self._inventory.paused():
            paused[workload.namespace].append(workload)
        for namespace, workloads in paused.items():
            copies = await self._copies(namespace)
            for workload in workloads:
                found = newest(workload, copies)
                if found is not workload:
                    logger.warning("%s in %s remembers an earlier pause: put right", workload, namespace)
                    self._inventory.replace(found)

    async def run(self) -> None:
        """Wait for a hint, then take away the copies of what is no longer paused."""
        await self._hint.wait()
        await asyncio.sleep(SETTLE_S)
        self._hint.clear()
        hinted, self._hinted = self._hinted, set()
        paused = {workload.uid for workload in self._inventory.paused()}
        for namespace in {EVERYWHERE} if EVERYWHERE in hinted else hinted:
            stale = [copy for copy in await self._copies(namespace) if copy.controller not in paused]
            await asyncio.gather(*map(self._take_away, filter(None, map(self._without_own, stale))))

    async def give_back(self) -> None:
        """Wait until there is something to give back, and do it: after a pause, or in it where others would mind."""
        await self._owing.wait()
        await asyncio.sleep(GIVE_BACK_S)
        self._owing.clear()
        owing = self._inventory.owing()
        if not all(await asyncio.gather(*map(self._disown, owing))):
            self._owing.set()
            await asyncio.sleep(GIVE_BACK_S)

    def _without_own(self, copy: Copy) -> Copy | None:
        """The copy without what its Deployment still carries, and would hand down again; None if that is all."""
        notes = copy.notes - ({RESUME_TO} if copy.controller in self._inventory.with_wish() else set())
        return replace(copy, notes=notes) if notes else None

    async def _copies(self, namespace: str) -> Sequence[Copy]:
        try:
            bodies = [body async for body in self._cluster.metadata(REPLICA_SETS.path, namespace)]
        except ClusterError as error:
            self._looking.failed(error)
            return ()
        self._looking.worked()
        return [copy for copy in map(Copy.of, bodies) if copy]

    async def _take_away(self, copy: Copy) -> None:
        async with self._turns:
            try:
                await self._cluster.forget(
                    REPLICA_SETS.path, copy.namespace, copy.name, copy.version, sorted(copy.notes)
                )
            except NotFound:
                return
            except ClusterError as error:
                self._looking.failed(error)
                self.trigger(copy.namespace)

    async def _until_calm(self) -> None:
        deadline_s = time.monotonic() + YIELD_S
        while self._cluster.is_busy and time.monotonic() < deadline_s:  # noqa: ASYNC110  nothing tells of it
            await asyncio.sleep(_LOOK_S)

    async def _disown(self, workload: Workload) -> bool:
        """Whether that is done, or there is nothing left to do; if not it is tried again."""
        async with self._turns:
            await self._until_calm()
            try:
                self._inventory.put(await self._cluster.disown(workload))
                self._disowning.worked()
            except NotFound:
                return True
            except Conflict:
                return False
            except ClusterError as error:
                self._disowning.failed(error)
                await asyncio.sleep(SETTLE_S)
                return False
        return True
