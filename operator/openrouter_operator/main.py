"""One run of the operator: become the leader, then let kopf watch until a signal, or until the lease is lost."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from typing import Any, cast

import kopf

from openrouter_guard.background import Background, cancelled
from openrouter_guard.errors import OpenRouterGuardError

from .controller import handlers
from .controller.handlers import Operator
from .controller.kopf_settings import configure
from .controller.leftovers import EVERYWHERE
from .kubernetes.client import Cluster, ClusterError, Refused
from .kubernetes.crd_kinds import comes_with_a_crd
from .kubernetes.lease import Lease
from .kubernetes.paths import AUTOSCALERS, RESOURCE, Path
from .serving.metrics import Telemetry
from .serving.probes import serving
from .settings import OperatorSettings
from .shared_state.feed import Feeds
from .workloads.inventory import Inventory
from .workloads.kinds import BY_NAME, Kind

__all__ = ["run"]

logger = logging.getLogger(__name__)

CRD_S = 5.0
RIGHTS_S = 30.0


class LeaseLost(OpenRouterGuardError):
    """Another operator may act now: this one exits, and restarts as a candidate."""


class WatchFailed(OpenRouterGuardError):
    """A required watch is not possible: the right is missing, or the API server is away."""


def run(settings: OperatorSettings) -> None:
    """Run until SIGINT or SIGTERM.

    Raises:
        ConfigurationError: If a setting cannot be used, or there is no cluster.
        LeaseLost: If the lease could not be renewed; the caller restarts the operator, as with the next.
        WatchFailed: If a watch is not possible.
    """
    _quiet()
    asyncio.run(_run(settings))


def _quiet() -> None:
    """Silence library messages about events that are reported here."""
    logging.getLogger("kubernetes.aio.config").setLevel(logging.CRITICAL)
    # kopf logs each call of each handler, and each signal and login.
    logging.getLogger("kopf").setLevel(max(logging.WARNING, logging.getLogger().level))
    for handler in logging.getLogger().handlers:
        handler.addFilter(_in_one_line)


def _in_one_line(record: logging.LogRecord) -> bool:
    """Drop kopf's tracebacks: its fatal errors arrive here as exceptions, and the caller reports them."""
    if record.name.startswith("kopf.") or (record.name == "asyncio" and "watcher for" in record.getMessage()):
        record.exc_info = record.exc_text = None
    return True


async def _run(settings: OperatorSettings) -> None:
    async with AsyncExitStack() as stack:
        cluster = await stack.enter_async_context(await Cluster.connect(strict_x509=settings.strict_x509))
        lease = Lease(
            cluster,
            namespace=settings.lease_namespace,
            name=settings.lease_name,
            identity=settings.identity,
            life_s=settings.lease_s,
        )
        cluster.fence = lease.check
        operator = await stack.enter_async_context(_operator(settings, cluster))
        probes = serving(
            settings.host,
            settings.port,
            alive=operator.stalled,
            ready=lambda: _waiting(lease),
            metrics=Telemetry(operator, cluster, lease).render,
            certificate=settings.guard.certificate,
        )
        port = await stack.enter_async_context(probes)
        logger.info("operating on %s, %s; probes on port %d", cluster.host, _where(settings), port)
        await _until_signalled(_operate(settings, cluster, operator, lease))


async def _until_signalled(work: Coroutine[Any, Any, None]) -> None:
    """Await *work*, or end it at a signal; once kopf runs, it handles signals."""
    task = asyncio.create_task(work)
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    with suppress(asyncio.CancelledError):
        await task


@asynccontextmanager
async def _operator(settings: OperatorSettings, cluster: Cluster) -> AsyncIterator[Operator]:
    feeds = Feeds(
        settings.guard,
        settings.identity,
        lambda scope: operator.wake_scope(scope),
        settings.cluster,
        # Like the times of pauses and conditions: a server's clock, not that of the present node.
        clock=lambda: cluster.now,
    )
    operator = Operator(
        cluster,
        Inventory(),
        feeds,
        access=settings.access,
        resource_class=settings.resource_class,
        reads_secrets=settings.reads_secrets,
        namespaces=settings.namespaces,
    )
    try:
        yield operator
    finally:
        await feeds.stop()


async def _operate(settings: OperatorSettings, cluster: Cluster, operator: Operator, lease: Lease) -> None:
    await _installed(cluster)
    asked = settings.namespaces
    settings = replace(settings, namespaces=await _permitted(cluster, (RESOURCE, AUTOSCALERS), asked))
    operator.inventory.kinds = tuple(BY_NAME[name] for name in settings.kinds if not comes_with_a_crd(name))
    paths = [kind.path for kind in (*operator.inventory.kinds, *await _arrived(operator, settings))]
    settings = replace(settings, namespaces=await _permitted(cluster, paths, settings.namespaces))
    operator.left_out = tuple(namespace for namespace in asked if namespace not in settings.namespaces)
    operator.relist.keep_to(settings.namespaces)
    operator.crd_kinds.keep_to(settings.namespaces)
    await lease.acquire()
    await _lead(settings, cluster, operator, lease)


