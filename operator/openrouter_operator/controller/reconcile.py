"""Reconciles one ``OpenRouterStatus``: gather, decide, apply."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from openrouter_guard import tracing
from openrouter_guard.errors import StoreError
from openrouter_guard.rules import log_facts
from openrouter_guard.rules.override import OVERRIDE_MOST_S
from openrouter_operator.decisions import contests, plan, workload_events
from openrouter_operator.decisions import goal as goals
from openrouter_operator.decisions import status as statuses
from openrouter_operator.decisions.events import Event, events
from openrouter_operator.decisions.goal import Goal, Step
from openrouter_operator.decisions.result import Overriding, ReconcileResult
from openrouter_operator.decisions.snapshot import ScopeSnapshot
from openrouter_operator.decisions.summary import (
    Failure,
    summary,
)
from openrouter_operator.decisions.targets import Owner, Targets, paused_since
from openrouter_operator.kubernetes.client import Cluster, ClusterError, Conflict, NotFound, NotLeading
from openrouter_operator.resource import overrides
from openrouter_operator.resource import spec as specs
from openrouter_operator.resource.access import Access
from openrouter_operator.resource.precedence import Precedence
from openrouter_operator.resource.spec import InvalidSpec, Mode, NotAllowed, Spec
from openrouter_operator.shared_state.feed import Feed, Unreadable
from openrouter_operator.shared_state.resolver import Resolver
from openrouter_operator.workloads.inventory import Inventory
from openrouter_operator.workloads.workload import Change, Workload

from .apply import RETRY, Applier
from .gather import Gatherer, unmatched, unwatched
from .pause_journal import PauseJournal

__all__ = ["Outcome", "Reconciler", "Vanished"]

logger = logging.getLogger(__name__)

IDLE_S = 60.0
"""How long to rest without events or due times."""
RETRY_S = 5.0
_NOT_ALLOWED = Failure(
    "OverrideNotAllowed",
    "this namespace may not override this scope: the operator's configuration (operator.access) must allow it",
)
_TOO_LONG = Failure(
    "OverrideFailed",
    "the override does not stand: spec.override.until is more than 30 days ahead; name an earlier time",
)
_ENDED = Failure(
    "OverrideEnded",
    "the override had ended before it could stand, so nothing was overridden: name a later time in"
    " spec.override.until (UTC ends in Z), or take spec.override out",
)
_GIVE_BACK = Goal(Step.RESUME, "Deleted", share=1.0)
_NOTHING_KNOWN = ScopeSnapshot(record=None, now=0.0, is_fresh=False, last_known_at=0.0)


class Vanished(ClusterError):
    """The resource is gone, although no event said so."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a round: its events, and the seconds until the next look at the latest."""

    events: Sequence[Event]
    requeue_after_s: float


