"""Leader election: one holder of a ``Lease`` acts at a time.

The client's own leader election reports the start and end of leadership. It does not check before a write whether the
lease is still held. That check matters here: a process that was stopped for a while must not continue. All times are
of this process' monotonic clock; those in the Lease are for people.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from openrouter_guard.log_once import LogOnce

from .client import Cluster, ClusterError, Conflict, NotFound, NotLeading, Unavailable

__all__ = ["Lease"]

logger = logging.getLogger(__name__)

_RENEWALS = 5
"""Number of renewals in the life of a lease."""
_MARGIN = 0.75
"""Share of its life after which it is no longer trusted. A write in progress then meets a changed resourceVersion."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """The last observed change of the Lease, and its time."""

    stamp: tuple[object, ...]
    at: float


def _now() -> float:
    """A clock that cannot be set, and that runs while the machine is suspended, if there is one."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Lease:
    """One candidate for a Lease.

    Args:
        identity: Unique name of this process.
        life_s: How long a holder may be silent before another takes over.
    """

    def __init__(self, cluster: Cluster, *, namespace: str, name: str, identity: str, life_s: float) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._life_s = life_s
        self._held_until = 0.0
        self._seen: _Seen | None = None
        self._ours: Mapping[str, Any] | None = None
        self._renewing = LogOnce("the lease cannot be renewed", "the lease can be renewed again")
        self.holder = ""

    @property
    def is_held(self) -> bool:
        return _now() < self._held_until

    def check(self) -> None:
        """Pass if the lease is known to be held.

        Raises:
            NotLeading: If it is not.
        """
        if not self.is_held:
            raise NotLeading(f"the lease {self._namespace}/{self._name} is not known to be held; nothing is written")

    async def acquire(self) -> None:
        """Wait until the lease is acquired."""
        told = None
        while not await self._try():
            if self.holder != told:
                told = self.holder
                logger.info("waiting for the lease", extra={"holder": self.holder})
            await asyncio.sleep(self._life_s / _RENEWALS)
        logger.info("holding the lease %s/%s as %s", self._namespace, self._name, self._identity)

    async def keep(self) -> None:
        """Renew the lease; returns once it is lost."""
        while self.is_held:
            await asyncio.sleep(self._life_s / _RENEWALS)
            await self._try()
        logger.error("lost the lease %s/%s", self._namespace, self._name)

    async def release(self) -> None:
        """Let another one take over at once. Call it after the last write."""
        if not self.is_held:
            return
        self._held_until = 0.0
        with suppress(ClusterError, TimeoutError):
            async with asyncio.timeout(self._life_s / _RENEWALS):
                await self._give_up()

    async def _give_up(self) -> None:
        found = await self._cluster.lease(self._namespace, self._name)
        if found["spec"].get("holderIdentity") == self._identity:
            found["spec"] |= {"holderIdentity": "", "leaseDurationSeconds": 1}
            await self._cluster.replace_lease(self._namespace, self._name, found)

    async def _try(self) -> bool:
        """Acquire or renew the lease if possible now."""
        began_at = _now()
        try:
            async with asyncio.timeout(self._life_s / _RENEWALS):
                taken = await self._take(began_at)
        except Conflict:
            taken = False  # another candidate was faster
        except TimeoutError:
            self._renewing.failed(Unavailable(f"no answer within {self._life_s / _RENEWALS:g} s"))
            taken = False
        except ClusterError as error:
            self._renewing.failed(error)
            taken = False
        else:
            self._renewing.worked()
        if taken:
            self._held_until = began_at + self._life_s * _MARGIN
            self.holder = self._identity
        return taken

    async def _take(self, now: float) -> bool:
        ours, self._ours = self._ours, None
        if self.is_held and ours is not None:
            # Every other writer changes its version: only then it must be read.
            with suppress(Conflict, NotFound):
                await self._write(ours)
                return True
        try:
            found = await self._cluster.lease(self._namespace, self._name)
        except NotFound:
            fresh = {"metadata": {"name": self._name}} | self._claim({})
            self._ours = await self._cluster.create_lease(self._namespace, fresh)
            return True
        spec = found.get("spec") or {}
        self.holder = spec.get("holderIdentity") or ""
        if not self._may_take(spec, now):
            self._held_until = 0.0  # ours was deleted, and another candidate created it first
            return False
        await self._write(found)
        return True

    async def _write(self, found: Mapping[str, Any]) -> None:
        claimed = {**found} | self._claim(found.get("spec") or {})
        self._ours = await self._cluster.replace_lease(self._namespace, self._name, claimed)

    def _may_take(self, spec: Mapping[str, Any], now: float) -> bool:
        """Return whether it is ours, free, or not renewed for its whole life while we watched."""
        stamp = (self.holder, spec.get("renewTime"), spec.get("leaseTransitions"))
        if self._seen is None or self._seen.stamp != stamp:
            self._seen = _Seen(stamp, now)
        life_s = float(spec.get("leaseDurationSeconds") or self._life_s)
        return self.holder in ("", self._identity) or now - self._seen.at > life_s

    def _claim(self, spec: Mapping[str, Any]) -> dict[str, Any]:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        is_new = spec.get("holderIdentity") != self._identity
        transitions = int(spec.get("leaseTransitions") or 0)
        claim = {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": max(round(self._life_s), 1),
            "acquireTime": now if is_new else spec.get("acquireTime", now),
            "renewTime": now,
            "leaseTransitions": transitions + int(is_new and bool(spec)),
        }
        return {"spec": claim}