async def _lead(settings: OperatorSettings, cluster: Cluster, operator: Operator, lease: Lease) -> None:
    background = Background()
    background.start("ownerless", operator.ownerless.run, waits=True)
    background.start("relist", operator.relist.run, waits=True)
    background.start("events", operator.poster.post, waits=True)
    background.start("copies", operator.leftovers.run, waits=True)
    background.start("fields", operator.leftovers.disown, waits=True)
    if operator.left_out:
        background.start("rights", lambda: _let_in(cluster, operator), waits=True)
    keeping = asyncio.create_task(_keep(lease, operator))
    try:
        await _fill(operator, cluster, settings.namespaces)
        await operator.leftovers.correct()
        operator.ownerless.trigger()
        for namespace in settings.namespaces or (EVERYWHERE,):
            operator.leftovers.trigger(namespace)
        for name, work in operator.crd_kinds.watches():
            background.start(name, work, waits=True)
        await _watch(settings, operator)
    finally:
        was_lost = keeping.done()
        await background.stop()
        await cancelled(keeping)
        await lease.release()
    if was_lost:
        raise LeaseLost("lost the lease: another operator may be acting, so this one ends")


async def _watch(settings: OperatorSettings, operator: Operator) -> None:
    try:
        await kopf.operator(
            registry=handlers.registry(),
            settings=configure(settings.resource_class),
            memo=kopf.Memo(operator=operator),
            clusterwide=not settings.namespaces,
            namespaces=settings.namespaces,
            # kopf's own is the user's name, which a user with a number alone does not have.
            identity=cast("Any", settings.identity),
            standalone=True,
            stop_flag=operator.ending,
        )
    except Exception as error:
        # kopf never retries a failed watch: only a restart helps.
        raise WatchFailed(f"the cluster cannot be watched: {error or type(error).__name__}") from error


async def _keep(lease: Lease, operator: Operator) -> None:
    try:
        await lease.keep()
    finally:
        operator.ending.set()


async def _installed(cluster: Cluster) -> None:
    """Wait until the API server answers and knows our resource."""
    told = ""
    while True:
        try:
            if await cluster.is_installed():
                return
            wrong = "OpenRouterStatus is not installed: apply the CRD (kubectl apply -f crds/)"
        except ClusterError as error:
            wrong = str(error)
        if wrong != told:
            logger.warning("%s", wrong)
        told = wrong
        await asyncio.sleep(CRD_S)


async def _arrived(operator: Operator, settings: OperatorSettings) -> Sequence[Kind]:
    """Return the kinds with an existing CRD, once the API server answers.

    Raises:
        WatchFailed: If that is not allowed.
    """
    names = [name for name in settings.kinds if comes_with_a_crd(name)]
    while True:
        try:
            return await operator.crd_kinds.expect(names, settings.namespaces)
        except Refused as error:
            raise _right_missing(error) from None
        except ClusterError as error:
            logger.warning("%s", error)
            await asyncio.sleep(CRD_S)


async def _permitted(cluster: Cluster, paths: Sequence[Path], namespaces: Sequence[str]) -> tuple[str, ...]:
    """Return the namespaces where all of these may be watched: a missing right in one must not stop the others.

    Raises:
        WatchFailed: If there is none, or the whole cluster was requested.
    """
    refusals: dict[str, Refused] = {}
    for path in paths:
        for namespace in namespaces or ("",):
            try:
                await cluster.try_to_list(path, namespace)
            except Refused as error:
                refusals.setdefault(namespace, error)
            except ClusterError as error:
                logger.warning("%s", error)
    if refusals and not set(namespaces) - refusals.keys():
        raise _right_missing(next(iter(refusals.values())))
    for namespace, refusal in refusals.items():
        logger.warning("%s is left out until the right is granted: %s", namespace, refusal)
    return tuple(namespace for namespace in namespaces if namespace not in refusals)


async def _let_in(cluster: Cluster, operator: Operator) -> None:
    """Exit, to be restarted, once a left-out namespace may be watched."""
    await asyncio.sleep(RIGHTS_S)
    paths = (RESOURCE, AUTOSCALERS, *(kind.path for kind in operator.inventory.kinds))
    for namespace in operator.left_out:
        with suppress(ClusterError):
            for path in paths:
                await cluster.try_to_list(path, namespace)
            logger.info("%s may be watched now: restarting the operator", namespace)
            operator.ending.set()


def _right_missing(error: Refused) -> WatchFailed:
    return WatchFailed(f"a right is missing: {error}; see the chart's operator-rbac.yaml")


async def _fill(operator: Operator, cluster: Cluster, namespaces: Sequence[str]) -> None:
    """List everything before the first decision, so that none is based on a part of it.

    Raises:
        WatchFailed: If the API server cannot be reached.
    """
    inventory = operator.inventory
    try:
        for namespace in namespaces or ("",):
            async for found in cluster.list(RESOURCE, namespace):
                operator.precedence.put(found)
            async for found in cluster.list(AUTOSCALERS, namespace):
                inventory.put_autoscaler(found)
        await operator.crd_kinds.list()
    except ClusterError as error:
        raise WatchFailed(f"the workloads cannot be listed: {error}") from None


def _waiting(lease: Lease) -> list[str]:
    return [] if lease.holder else ["the lease has not been seen yet"]


def _where(settings: OperatorSettings) -> str:
    return f"namespaces {', '.join(settings.namespaces)}" if settings.namespaces else "the whole cluster"
