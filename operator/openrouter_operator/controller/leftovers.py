"""Removes the remains of a pause once it is over.

Copies of annotations: a Deployment passes its annotations on to its ReplicaSets, and so does a Rollout. They stay
there, and ``kubectl rollout undo`` copies those of an older ReplicaSet back to the Deployment. Both kinds would
mislead the operator: its own annotation about a pause, and the owner's about its end, which would count for the next
pause. For an operator that has just started, the copies show which annotation is the newest.

The ownership of fields: the API server lists this operator as the last writer of the replicas, and would refuse them
to the next tool that applies server-side (Helm 4, Flux, ``kubectl apply --server-side``).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from openrouter_guard.log_once import LogOnce
from openrouter_operator.kubernetes.client import Cluster, ClusterError, Conflict, NotFound
from openrouter_operator.workloads.inventory import Inventory
from openrouter_operator.workloads.kinds import BY_NAME, PASSING_ON, Kind
from openrouter_operator.workloads.manifest import word
from openrouter_operator.workloads.workload import PAUSED, RELEASED, RESUME_TO, STAY, Pause, Workload

__all__ = ["Copy", "Leftovers", "newest"]

logger = logging.getLogger(__name__)

REPLICA_SETS = BY_NAME["ReplicaSet"]
SETTLE_S = 5.0
"""Time for the controllers to see that a pause is over; until then they would pass the annotation on again."""
DISOWN_S = 0.3
"""A tool that applies right after an outage should find no field of ours.

