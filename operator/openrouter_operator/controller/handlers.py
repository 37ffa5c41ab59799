"""The interface to kopf: maps events to reconciles, and decides nothing.

kopf runs a task for each ``OpenRouterStatus`` as long as it exists, with a finalizer on it and never on a workload.
Workloads are watched without kopf (:mod:`~openrouter_operator.kubernetes.crd_kinds`).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import kopf
from prometheus_client import Counter, Histogram

from openrouter_guard.tracing import span
from openrouter_operator.decisions.events import Event
from openrouter_operator.kubernetes.client import Cluster, ClusterError, NotLeading
from openrouter_operator.kubernetes.crd_kinds import CrdKinds
from openrouter_operator.kubernetes.login import login
from openrouter_operator.kubernetes.paths import AUTOSCALERS, RESOURCE, finalizer_of
from openrouter_operator.kubernetes.relist import Relist
from openrouter_operator.kubernetes.watch_lag import WatchLag
from openrouter_operator.resource.access import Access
from openrouter_operator.resource.precedence import Precedence
from openrouter_operator.resource.spec import DEFAULT_CLASS, Spec, class_of
from openrouter_operator.shared_state.feed import Feeds
from openrouter_operator.shared_state.resolver import Resolver
from openrouter_operator.workloads.inventory import Inventory
from openrouter_operator.workloads.kinds import Kind
from openrouter_operator.workloads.workload import Workload

from .event_poster import Poster
from .leftovers import Leftovers
from .ownerless import Ownerless
from .pause_metrics import METRICS, PauseMetrics
from .reconcile import Reconciler, Vanished

__all__ = ["Operator", "registry"]

logger = logging.getLogger(__name__)

_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

SETTLE_S = 0.05
"""Events come in bursts: one round handles all of a burst."""
MISHAP_S = 5.0
GIVE_BACK_S = 1.0
STALL_S = 120.0


@dataclass(slots=True)
class _Watched:
    """A handled resource: its wake-up event, and the start of the current round (0: none)."""

    namespace: str
    reconciler: Reconciler
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    busy_since: float = 0.0

    @property
    def is_stuck(self) -> bool:
        moved_at = max(self.busy_since, self.reconciler.progressed_at)
        return self.busy_since > 0 and moved_at < time.monotonic() - STALL_S


class Operator:
    """State shared by the handlers.

    Attributes:
        connections: Resolves the state of each resource.
        resources: Handled resources, by UID.
        others: Resources of other classes: the namespace of each, by its UID.
        resource_class: Class of the handled resources.
        finalizer: Finalizer of these resources.
        ending: Ends kopf when it is set.
        arrivals: Kinds that come and go with their CRDs.
        poster: Posts events on workloads.
        pause_metrics: Counts the pauses that this process began and ended.
        streams: Checks that the watches show our own writes.
        reconcile_durations: Durations of reconciles.
        reconcile_errors: Number of failed reconciles.
        left_out: Namespaces left out for lack of a right.
    """

    def __init__(
        self,
        cluster: Cluster,
        inventory: Inventory,
        feeds: Feeds,
        *,
        access: Access | None = None,
        resource_class: str = DEFAULT_CLASS,
        reads_secrets: bool = False,
        namespaces: Sequence[str] = (),
    ) -> None:
        self.resolver = Resolver(cluster, feeds, reads_secrets=reads_secrets)
        self.resource_class = resource_class
        self.finalizer = finalizer_of(resource_class)
        self._access = access or Access()
        self.inventory = inventory
        self.precedence = Precedence(self._can_act)
        self.feeds = feeds
        self.resources: dict[str, _Watched] = {}
        self.others: dict[str, str] = {}
        self.poster = Poster(cluster)
        self.pause_metrics = PauseMetrics()
        self.ownerless = Ownerless(cluster, inventory, self.knows, self.holds, self.lets_go, self._tell)
        self.leftovers = Leftovers(cluster, inventory, self.holds)
        self.relist = Relist(cluster, inventory, self.precedence, self.wake_namespace, namespaces)
        self.ending = asyncio.Event()
        self.watch_lag = WatchLag()
        self.reconcile_durations = Histogram(
            f"{METRICS}_reconcile_duration_seconds",
            "How long one reconcile of a resource took",
            registry=None,
            buckets=_BUCKETS_S,
        )
        self.reconcile_errors = Counter(
            f"{METRICS}_reconcile_errors", "Reconciles that failed as a whole", registry=None
        )
        self.left_out: tuple[str, ...] = ()
        cluster.wrote = self.watch_lag.wrote
        self.crd_kinds = CrdKinds(
            cluster, inventory, self.saw, self.watch_lag.forget, self.wake_all, on_refusal=self.ending.set
        )
        self._cluster = cluster

    def _can_act(self, resource: Mapping[str, Any], spec: Spec) -> bool:
        """Return whether a resource is carried out: by this operator, or by another class's, which has marked it."""
        metadata = resource["metadata"]
        if spec.resource_class == self.resource_class:
            return self._access.may_use(metadata["namespace"], spec.scope)
        return finalizer_of(spec.resource_class) in (metadata.get("finalizers") or ())

    @property
    def host(self) -> str:
        """The address of the API server."""
        return self._cluster.host

    @property
    def strict_x509(self) -> bool:
        """Whether the certificate authority of the API server must have the extensions of RFC 5280."""
        return self._cluster.strict_x509

    def wake_all(self) -> None:
        for watched in self.resources.values():
            watched.wake.set()

    def saw(self, kind: Kind, event: str | None, body: Mapping[str, Any]) -> None:
        """Note a change of a workload."""
        workload = self.inventory.at_version(kind, body["metadata"]) or Workload.of(kind, body)
        self.watch_lag.saw(kind.plural, workload.namespace, workload.version)
        if workload.owes_fields:
            self.leftovers.owe()
        self.ownerless.saw(workload, is_gone=event == "DELETED")
        if event == "DELETED":
            self.inventory.drop(workload)
        elif not self.inventory.put(workload):
            return
        self.wake_namespace(workload.namespace)
        pause = workload.pause
        if workload.copied is not None or (pause and not self.knows(pause.owner_uid, workload.namespace)):
            self.ownerless.trigger()

    def knows(self, uid: str, namespace: str) -> bool:
        """Return whether the resource exists in that namespace, and is handled."""
        watched = self.resources.get(uid)
        return namespace == (watched.namespace if watched else self.others.get(uid))

    def holds(self, uid: str) -> bool:
        """Return whether a resource has paused the workload, whatever its annotation says by now."""
        return any(watched.reconciler.holds(uid) for watched in self.resources.values())

    def wake_scope(self, scope: str) -> None:
        for watched in self.resources.values():
            if watched.reconciler.scope == scope:
                watched.wake.set()

    def wake_namespace(self, namespace: str) -> None:
        for watched in self.resources.values():
            if watched.namespace == namespace:
                watched.wake.set()

    def lets_go(self, namespace: str) -> None:
        """Workloads there were released: other resources may want them, and copies of their annotations are void."""
        self.leftovers.trigger(namespace)
        self.wake_namespace(namespace)

    def _tell(self, workload: Workload, event: Event) -> None:
        """Count what an event on a workload is about, and post it."""
        self.pause_metrics.count(workload, event, self._cluster.now)
        self.poster.put(workload, event)

    def stalled(self) -> list[str]:
        """Return the parts without progress."""
        stuck = (f"resource {uid}" for uid, watched in self.resources.items() if watched.is_stuck)
        return [*self.feeds.stalled(), *stuck, *self.watch_lag.stalled()]

    def reconciler(self, uid: str) -> Reconciler:
        """Return the reconciler of the resource, or a new one."""
        watched = self.resources.get(uid)
        if watched:
            return watched.reconciler
        return Reconciler(
            self._cluster,
            self.inventory,
            self.resolver,
            self.precedence,
            self._access,
            self.lets_go,
            self._tell,
        )

    @contextmanager
    def watching(self, uid: str, namespace: str) -> Iterator[_Watched]:
        watched = self.resources[uid] = _Watched(namespace, self.reconciler(uid))
        try:
            yield watched
        finally:
            del self.resources[uid]


