"""Watches the workloads, and discovers kinds with CRDs, which may come and go at any time with all their objects.

kopf watches none of them: it exits if a watched kind disappears, and its work per event, such as a task for each
object, takes longer than pausing the object.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from openrouter_guard.rules.backoff import Backoff
from openrouter_operator.workloads.inventory import Inventory
from openrouter_operator.workloads.kinds import BY_NAME, Kind, UnusableKind, from_crd

from .client import Cluster, ClusterError, Expired, NotFound, Refused

__all__ = ["CrdKinds", "Seen", "comes_with_a_crd"]

logger = logging.getLogger(__name__)

_AGAIN = Backoff(1.0, 30.0)
"""The first and the longest wait before a missing kind is looked up again."""
RECONNECT_S = 0.1
Seen = Callable[[Kind, str, Mapping[str, Any]], None]
"""Called with each object: its kind, the event, and the object."""


def comes_with_a_crd(name: str) -> bool:
    """Return whether a kind of this name, as in the settings, is not Kubernetes' own."""
    return name not in BY_NAME or BY_NAME[name].has_crd


@dataclass(slots=True)
class _Place:
    """One kind in one namespace, or (empty) in all; without a version it has not been listed."""

    name: str
    namespace: str
    kind: Kind | None = None
    is_own: bool = False
    """Whether it is one of Kubernetes' own kinds, which always exist."""
    version: str = ""
    tries: int = 0
    told: str = ""