class Reconciler:
    """Handles one resource throughout all changes of its spec.

    Args:
        on_released: Called with the namespace of released workloads: other resources may want them, and the watch,
            which shows the known state, does not trigger them.

    Attributes:
        scope: The scope that the resource requested last.
        is_flapping: Whether its breaker closed too often to be trusted.
        name: Name of the resource; empty before the first round.
        result: Result of the last round; None before the first.
    """

    def __init__(
        self,
        cluster: Cluster,
        inventory: Inventory,
        resolver: Resolver,
        precedence: Precedence,
        access: Access,
        on_released: Callable[[str], None] = lambda _namespace: None,
        tell: Callable[[Workload, Event], None] = lambda _workload, _event: None,
    ) -> None:
        self.scope = ""
        self.is_flapping = False
        self.name = ""
        self.result: ReconcileResult | None = None
        self._access = access
        self._precedence = precedence
        self._cluster = cluster
        self._inventory = inventory
        self._resolver = resolver
        self._on_released = on_released
        self._tell = tell
        self._applier = Applier(cluster, inventory)
        self._journal = PauseJournal()
        self._gatherer = Gatherer(inventory, precedence, self._journal)
        self._feed: Feed | Unreadable | None = None
        self._latest: Mapping[str, Any] = {}
        self._wrote_at = -statuses.COUNTERS_S
        self._write_failures = 0
        # A deletion must not restore workloads that a running round pauses.
        self._lock = asyncio.Lock()

    def holds(self, uid: str) -> bool:
        """Return whether this resource has paused the workload, whatever its annotation says by now."""
        return self._journal.holds(uid)

    @property
    def progressed_at(self) -> float:
        """Time of the last answered change of a workload, monotonic clock."""
        return self._applier.progressed_at

    @property
    def failing(self) -> int:
        """Number of workloads that wait for a retry."""
        return len(self._applier.failures())

    async def reconcile(self, resource: Mapping[str, Any]) -> Outcome:
        """Run one round; *resource* is the object as last seen.

        Raises:
            NotLeading: If this operator may not act any more.
            Vanished: If the resource is gone.
        """
        async with self._lock:
            resource = statuses.sound(self._newest(resource))
            if resource["metadata"].get("deletionTimestamp"):
                return Outcome((), IDLE_S)
            old = resource.get("status") or {}
            now, requeue_after_s = await self._round(resource, old)
            self.name, self.result = resource["metadata"]["name"], now
            new = statuses.status(old, now)
            if not statuses.differs(old, new, since_write_s=time.monotonic() - self._wrote_at):
                return Outcome((), requeue_after_s)
            if await self._write(resource, new):
                return Outcome(events(old, new), requeue_after_s)
            return Outcome(self._unwritten(old, new), min(requeue_after_s, RETRY.wait_s(self._write_failures)))

    def _unwritten(self, old: Mapping[str, Any], new: Mapping[str, Any]) -> Sequence[Event]:
        """Return the event about an invalid spec, once: if an older schema let it in, it can have no status."""
        if self._write_failures != 1:
            return ()
        return [event for event in events(old, new) if event.reason == "InvalidSpec"]

    async def finalize(self, resource: Mapping[str, Any]) -> list[str]:
        """Restore everything that the resource has paused; return the obstacles, empty if nothing is left.

        Raises:
            NotLeading: If this operator may not act any more.
        """
        async with self._lock:
            resource = statuses.sound(resource)
            await self._withdraw(resource)
            owner, namespace = _owner(resource), resource["metadata"]["namespace"]
            orphans = specs.is_left_paused(resource)
            missed: list[Workload] = []
            if orphans:
                await self._make(plan.orphaned(self._gatherer.targets(namespace, owner, None)), owner, "Orphaned")
            else:
                missed = await self._restore(namespace, owner, "it is deleted", self._last_words(resource))
            left = [c.workload for c in self._gatherer.targets(namespace, owner, None).owned]
            if orphans:
                left = [workload for workload in left if workload.pause and not workload.pause.is_orphaned]
            if not left and self._feed is not None:
                self._feed.tell(f"{namespace}/{owner.name}", ())
            failures = self._applier.failures()
            # A mark that cannot be removed keeps nobody's resource; one that was only seen too late is tried again.
            told = {*failures, *(workload.uid for workload in left)}
            left += [workload for workload in missed if workload.uid not in told]
            going = "it is not as it was seen; tried again"
            return [f"{w}: {failures[w.uid].message if w.uid in failures else going}" for w in left if not w.is_going]

    # -- one round ----------------------------------------------------------------------------------------------

    async def _round(self, resource: Mapping[str, Any], old: Mapping[str, Any]) -> tuple[ReconcileResult, float]:
        """Return the result of the round, and the seconds until the next."""
        namespace, generation = resource["metadata"]["namespace"], resource["metadata"]["generation"]
        owner = _owner(resource)
        self._gatherer.rolling = statuses.rolling(old)
        try:
            spec = self._allowed(specs.parse(resource.get("spec")), namespace)
        except NotAllowed as error:
            # Workloads paused while it was allowed must not wait for a person to notice.
            await self._restore(namespace, owner, "its scope is no longer allowed here")
            return self._invalid(generation, error, self._gatherer.targets(namespace, owner, None)), RETRY_S
        except InvalidSpec as error:
            return self._invalid(generation, error, self._gatherer.targets(namespace, owner, None)), IDLE_S
        self.scope = spec.scope
        feed = await self._resolver.of(owner.uid, namespace, spec)
        if self._feed is not None and self._feed is not feed:
            self._feed.tell(f"{namespace}/{owner.name}", ())
        self._feed = feed
        override = await self._override(feed, resource, spec)
        dated_at = self._cluster.now
        snapshot = _since_before(feed.read(), old, dated_at)
        self._journal.begin(snapshot)
        before = self._gatherer.targets(namespace, owner, spec)
        goal = goals.goal(spec, snapshot, paused_since(before, snapshot))
        self.is_flapping = goal.reason == goals.FLAPPING
        wanted = plan.changes(goal, snapshot, before)
        why = snapshot.cause if goal.step is Step.PAUSE and snapshot.cause else goal.reason
        ends = workload_events.until(spec, goal, snapshot)
        await self._make([] if spec.dry_run else wanted, owner, why, ends, snapshot)
        after = self._gatherer.targets(namespace, owner, spec) if wanted else before
        self._journal.note(after, snapshot.now)
        now = ReconcileResult(
            generation=generation,
            spec=spec,
            snapshot=snapshot,
            goal=goal,
            summary=summary(
                after,
                snapshot.outage,
                self._applier.failures(),
                unwatched(self._inventory, spec),
                unmatched(self._inventory, namespace, spec),
            ),
            is_settled=spec.dry_run or not (wanted and plan.changes(goal, snapshot, after)),
            would=tuple(map(str, wanted)) if spec.dry_run else (),
            took_s=feed.now - snapshot.now,
            override=override,
            dated_at=dated_at,
        )
        paused = [str(c.workload) for c in after.owned]
        feed.tell(f"{namespace}/{owner.name}", paused)
        next_at = min(goal.next_at or math.inf, contests.next_contest_at(after))
        due_s = max(next_at - feed.now, 0.0)
        return now, min(due_s, self._applier.due_in_s(), RETRY_S if override.failure else IDLE_S)

    def _invalid(self, generation: int, why: InvalidSpec, targets: Targets) -> ReconcileResult:
        return ReconcileResult(
            generation=generation,
            spec=Spec(mode=Mode.OBSERVE),
            snapshot=replace(_NOTHING_KNOWN, now=self._cluster.now, error=str(why)),
            goal=Goal(Step.KEEP, "InvalidSpec"),
            summary=summary(targets, "", {}),
            invalid=str(why),
        )

    async def _restore(
        self, namespace: str, owner: Owner, why: str, snapshot: ScopeSnapshot = _NOTHING_KNOWN
    ) -> list[Workload]:
        """Return the workloads that could not be changed."""
        wanted = plan.changes(_GIVE_BACK, snapshot, self._gatherer.targets(namespace, owner, None))
        made = {change.workload.uid for change in await self._make(wanted, owner, why, snapshot=snapshot)}
        return [change.workload for change in wanted if change.workload.uid not in made]

    def _last_words(self, resource: Mapping[str, Any]) -> ScopeSnapshot:
        """Report, for the last resource of a scope, that no outage concerns the namespace any more."""
        metadata = resource["metadata"]
        with suppress(InvalidSpec):
            scope = specs.parse(resource.get("spec")).scope
            if scope not in self._precedence.scopes(metadata["namespace"], besides=metadata["uid"]):
                return replace(_NOTHING_KNOWN, scope=scope, is_fresh=True)
        return _NOTHING_KNOWN

    async def _make(
        self,
        wanted: Sequence[Change],
        owner: Owner,
        why: str,
        until: str = "",
        snapshot: ScopeSnapshot = _NOTHING_KNOWN,
    ) -> list[Change]:
        self._journal.asks(wanted)
        made = await self._applier.make(wanted)
        self._journal.made(made)
        for change in made:
            if event := workload_events.notice(change, f"OpenRouterStatus {owner.name}", why, until):
                _log(change.workload, event, why, snapshot)
                self._tell(change.workload, event)
        for namespace in {change.workload.namespace for change in made if change.pause is None}:
            self._on_released(namespace)
        return made

    def _allowed(self, spec: Spec, namespace: str) -> Spec:
        if not self._access.may_use(namespace, spec.scope):
            raise NotAllowed(
                f"spec.scope: namespace {namespace} may not use scope {spec.scope!r}: the operator's configuration"
                " (operator.access) has to say so"
            )
        return spec

    async def _override(self, feed: Feed | Unreadable, resource: Mapping[str, Any], spec: Spec) -> Overriding:
        """Apply the spec's override, once per generation; withdraw it when the spec has none any more."""
        metadata = resource["metadata"]
        applied = ((resource.get("status") or {}).get("override") or {}).get("appliedGeneration")
        wish = overrides.wished(spec.override, _who(resource))
        if not (wish or applied) or spec.dry_run or spec.suspend or applied == metadata["generation"]:
            return Overriding(applied)
        if not self._access.may_override(metadata["namespace"], spec.scope):
            return Overriding(None, _NOT_ALLOWED if wish else None)
        if wish and wish.until > feed.now + OVERRIDE_MOST_S:
            return Overriding(applied, _TOO_LONG)
        if wish and wish.until <= feed.now and not applied:
            return Overriding(None, _ENDED)
        try:
            await feed.override(wish, _who(resource))
        except StoreError as error:
            return Overriding(applied, Failure("OverrideFailed", f"the override does not stand yet: {error}"))
        return Overriding(metadata["generation"] if wish else None)

    async def _withdraw(self, resource: Mapping[str, Any]) -> None:
        """End the override of a deleted resource; if Redis is away, it ends by itself at its time."""
        if not ((resource.get("status") or {}).get("override") or {}).get("appliedGeneration"):
            return
        try:
            spec = specs.parse(resource.get("spec"))
            feed = await self._resolver.of(resource["metadata"]["uid"], resource["metadata"]["namespace"], spec)
            await feed.override(None, _who(resource))
        except (StoreError, InvalidSpec) as error:
            logger.warning("the override of %s is not withdrawn: %s", _who(resource), error)

    # -- the status ---------------------------------------------------------------------------------------------

    def _newest(self, seen: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the watch's version, or a later answer of the API server that the watch has not shown yet."""
        if not self._latest or _version(seen) >= _version(self._latest):
            return seen
        return self._latest

    async def _write(self, resource: Mapping[str, Any], status: Mapping[str, Any]) -> bool:
        name, namespace = resource["metadata"]["name"], resource["metadata"]["namespace"]
        try:
            try:
                self._latest = await self._cluster.write_status(resource, status)
            except Conflict:
                self._latest = await self._cluster.resource(namespace, name)
                return False
        except NotLeading:
            raise
        except NotFound:
            raise Vanished(f"OpenRouterStatus {namespace}/{name} is gone") from None
        except ClusterError as error:
            self._write_failures += 1
            if self._write_failures == 1:
                logger.warning("the status of %s/%s cannot be written: %s", namespace, name, error)
            return False
        self._wrote_at, self._write_failures = time.monotonic(), 0
        return True


def _since_before(snapshot: ScopeSnapshot, old: Mapping[str, Any], dated_at: float) -> ScopeSnapshot:
    """A state that was unreadable before this process started has been unknown for longer than that.

    *dated_at* is now, by the clock of the conditions, which may be another one than that of the reading.
    """
    unknown_at = statuses.unknown_since(old)
    if snapshot.is_fresh or unknown_at is None:
        return snapshot
    return replace(snapshot, last_known_at=min(snapshot.last_known_at, snapshot.now - (dated_at - unknown_at)))


def _who(resource: Mapping[str, Any]) -> str:
    """Return the author of a resource's override, for the history and the status."""
    return f"OpenRouterStatus {resource['metadata']['namespace']}/{resource['metadata']['name']}"


def _owner(resource: Mapping[str, Any]) -> Owner:
    return Owner(resource["metadata"]["uid"], resource["metadata"]["name"])


def _version(resource: Mapping[str, Any]) -> int:
    return int(resource["metadata"]["resourceVersion"])


def _log(workload: Workload, event: Event, why: str, snapshot: ScopeSnapshot) -> None:
    facts = log_facts.of_pause(
        event.reason, str(workload), workload.namespace, scope=snapshot.scope, reason=why, epoch=snapshot.epoch
    )
    logger.info("%s in %s: %s (%s)", workload, workload.namespace, event.reason, facts["reason"], extra=facts)
    tracing.note_event("change", {name: fact for name, fact in facts.items() if name != "reason"})