# -- the resource ---------------------------------------------------------------------------------------------------


async def reconcile_loop(
    body: kopf.Body, uid: str, namespace: str | None, memo: kopf.Memo, stopped: kopf.DaemonStopped, **_: Any
) -> None:
    operator: Operator = memo.operator
    with operator.watching(uid, str(namespace)) as watched:
        while not stopped:
            watched.busy_since = time.monotonic()
            try:
                requeue_after_s = await _reconcile_once(operator, watched.reconciler, body)
            except Vanished as error:
                logger.warning("%s", error)
                await operator.resolver.drop(uid)
                break
            watched.busy_since = 0.0
            await _first(watched.wake, stopped, requeue_after_s)
            watched.wake.clear()
    operator.ownerless.trigger()


def is_of_our_class(body: kopf.Body, memo: kopf.Memo, **_: Any) -> bool:
    """Return whether this operator handles the resource; other classes belong to other operators."""
    return bool(class_of(body) == memo.operator.resource_class)


async def _reconcile_once(operator: Operator, reconciler: Reconciler, body: kopf.Body) -> float:
    """Run one round, with any outcome; return the seconds until the next look at the latest."""
    began_at = time.monotonic()
    try:
        with span("reconcile", namespace=str(body.metadata.namespace), resource=str(body.metadata.name)) as told:
            outcome = await reconciler.reconcile(dict(body))
            told.set(events=len(outcome.events))
        for event in outcome.events:
            logger.info("%s/%s: %s: %s", body.metadata.namespace, body.metadata.name, event.reason, event.message)
            kopf.event(body, type=event.type, reason=event.reason, message=event.message)
    except Vanished:
        raise
    except NotLeading as error:
        logger.warning("%s", error)
        operator.reconcile_errors.inc()
        return MISHAP_S
    except Exception:
        # Only unexpected errors come here. The resource must still be handled.
        logger.exception("unexpected error while reconciling")
        operator.reconcile_errors.inc()
        return MISHAP_S
    finally:
        operator.reconcile_durations.observe(time.monotonic() - began_at)
    return outcome.requeue_after_s