class CrdKinds:
    """Looks for these kinds while they are missing, and watches them while they exist.

    Args:
        seen: Called with each object that is listed or watched.
        forgotten: Called with the plural of a kind that was removed or changed.
        on_news: Called when kinds have come or gone.
        on_refusal: Called when the right to watch one of Kubernetes' own kinds was lost.
    """

    def __init__(
        self,
        cluster: Cluster,
        inventory: Inventory,
        seen: Seen,
        forgotten: Callable[[str], None],
        on_news: Callable[[], None],
        on_refusal: Callable[[], None],
    ) -> None:
        self._cluster = cluster
        self._inventory = inventory
        self._seen = seen
        self._forgotten = forgotten
        self._on_news = on_news
        self._on_refusal = on_refusal
        self._places: list[_Place] = []

    async def expect(self, names: Sequence[str], namespaces: Sequence[str]) -> list[Kind]:
        """Handle Kubernetes' own kinds, and these, from now on; return those that exist.

        Args:
            names: Names of KEDA's kinds, such as ``ScaledObject``, or of CRDs with a ``scale`` subresource, such as
                ``rollouts.argoproj.io``.
            namespaces: The watched namespaces; none means all.

        Raises:
            ClusterError: If the API server does not answer.
        """
        places = namespaces or ("",)
        own = [_Place(k.name, place, k, is_own=True) for k in self._inventory.own_kinds for place in places]
        self._places = [*own, *(_Place(name, place) for name in names for place in places)]
        self._inventory.absent = frozenset(names)
        for place in self._places:
            self._note(place, await self._find(place))
        return list(dict.fromkeys(place.kind for place in self._places if place.kind and not place.is_own))

    async def list(self) -> None:
        """List the objects of all existing kinds.

        Raises:
            ClusterError: If the API server cannot be reached.
        """
        for place in self._places:
            self._note(place, kind := await self._find(place))
            if kind is not None:
                with suppress(NotFound):
                    await self._list(place, kind)

    def keep_to(self, namespaces: Sequence[str]) -> None:
        """Restrict it to these namespaces."""
        self._places = [place for place in self._places if place.namespace in (*namespaces, "")]

    def watches(self) -> Iterator[tuple[str, Callable[[], Awaitable[None]]]]:
        """Return the loops to run, by name."""
        for place in self._places:
            yield f"{place.name} in {place.namespace or 'all namespaces'}", partial(self._follow, place)

    # -- one round of one place ---------------------------------------------------------------------------------

    async def _follow(self, place: _Place) -> None:
        """Check whether the kind exists; if so watch it for some minutes, else wait."""
        try:
            kind = await self._find(place)
            self._note(place, kind)
            if kind is not None:
                await self._watch(place, kind)
                await asyncio.sleep(RECONNECT_S)
                return
        except Expired:
            place.version = ""
            return
        except NotFound:
            self._note(place, place.kind if place.is_own else None)
        except ClusterError as error:
            place.version = ""  # perhaps because of the version: a restored API server knows none so high
            self._tell(place, f"{place.name} cannot be watched: {error}")
            if place.is_own and isinstance(error, Refused):
                self._on_refusal()
        place.tries += 1
        await asyncio.sleep(_AGAIN.wait_s(place.tries))

    async def _find(self, place: _Place) -> Kind | None:
        if place.is_own:
            return place.kind
        try:
            if place.name in BY_NAME:
                kind = BY_NAME[place.name]
                return kind if await self._cluster.serves(kind.path) else None
            kind = await self._of_crd(place.name)
        except NotFound:
            return None
        except UnusableKind as error:
            self._inventory.unusable[place.name] = str(error)
            self._tell(place, f"OPENROUTER_GUARD_KINDS: {error}; the others go on")
            return None
        self._inventory.unusable.pop(place.name, None)
        return kind

    async def _of_crd(self, name: str) -> Kind:
        if "." not in name.partition(".")[2]:
            raise UnusableKind(f"{name} is a kind of Kubernetes' own that has no number of replicas")
        return from_crd(await self._cluster.crd(name))

    def _note(self, place: _Place, kind: Kind | None) -> None:
        if kind is None and place.kind is None and not place.told:
            self._tell(
                place, f"the cluster has no {place.name}: it is looked up again and again, and the other kinds go on"
            )
        if kind == place.kind:
            return
        before, place.kind, place.version = place.kind, kind, ""
        if before is not None:
            self._forget(place, before)
        if kind is None:
            place.tries = 0
            self._tell(place, f"the cluster has no {place.name} any more: looked after again once it is back")
        self._count()

    def _forget(self, place: _Place, kind: Kind) -> None:
        for workload in self._inventory.of_kind(kind):
            if place.namespace in ("", workload.namespace):
                self._inventory.drop(workload)
        self._forgotten(kind.plural)

    def _count(self) -> None:
        """Publish the existing kinds."""
        ours = {place.name: place.kind for place in self._places if place.kind is not None}
        self._inventory.kinds = tuple(dict.fromkeys((*self._inventory.own_kinds, *ours.values())))
        self._inventory.absent = frozenset(place.name for place in self._places) - ours.keys()
        self._on_news()

    async def _watch(self, place: _Place, kind: Kind) -> None:
        if not place.version:
            await self._list(place, kind)
            if not place.is_own:
                logger.info("watching %s, in version %s", place.name, kind.version)
        place.tries, place.told = 0, ""
        async with aclosing(self._cluster.watch(kind.path, place.namespace, place.version)) as events:
            async for event, body in events:
                place.version = body["metadata"]["resourceVersion"]
                if event != "BOOKMARK":
                    self._seen(kind, event, body)

    async def _list(self, place: _Place, kind: Kind) -> None:
        """Note all objects, and drop missing ones at once, so that no decision is based on a part of them."""
        known = [w for w in self._inventory.of_kind(kind) if place.namespace in ("", w.namespace)]
        found, version = await self._cluster.snapshot(kind.path, place.namespace)
        there = {body["metadata"]["uid"] for body in found}
        for workload in known:
            if workload.uid not in there:
                self._inventory.drop(workload)
        for body in found:
            self._seen(kind, "LISTED", body)
        place.version = version
        self._on_news()

    def _tell(self, place: _Place, words: str) -> None:
        """Once, and not each time."""
        if words != place.told:
            logger.warning("%s", words)
        place.told = words
