"""One ``OpenRouterStatus``: gather what is known, decide, answer."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import conditions, plan
from . import spec as specs
from .cluster import Cluster, ClusterError, Conflict, NotFound, NotLeading, Refused
from .conditions import Event, Failure, Round
from .feed import Feeds
from .inventory import Inventory
from .plan import Candidate, Goal, Owner, Reading, Step
from .spec import InvalidSpec, Mode, Spec
from .workload import Change, Workload

__all__ = ["Outcome", "Reconciler", "return_orphans"]

logger = logging.getLogger(__name__)

RETRY_S = (1.0, 60.0)
"""The first and the longest wait before a change that failed is tried again."""
CONFLICT_S = 0.1
STATUS_RETRY_S = 1.0
IDLE_S = 60.0
"""How long to rest where neither news nor the time calls."""
_GIVE_BACK = Goal(Step.RESUME, "Deleted", share=1.0)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a round came to: what to tell, and in how many seconds to look again at the latest."""

    events: Sequence[Event]
    again_s: float


@dataclass(frozen=True, slots=True)
class _Retry:
    """A change that failed: why, how often, and when to try again (monotonic clock)."""

    failure: Failure
    tries: int
    at_s: float


class Reconciler:
    """Looks after one resource, whatever becomes of its spec."""

    def __init__(self, cluster: Cluster, inventory: Inventory, feeds: Feeds) -> None:
        self._cluster = cluster
        self._inventory = inventory
        self._feeds = feeds
        self._retries: dict[str, _Retry] = {}
        self._latest: Mapping[str, Any] = {}
        self._wrote_s = 0.0
        self._again_s = IDLE_S

    async def reconcile(self, resource: Mapping[str, Any]) -> Outcome:
        """One round; *resource* is the object as last seen.

        Raises:
            NotLeading: If it is no longer ours to do.
        """
        resource = self._newest(resource)
        self._again_s = IDLE_S
        now = await self._round(resource)
        old = resource.get("status") or {}
        new = conditions.status(old, now)
        since_write_s = time.monotonic() - self._wrote_s
        if conditions.differs(old, new, since_write_s=since_write_s):
            written = await self._write(resource, new)
            return Outcome(conditions.events(old, new) if written else (), self._again_s)
        return Outcome((), self._again_s)

    async def give_back(self, resource: Mapping[str, Any]) -> bool:
        """Restore all that the resource has paused; False if something is still to be tried again.

        Raises:
            NotLeading: If it is no longer ours to do.
        """
        owner = _owner(resource)
        await self._answer(_GIVE_BACK, owner, _NOTHING_KNOWN, resource["metadata"]["namespace"], spec=None)
        left = self._candidates(resource["metadata"]["namespace"], owner, None)
        return not any(candidate.is_paused_by(owner) for candidate in left)

    # -- one round ----------------------------------------------------------------------------------------------

    async def _round(self, resource: Mapping[str, Any]) -> Round:
        namespace, generation = resource["metadata"]["namespace"], resource["metadata"]["generation"]
        owner = _owner(resource)
        try:
            spec = specs.parse(resource.get("spec") or {})
        except InvalidSpec as error:
            return _invalid(generation, str(error), self._candidates(namespace, owner, None), owner)
        reading = (await self._feeds.of(spec.scope)).read()
        paused_s = plan.paused_since_s(self._candidates(namespace, owner, spec), owner)
        goal = plan.goal(spec, reading, paused_s)
        await self._answer(goal, owner, reading, namespace, spec)
        after = self._candidates(namespace, owner, spec)
        self._look_again(goal, reading)
        return Round(
            generation=generation,
            spec=spec,
            reading=reading,
            goal=goal,
            tally=conditions.tally(after, owner, reading.outage, self._failures()),
            is_settled=not plan.changes(goal, owner, reading, after),
        )

    def _candidates(self, namespace: str, owner: Owner, spec: Spec | None) -> list[Candidate]:
        """The workloads that the spec names, and those that we have paused; without a spec only the latter."""
        autoscaled = self._inventory.autoscaled(namespace)
        found = (
            Candidate(w, spec is not None and spec.matches(w), (w.kind, w.name) in autoscaled)
            for w in self._inventory.of(namespace)
        )
        return [candidate for candidate in found if candidate.is_matched or candidate.is_paused_by(owner)]

    def _look_again(self, goal: Goal, reading: Reading) -> None:
        if goal.next_at_s is not None:
            self._soon(max(goal.next_at_s - reading.now_s, 0.0))
        for retry in self._retries.values():
            self._soon(max(retry.at_s - time.monotonic(), 0.0))

    def _soon(self, seconds: float) -> None:
        self._again_s = min(self._again_s, seconds)

    # -- answering ----------------------------------------------------------------------------------------------

    async def _answer(self, goal: Goal, owner: Owner, reading: Reading, namespace: str, spec: Spec | None) -> None:
        wanted = plan.changes(goal, owner, reading, self._candidates(namespace, owner, spec))
        wanting = {change.workload.uid for change in wanted}
        self._retries = {uid: retry for uid, retry in self._retries.items() if uid in wanting}
        await asyncio.gather(*(self._make(change) for change in wanted if self._is_due(change)))

    def _is_due(self, change: Change) -> bool:
        retry = self._retries.get(change.workload.uid)
        return retry is None or retry.at_s <= time.monotonic()

    async def _make(self, change: Change) -> None:
        workload = change.workload
        try:
            self._inventory.put(await self._cluster.change(change))
            self._retries.pop(workload.uid, None)
        except NotLeading:
            raise
        except NotFound:
            self._inventory.drop(workload.namespace, workload.name)
        except Conflict:
            await self._look(workload)
        except ClusterError as error:
            self._failed(workload, error)

    async def _look(self, workload: Workload) -> None:
        """See what somebody else has made of it; the next round decides anew."""
        self._soon(CONFLICT_S)
        try:
            self._inventory.put(await self._cluster.workload(workload.namespace, workload.name))
        except NotFound:
            self._inventory.drop(workload.namespace, workload.name)
        except ClusterError as error:
            self._failed(workload, error)

    def _failed(self, workload: Workload, error: ClusterError) -> None:
        tries = self._retries[workload.uid].tries + 1 if workload.uid in self._retries else 1
        first_s, longest_s = RETRY_S
        wait_s = min(first_s * 2 ** min(tries - 1, 10), longest_s)
        failure = Failure("Refused" if isinstance(error, Refused) else "Unavailable", str(error))
        self._retries[workload.uid] = _Retry(failure, tries, time.monotonic() + wait_s)
        if tries == 1:
            logger.warning("%s in %s cannot be changed: %s", workload, workload.namespace, error)

    def _failures(self) -> dict[str, Failure]:
        return {uid: retry.failure for uid, retry in self._retries.items()}

    # -- the status ---------------------------------------------------------------------------------------------

    def _newest(self, seen: Mapping[str, Any]) -> Mapping[str, Any]:
        """What the watch shows, or the answer to our own last write where the watch has not caught up with it."""
        if not self._latest or _version(seen) >= _version(self._latest):
            return seen
        return self._latest

    async def _write(self, resource: Mapping[str, Any], status: Mapping[str, Any]) -> bool:
        try:
            self._latest = await self._cluster.write_status(resource, status)
        except NotLeading:
            raise
        except NotFound:
            return False
        except ClusterError as error:
            self._soon(STATUS_RETRY_S)
            if not isinstance(error, Conflict):
                logger.warning("the status of %s cannot be written: %s", resource["metadata"]["name"], error)
            return False
        self._wrote_s = time.monotonic()
        return True


