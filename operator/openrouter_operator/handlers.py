"""kopf in, kopf out: which events wake what, and nothing decided here.

kopf sees that each ``OpenRouterStatus`` has a task of its own as long as it exists, with a finalizer on it and never
on anybody's workload. Workloads are only watched.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import kopf

from . import reconcile
from .cluster import VERSION, Cluster, ClusterError, NotLeading
from .feed import Feeds
from .inventory import Inventory
from .reconcile import Reconciler
from .workload import GROUP, Workload

__all__ = ["Operator", "configure", "registry"]

logger = logging.getLogger(__name__)

registry = kopf.OperatorRegistry()

RESOURCE = (GROUP, VERSION, "openrouterstatuses")
DEPLOYMENTS = ("apps", "v1", "deployments")
AUTOSCALERS = ("autoscaling", "v2", "horizontalpodautoscalers")
FINALIZER = f"{GROUP}/restore"
SETTLE_S = 0.05
"""Events come in bursts: one round answers all of a burst."""
MISHAP_S = 5.0
GIVE_BACK_S = 1.0
STALL_S = 120.0
_LOGIN_S = 600.0


@dataclass(slots=True)
class _Watched:
    """A resource that is looked after: what wakes it, and since when a round has been under way (loop time)."""

    namespace: str
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    scope: str = ""
    busy_since_s: float | None = None


@dataclass(slots=True)
class Operator:
    """What the handlers share.

    Attributes:
        resources: By UID.
        orphaned: Set when a workload may be paused by a resource that is gone.
        ending: Ends kopf when it is set.
    """

    cluster: Cluster
    inventory: Inventory
    feeds: Feeds
    resources: dict[str, _Watched] = field(default_factory=dict)
    orphaned: asyncio.Event = field(default_factory=asyncio.Event)
    ending: asyncio.Event = field(default_factory=asyncio.Event)

    def wake_scope(self, scope: str) -> None:
        for watched in self.resources.values():
            if watched.scope == scope:
                watched.wake.set()

    def wake_namespace(self, namespace: str) -> None:
        for watched in self.resources.values():
            if watched.namespace == namespace:
                watched.wake.set()

    def stalled(self) -> list[str]:
        """What makes no progress."""
        late_s = asyncio.get_running_loop().time() - STALL_S
        stuck = [uid for uid, w in self.resources.items() if w.busy_since_s is not None and w.busy_since_s < late_s]
        return [*self.feeds.stalled(), *(f"resource {uid}" for uid in stuck)]

    @contextmanager
    def watching(self, uid: str, namespace: str) -> Iterator[_Watched]:
        watched = self.resources[uid] = _Watched(namespace)
        try:
            yield watched
        finally:
            del self.resources[uid]

    async def return_orphans(self) -> None:
        """Restore, once in a while and whenever something hints at it, what a vanished resource had paused."""
        await self.orphaned.wait()
        self.orphaned.clear()
        try:
            await reconcile.return_orphans(self.cluster, self._orphans())
        except ClusterError as error:
            logger.warning("workloads of a vanished OpenRouterStatus wait: %s", error)
            self.orphaned.set()
            await asyncio.sleep(MISHAP_S)

    def _orphans(self) -> list[Workload]:
        found = self.inventory.paused()
        return [workload for workload in found if workload.pause and workload.pause.owner_uid not in self.resources]


# -- the resource ---------------------------------------------------------------------------------------------------


@kopf.daemon(*RESOURCE, registry=registry, id="look-after")
async def look_after(
    body: kopf.Body, uid: str, namespace: str | None, memo: kopf.Memo, stopped: kopf.DaemonStopped, **_: Any
) -> None:
    operator: Operator = memo.operator
    reconciler = Reconciler(operator.cluster, operator.inventory, operator.feeds)
    with operator.watching(uid, str(namespace)) as watched:
        while not stopped:
            watched.scope = str((body.get("spec") or {}).get("scope") or "")
            watched.busy_since_s = asyncio.get_running_loop().time()
            again_s = await _look(reconciler, body)
            watched.busy_since_s = None
            await _first(watched.wake, stopped, again_s)
            watched.wake.clear()
        await _give_back(reconciler, body, stopped)


async def _look(reconciler: Reconciler, body: kopf.Body) -> float:
    """One round, whatever happens; returns in how many seconds to look again at the latest."""
    try:
        outcome = await reconciler.reconcile(dict(body))
    except NotLeading as error:
        logger.warning("%s", error)
        return MISHAP_S
    except Exception:
        # Nothing that is expected comes here. The resource must not be given up all the same.
        logger.exception("a round failed in a way that nobody thought of")
        return MISHAP_S
    for event in outcome.events:
        kopf.event(body, type=event.type, reason=event.reason, message=event.message)
    return outcome.again_s


async def _give_back(reconciler: Reconciler, body: kopf.Body, stopped: kopf.DaemonStopped) -> None:
    """Restore everything if the resource is being deleted; until then the finalizer keeps it."""
    while _is_deleted(stopped):
        try:
            if await reconciler.give_back(dict(body)):
                return
        except NotLeading:
            return  # whoever leads now does it
        except Exception:
            logger.exception("restoring failed in a way that nobody thought of")
        await asyncio.sleep(GIVE_BACK_S)


def _is_deleted(stopped: kopf.DaemonStopped) -> bool:
    reason = stopped.reason
    if reason is None or kopf.DaemonStoppingReason.OPERATOR_EXITING in reason:
        return False
    return kopf.DaemonStoppingReason.RESOURCE_DELETED in reason


async def _first(wake: asyncio.Event, stopped: kopf.DaemonStopped, seconds: float) -> None:
    """Return at news, at the end, or after *seconds*; after news, once the burst is over."""
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


@kopf.on.event(*RESOURCE, registry=registry, id="resource-changed")
async def resource_changed(event: kopf.RawEvent, uid: str, memo: kopf.Memo, **_: Any) -> None:
    operator: Operator = memo.operator
    if event["type"] == "DELETED":
        operator.orphaned.set()
    elif uid in operator.resources:
        operator.resources[uid].wake.set()


# -- the workloads --------------------------------------------------------------------------------------------------


# Nothing is kept in kopf's index. But kopf calls these two for all that there is before anything else runs, so that
# nobody decides on a part of it.


@kopf.index(*DEPLOYMENTS, registry=registry, id="deployments")
async def deployment_seen(body: kopf.Body, memo: kopf.Memo, **_: Any) -> None:
    memo.operator.inventory.put(Workload.of(body))


@kopf.on.event(*DEPLOYMENTS, registry=registry, id="deployment-changed")
async def deployment_changed(
    event: kopf.RawEvent, body: kopf.Body, namespace: str | None, name: str, memo: kopf.Memo, **_: Any
) -> None:
    operator: Operator = memo.operator
    if event["type"] == "DELETED":
        operator.inventory.drop(str(namespace), name)
    pause = Workload.of(body).pause
    if pause is not None and pause.owner_uid not in operator.resources:
        operator.orphaned.set()
    operator.wake_namespace(str(namespace))


@kopf.index(*AUTOSCALERS, registry=registry, id="autoscalers")
async def autoscaler_seen(namespace: str | None, name: str, spec: kopf.Spec, memo: kopf.Memo, **_: Any) -> None:
    memo.operator.inventory.put_autoscaler(str(namespace), name, spec.get("scaleTargetRef") or {})


@kopf.on.event(*AUTOSCALERS, registry=registry, id="autoscaler-changed")
async def autoscaler_changed(
    event: kopf.RawEvent, namespace: str | None, name: str, memo: kopf.Memo, **_: Any
) -> None:
    if event["type"] == "DELETED":
        memo.operator.inventory.drop_autoscaler(str(namespace), name)


# -- kopf itself ----------------------------------------------------------------------------------------------------


@kopf.on.login(registry=registry)
def login(**arguments: Any) -> kopf.ConnectionInfo | None:
    """The same credentials as our own client's, read again before a projected token ends."""
    found = kopf.login_with_service_account(**arguments) or kopf.login_with_kubeconfig(**arguments)
    if not isinstance(found, kopf.ConnectionInfo):
        return None
    expiration = datetime.now(UTC) + timedelta(seconds=_LOGIN_S)
    return replace(found, expiration=expiration)


@kopf.on.cleanup(registry=registry)
async def cleanup(memo: kopf.Memo, **_: Any) -> None:
    """End what kopf would else take for hung, and wait for: the feeds, and its own wait for the flag."""
    memo.operator.ending.set()
    await memo.operator.feeds.stop()


def configure() -> kopf.OperatorSettings:
    """Kopf's settings: bounded everywhere, and under our own names."""
    settings = kopf.OperatorSettings()
    settings.peering.standalone = True  # a Lease decides who acts; peering is no mutex
    settings.scanning.disabled = True  # needs rights on CRDs and namespaces that nobody should have to give
    settings.persistence.finalizer = FINALIZER
    settings.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix=GROUP)
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=GROUP)
    settings.posting.reporting_component = "openrouter-guard"
    settings.posting.event_name_prefix = "openrouter-guard-"
    settings.watching.server_timeout = 240
    settings.watching.client_timeout = 300
    settings.watching.connect_timeout = 10
    settings.networking.request_timeout = 10
    settings.networking.connect_timeout = 5
    settings.background.instant_exit_timeout = 10  # long enough to restore most namespaces
    settings.background.cancellation_polling = 2
    settings.process.ultimate_exiting_timeout = 25
    return settings