Those of many pauses are given up together.
"""
OTHERS_S = 5.0
"""An operator of another class, or an earlier process, gives back its own fields; if it is gone, this one does."""
YIELD_S = 5.0
"""How long they let changes of workloads go first, so that they do not prolong the outage of thousands."""
_AT_ONCE = 8
_LOOK_S = 0.05
_OF_A_PAUSE = (PAUSED, RELEASED, RESUME_TO)
_TO_STAY = (STAY, "0")
EVERYWHERE = ""


@dataclass(frozen=True, slots=True)
class Copy:
    """A ReplicaSet that carries annotations of a pause.

    Attributes:
        version: Its ``resourceVersion``.
        controller: UID of its controller.
        pause: Its pause; None if there is none, or it is unreadable.
        notes: The names of these annotations.
        stays: Whether the owner wanted the workload to stay down after the pause.
    """

    namespace: str
    name: str
    version: str
    controller: str
    pause: Pause | None
    notes: frozenset[str]
    stays: bool = False

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> Copy | None:
        """Return the copy in the metadata of a ReplicaSet; None if it has none, or no controller."""
        metadata = body["metadata"]
        notes = metadata.get("annotations") or {}
        owners = [owner["uid"] for owner in metadata.get("ownerReferences") or () if owner.get("controller")]
        found = frozenset(_OF_A_PAUSE) & notes.keys()
        if not found or not owners:
            return None
        pause: Pause | None = None
        with suppress(ValueError):
            pause = Pause.parse(notes.get(PAUSED, ""), REPLICA_SETS.control)
        stays = word(str(notes.get(RESUME_TO, ""))).lower() in _TO_STAY
        return cls(
            metadata["namespace"], metadata["name"], metadata["resourceVersion"], owners[0], pause, found, stays
        )


def newest(workload: Workload, copies: Iterable[Copy]) -> Workload:
    """Return the workload with its latest pause, if a copy has a later one than its own annotation.

    An undone rollout may have left the workload without an annotation. So does the end of a pause after which the
    owner wanted it to stay down: then it is left alone, also by a second ``rescue``.
    """
    pauses = ((copy.pause, copy.stays) for copy in copies if copy.controller == workload.uid)
    own = [(pause, stays) for pause, stays in pauses if pause is not None and pause.uid == workload.uid]
    if not own:
        return workload
    latest, stays = max(own, key=lambda each: each[0].at)
    if workload.may_lack_its_pause and workload.value == latest.set_to:
        return workload if stays else replace(workload, pause=latest, is_stripped=True)
    if workload.pause is None or latest.at <= workload.pause.at:
        return workload
    return replace(workload, pause=latest, is_stripped=True)


class Leftovers:
    """Looks for remains some seconds after a pause has ended.

    Args:
        is_held: Returns whether a resource has paused a workload, by its UID, whatever its annotation says by now.
    """

    def __init__(self, cluster: Cluster, inventory: Inventory, is_held: Callable[[str], bool]) -> None:
        self._cluster = cluster
        self._inventory = inventory
        self._is_held = is_held
        self._hinted: set[str] = set()
        self._hint = asyncio.Event()
        self._owing = asyncio.Event()
        self._owing_since: dict[str, float] = {}
        self._looking = LogOnce(
            "Annotations cannot be removed from ReplicaSets, where an undone rollout would find them", "They are gone"
        )
        self._disowning = LogOnce(
            "Ownership of fields cannot be given up, so other tools may be refused", "They are given back"
        )
        self._turns = asyncio.Semaphore(_AT_ONCE)

    def trigger(self, namespace: str) -> None:
        """Note that a pause may be over there; *namespace* may be :data:`EVERYWHERE`."""
        self._hinted.add(namespace)
        self._hint.set()
        self.owe()

    def owe(self) -> None:
        """Note that a workload may have unneeded fields of ours."""
        self._owing.set()

    async def correct(self) -> None:
        """Correct annotations that an undone rollout brought back while no operator ran."""
        paused = defaultdict[str, list[Workload]](list)
        for workload in (*self._inventory.paused(), *self._inventory.lacking()):
            paused[workload.namespace].append(workload)
        for namespace, workloads in paused.items():
            copies = await self._copies(namespace)
            for workload in workloads:
                found = newest(workload, copies)
                if found is not workload:
                    logger.warning("%s in %s lacked the annotation of its pause: corrected", workload, namespace)
                    self._inventory.replace(found)

    async def run(self) -> None:
        """Wait for a trigger, then remove the copies of ended pauses.

        It asks the API server which pauses go on: the watch may be late.
        """
        await self._hint.wait()
        await asyncio.sleep(SETTLE_S)
        self._hint.clear()
        hinted, self._hinted = self._hinted, set()
        for namespace in {EVERYWHERE} if EVERYWHERE in hinted else hinted:
            stale = await self._stale(namespace)
            await asyncio.gather(*map(self._take_away, filter(None, map(self._without_own, stale))))

    async def disown(self) -> None:
        """Wait until there is a field to give up, and do it: after a pause, or during it if another tool applies."""
        await self._owing.wait()
        await asyncio.sleep(DISOWN_S)
        self._owing.clear()
        owing = list(self._inventory.owing())
        due = self._due(owing)
        if len(due) < len(owing):
            asyncio.get_running_loop().call_later(OTHERS_S, self.owe)
        if not all(await asyncio.gather(*map(self._disown, due))):
            self._owing.set()
            await asyncio.sleep(DISOWN_S)

    def _due(self, owing: Sequence[Workload]) -> list[Workload]:
        """Return those whose fields this process has taken, and those that nobody has given back for a while.

        A pause without its annotation goes on. Without our field, its 0 pods would look like somebody's wish.
        """
        now = time.monotonic()
        owing = [each for each in owing if each.pause is not None or not self._is_held(each.uid)]
        self._owing_since = {each.uid: self._owing_since.get(each.uid, now) for each in owing}
        late = {uid for uid, since in self._owing_since.items() if now - since >= OTHERS_S}
        return [each for each in owing if each.uid in late or self._inventory.has_changed(each)]

    def _without_own(self, copy: Copy) -> Copy | None:
        """Return the copy without the annotations that its Deployment still carries and would pass on again.

        None if nothing is left.
        """
        notes = copy.notes - ({RESUME_TO} if copy.controller in self._inventory.with_wish() else set())
        return replace(copy, notes=notes) if notes else None

    async def _stale(self, namespace: str) -> Sequence[Copy]:
        """Return the copies of pauses that are over.

        The workloads are read after the copies. In the other order, a new pause would look like the rest of one.
        """
        copies = await self._copies(namespace)
        paused = await self._paused(namespace) if copies else None
        return [copy for copy in copies if copy.controller not in paused] if paused is not None else ()

    async def _paused(self, namespace: str) -> set[str] | None:
        """Return the UIDs of the workloads that are paused; None if they cannot be listed."""
        paused = {workload.uid for workload in self._inventory.paused()}
        for kind in self._inventory.kinds:
            if kind.name in PASSING_ON:
                bodies = await self._read(kind, namespace)
                if bodies is None:
                    return None
                paused |= {body["metadata"]["uid"] for body in bodies if _has_pause(body)}
        return paused

    async def _copies(self, namespace: str) -> Sequence[Copy]:
        return [copy for copy in map(Copy.of, await self._read(REPLICA_SETS, namespace) or ()) if copy]

    async def _read(self, kind: Kind, namespace: str) -> Sequence[Mapping[str, Any]] | None:
        """Return all objects of the kind, of each only the metadata; None if they cannot be listed."""
        try:
            bodies = [body async for body in self._cluster.metadata(kind.path, namespace)]
        except ClusterError as error:
            self._looking.failed(error)
            return None
        self._looking.worked()
        return bodies

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
        deadline = time.monotonic() + YIELD_S
        while self._cluster.is_busy and time.monotonic() < deadline:  # noqa: ASYNC110  nothing tells of it
            await asyncio.sleep(_LOOK_S)

    async def _disown(self, workload: Workload) -> bool:
        """Return whether that is done; if not it is retried."""
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


def _has_pause(body: Mapping[str, Any]) -> bool:
    return PAUSED in (body["metadata"].get("annotations") or {})