async def return_orphans(cluster: Cluster, workloads: Iterable[Workload]) -> None:
    """Restore what a resource had paused that is no longer there.

    Raises:
        ClusterError: If the API server cannot be asked.
    """
    for workload in workloads:
        pause = workload.pause
        if pause is None or await cluster.uid_of(workload.namespace, pause.owner) == pause.owner_uid:
            continue
        is_ours = workload.replicas == pause.set_to
        await cluster.change(Change(workload, pause.original if is_ours else None, pause=None))
        logger.info("restored %s in %s: its OpenRouterStatus is gone", workload, workload.namespace)


_NOTHING_KNOWN = Reading(record=None, now_s=0.0, is_fresh=False, last_known_s=0.0)


def _invalid(generation: int, why: str, candidates: Sequence[Candidate], owner: Owner) -> Round:
    return Round(
        generation=generation,
        spec=Spec(mode=Mode.OBSERVE),
        reading=Reading(record=None, now_s=time.time(), is_fresh=False, last_known_s=0.0, error=why),
        goal=Goal(Step.KEEP, "InvalidSpec"),
        tally=conditions.tally(candidates, owner, "", {}),
        invalid=why,
    )


def _owner(resource: Mapping[str, Any]) -> Owner:
    return Owner(resource["metadata"]["uid"], resource["metadata"]["name"])


def _version(resource: Mapping[str, Any]) -> int:
    return int(resource["metadata"]["resourceVersion"])
