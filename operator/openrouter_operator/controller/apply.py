"""Applies changes of workloads: all at once, each independently, with retries."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from openrouter_guard.rules.backoff import Backoff
from openrouter_operator.decisions.summary import Failure
from openrouter_operator.kubernetes.client import Cluster, ClusterError, Conflict, NotFound, NotLeading, Refused
from openrouter_operator.workloads.inventory import Inventory
from openrouter_operator.workloads.workload import Change

__all__ = ["RETRY", "Applier"]

logger = logging.getLogger(__name__)

RETRY = Backoff(1.0, 60.0)
"""The waits before a failed change is retried."""
CONFLICT_S = 0.1


@dataclass(frozen=True, slots=True)
class _Retry:
    """A failed change.

    Its number of pods, the reason, the number of failures, and when to retry (monotonic clock).
    """

    pods: int | None
    failure: Failure
    tries: int
    at: float


class Applier:
    """The changes for one resource.

    Attributes:
        progressed_at: When the last one was answered, monotonic clock.
    """

    def __init__(self, cluster: Cluster, inventory: Inventory) -> None:
        self.progressed_at = time.monotonic()
        self._cluster = cluster
        self._inventory = inventory
        self._retries: dict[str, _Retry] = {}
        self._conflicts = False

    async def make(self, wanted: Sequence[Change]) -> list[Change]:
        """Make the due changes, rank by rank; the inventory then has their results.

        Returns:
            Return those that the API server accepted.

        Raises:
            NotLeading: If this operator may not write any more.
        """
        self._conflicts, made = False, list[Change]()
        asked = {change.workload.uid: change.pods for change in wanted}
        # A different change than the failed one does not have to wait for it.
        self._retries = {u: r for u, r in self._retries.items() if u in asked and asked[u] == r.pods}
        for _, rank in groupby(filter(self._is_due, wanted), key=lambda change: change.rank):
            answers = (self._make(change) for change in rank)
            for answer in await asyncio.gather(*answers, return_exceptions=True):
                if isinstance(answer, BaseException):
                    raise answer
                made += [answer] if answer else []
        return made

    def failures(self) -> dict[str, Failure]:
        """The last failures, by the workload's UID."""
        return {uid: retry.failure for uid, retry in self._retries.items()}

    def due_in_s(self) -> float:
        """Seconds until the next retry; infinite without one."""
        waits = [max(retry.at - time.monotonic(), 0.0) for retry in self._retries.values()]
        return min([*waits, *([CONFLICT_S] if self._conflicts else [])], default=math.inf)

    def _is_due(self, change: Change) -> bool:
        retry = self._retries.get(change.workload.uid)
        return retry is None or retry.at <= time.monotonic()

    async def _make(self, change: Change) -> Change | None:
        """Return the change, if it was made."""
        workload = change.workload
        try:
            became = await self._cluster.change(change)
            self._inventory.put_changed(became)
            self._retries.pop(workload.uid, None)
        except NotLeading:
            raise
        except NotFound:
            self._inventory.drop(workload)
        except Conflict:
            await self._reread(change)
        except (ClusterError, KeyError, TypeError, ValueError) as error:
            self._failed(change, error)
        else:
            return replace(change, became=became)
        finally:
            self.progressed_at = time.monotonic()
        return None

    async def _reread(self, change: Change) -> None:
        """Read the object that another manager has changed; the next round decides again."""
        workload = change.workload
        self._conflicts = True
        try:
            self._inventory.replace(await self._cluster.workload(workload))
        except NotFound:
            self._inventory.drop(workload)
        except ClusterError as error:
            self._failed(change, error)

    def _failed(self, change: Change, error: Exception) -> None:
        workload = change.workload
        tries = self._retries[workload.uid].tries + 1 if workload.uid in self._retries else 1
        failure = Failure("Refused" if isinstance(error, Refused) else "Unavailable", _words(error))
        wait_s = max(RETRY.wait_s(tries), min(getattr(error, "after_s", 0.0), RETRY.longest_s))
        self._retries[workload.uid] = _Retry(change.pods, failure, tries, time.monotonic() + wait_s)
        if tries == 1:
            logger.warning("%s in %s cannot be changed: %s", workload, workload.namespace, failure.message)


def _words(error: Exception) -> str:
    return str(error) if isinstance(error, ClusterError) else f"the API server's answer cannot be read: {error!r}"
