"""What one resource has paused, in case that a workload forgets it.

Who replaces a whole object (``kubectl replace``, Argo CD with ``Replace=true``) takes its annotations away, and it
looks like one that was never paused. This is kept by the process alone, since it only tells whose change that was:
what a workload needs to come back is on the workload itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace

from .candidates import Candidate, Owner
from .reading import Reading
from .workload import Change, Pause, Workload

__all__ = ["Memory"]

MEND_S = 60.0
"""An annotation that somebody takes away is written again this often at the most."""


class Memory:
    """The pauses of one resource, and what it has let go during this outage, by the UIDs of the workloads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._pauses: dict[str, Pause] = {}
        self._released: dict[str, str] = {}
        self._mended_s: dict[str, float] = {}

    def recall(self, workload: Workload) -> Workload:
        """The workload with what it has forgotten."""
        if workload.pause is not None or workload.damage or workload.released or workload.is_controlled:
            return workload
        if workload.uid in self._released:
            return replace(workload, released=self._released[workload.uid])
        pause = self._pauses.get(workload.uid)
        if pause is None:
            return workload
        is_due = self._clock() - self._mended_s.get(workload.uid, float("-inf")) >= MEND_S
        return replace(workload, pause=pause, is_stripped=is_due)

    def begin(self, reading: Reading) -> None:
        """A round begins: what was let go in another outage may be paused in this one."""
        if reading.is_fresh:
            self._released = {uid: outage for uid, outage in self._released.items() if outage == reading.outage}

    def made(self, changes: Iterable[Change]) -> None:
        """These changes were made by ourselves."""
        for change in changes:
            uid = change.workload.uid
            if change.released:
                self._released[uid] = change.released
            if change.pause is None:
                self._pauses.pop(uid, None)
            elif change.workload.is_stripped:
                self._mended_s[uid] = self._clock()

    def note(self, candidates: Iterable[Candidate], owner: Owner) -> None:
        """Keep in mind what is paused now."""
        ours = (c.workload for c in candidates if c.is_paused_by(owner))
        self._pauses = {workload.uid: workload.pause for workload in ours if workload.pause}
        self._mended_s = {uid: at_s for uid, at_s in self._mended_s.items() if uid in self._pauses}
