"""Posts events on workloads, one at a time and after everything else, so that no pause waits for one."""

from __future__ import annotations

import asyncio

from openrouter_guard.log_once import LogOnce
from openrouter_operator.decisions.events import Event
from openrouter_operator.kubernetes.client import Cluster, ClusterError
from openrouter_operator.workloads.workload import Workload

__all__ = ["Poster"]

WAITING_MOST = 10_000
"""Further events are dropped: the status and the annotations have the same content."""


class Poster:
    """A queue of events, and the loop that empties it."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._queue: asyncio.Queue[tuple[Workload, Event, float]] = asyncio.Queue(WAITING_MOST)
        self._posting = LogOnce("Events on workloads cannot be posted", "Events on workloads are posted again")

    def put(self, workload: Workload, event: Event) -> None:
        """Post it soon, in the background; it is dropped silently if there are too many."""
        if not self._queue.full():
            self._queue.put_nowait((workload, event, self._cluster.now))

    async def post(self) -> None:
        """Wait for an event, and post it. One that cannot be posted is dropped."""
        workload, event, at = await self._queue.get()
        try:
            await self._cluster.create_event(workload, event.type, event.reason, event.message, at)
        except ClusterError as error:
            self._posting.failed(error)
        else:
            self._posting.worked()