async def _first(wake: asyncio.Event, stopped: kopf.DaemonStopped, seconds: float) -> None:
    """Return at a change, at the end, or after *seconds*; after a change, once the burst is over."""
    ending = asyncio.ensure_future(stopped.wait())
    waking = asyncio.create_task(wake.wait())
    try:
        await asyncio.wait({ending, waking}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if waking.done() and not ending.done():
            await asyncio.wait({ending}, timeout=SETTLE_S)
    finally:
        ending.cancel()
        waking.cancel()
        await asyncio.gather(ending, waking, return_exceptions=True)


async def resource_changed(event: kopf.RawEvent, body: kopf.Body, uid: str, memo: kopf.Memo, **_: Any) -> None:
    operator: Operator = memo.operator
    _note_listing(operator, event)
    operator.watch_lag.saw(RESOURCE[2], str(body.metadata.namespace), body.metadata["resourceVersion"])
    _note_claim(operator, event, body)
    operator.others.pop(uid, None)
    if event["type"] == "DELETED":
        operator.ownerless.trigger()
        await operator.resolver.drop(uid)
    elif not is_of_our_class(body, memo):
        await operator.resolver.drop(uid)
        operator.others[uid] = str(body.metadata.namespace)
    elif body.metadata.get("deletionTimestamp") and operator.finalizer in body.metadata.get("finalizers", ()):
        # kopf removes the finalizer after this, so it must not return before all is restored.
        await _finalize(operator.reconciler(uid), body)
    elif uid in operator.resources:
        operator.resources[uid].wake.set()


def _note_listing(operator: Operator, event: kopf.RawEvent) -> None:
    """A listing watch was re-established, and does not show earlier deletions."""
    if event["type"] is None:
        operator.relist.trigger()


def _note_claim(operator: Operator, event: kopf.RawEvent, body: kopf.Body) -> None:
    """A resource's claim limits younger resources."""
    if event["type"] == "DELETED":
        operator.precedence.drop(body)
        changed = True
    else:
        changed = operator.precedence.put(body)
    if changed:
        operator.wake_namespace(str(body.metadata.get("namespace")))


async def _finalize(reconciler: Reconciler, body: kopf.Body) -> None:
    told: list[str] = []
    while in_the_way := await _in_the_way(reconciler, body):
        if in_the_way != told:
            kopf.event(body, type="Warning", reason="RestoreFailed", message="; ".join(in_the_way)[:1000])
        told = in_the_way
        await asyncio.sleep(GIVE_BACK_S)


async def _in_the_way(reconciler: Reconciler, body: kopf.Body) -> list[str]:
    try:
        return await reconciler.finalize(dict(body))
    except ClusterError as error:
        return [str(error)]
    except Exception as error:
        logger.exception("unexpected error while restoring")
        return [str(error)]


# -- autoscalers ----------------------------------------------------------------------------------------------------
# No indices of kopf: while it fills them, each object wakes all others, for minutes where there are thousands.


async def autoscaler_changed(event: kopf.RawEvent, body: kopf.Body, memo: kopf.Memo, **_: Any) -> None:
    _note_listing(memo.operator, event)
    if event["type"] == "DELETED":
        memo.operator.inventory.drop_autoscaler(body.metadata.namespace, body.metadata.name)
    else:
        memo.operator.inventory.put_autoscaler(body)


# -- kopf itself ----------------------------------------------------------------------------------------------------


async def cleanup(memo: kopf.Memo, **_: Any) -> None:
    """End tasks that kopf would otherwise wait for: the feeds, and its own wait for the flag."""
    memo.operator.ending.set()
    await memo.operator.feeds.stop()


def registry() -> kopf.OperatorRegistry:
    """All handlers."""
    found = kopf.OperatorRegistry()
    kopf.daemon(*RESOURCE, registry=found, id="look-after", when=is_of_our_class)(reconcile_loop)
    kopf.on.event(*RESOURCE, registry=found, id="resource-changed")(resource_changed)
    kopf.on.event(*AUTOSCALERS, registry=found, id="autoscaler-changed")(autoscaler_changed)
    kopf.on.cleanup(registry=found)(cleanup)
    kopf.on.login(registry=found)(login)
    return found
