"""A journal of one resource's pauses, for workloads whose annotation is lost, damaged or replaced.

A tool that replaces a whole object (``kubectl replace``, Argo CD with ``Replace=true``) removes its annotations, so
it looks as if it was never paused. ``kubectl rollout undo`` replaces them by those of an older ReplicaSet, which may
describe a past outage. The journal is in memory only, since it just attributes changes: everything needed to bring a
workload back is on the workload itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace

from openrouter_operator.decisions.snapshot import ScopeSnapshot
from openrouter_operator.decisions.targets import Targets
from openrouter_operator.workloads.workload import Change, Pause, Workload

__all__ = ["PauseJournal"]

MEND_S = 60.0
"""A removed annotation is written again at most this often."""

NOTED_S = 10.0
"""This long after it was written for a workload to be resumed, the workload comes back even without it."""


class PauseJournal:
    """The pauses of one resource, and its releases during this outage, by the UIDs of the workloads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._owner_uid = ""
        self._pauses: dict[str, Pause] = {}
        self._asked: dict[str, Pause] = {}
        self._running_at: dict[str, float] = {}
        self._released: dict[str, str] = {}
        self._mended_at: dict[str, float] = {}
        self._noted_at: dict[str, float] = {}

    def recall(self, workload: Workload) -> Workload:
        """Return the workload with its lost or damaged pause restored, and without a foreign one."""
        if workload.pause is not None:
            return self._corrected(workload, workload.pause)
        pause = self._pauses.get(workload.uid)
        if (workload.damage and pause is None) or workload.released or workload.is_controlled:
            return workload
        if workload.uid in self._released:
            return replace(workload, released=self._released[workload.uid])
        return workload if pause is None else self._reminded(replace(workload, damage=""), pause)

    def _corrected(self, workload: Workload, written: Pause) -> Workload:
        """The annotation counts, unless it is older than the journal."""
        known, asked = self._pauses.get(workload.uid), self._asked.get(workload.uid)
        if any(ours is not None and written.is_same(ours) for ours in (known, asked)):
            # It was requested and made, though the answer may be lost. Of what others apply we own no replicas, so
            # the annotation that was written again is our only field, as where somebody asks for 0 pods.
            is_ours_alone = workload.is_applied and workload.uid in self._mended_at
            return replace(workload, is_kept=False) if workload.is_kept and is_ours_alone else workload
        if known is not None:
            # A later one of another resource is its own; any other is not the operator's.
            is_theirs = written.owner_uid != self._owner_uid and written.at >= known.at
            return workload if is_theirs else self._reminded(workload, known)
        is_over = written.at < self._running_at.get(workload.uid, 0.0) and written.owner_uid == self._owner_uid
        if is_over and not workload.is_our_value:
            return replace(workload, pause=None, has_litter=True)
        return workload  # a late write of the former leader is a pause like any other

    def _reminded(self, workload: Workload, pause: Pause) -> Workload:
        is_due = self._clock() - self._mended_at.get(workload.uid, float("-inf")) >= MEND_S
        is_unkept = self._clock() - self._noted_at.get(workload.uid, float("-inf")) < NOTED_S
        return replace(workload, pause=pause, is_stripped=True, is_mendable=is_due, is_unkept=is_unkept)

    def holds(self, uid: str) -> bool:
        """Return whether the workload is known to be paused, whatever its annotation says."""
        return uid in self._pauses

    def begin(self, snapshot: ScopeSnapshot) -> None:
        """Begin a round: workloads released in another outage may be paused in this one."""
        if snapshot.is_fresh:
            self._released = {uid: outage for uid, outage in self._released.items() if outage == snapshot.outage}

    def asks(self, changes: Iterable[Change]) -> None:
        """Note changes before they are requested; the answer may be lost."""
        self._asked |= {change.workload.uid: change.pause for change in changes if change.pause}

    def made(self, changes: Iterable[Change]) -> None:
        """Note changes made by this operator."""
        for change in changes:
            uid = change.workload.uid
            self._asked.pop(uid, None)
            if change.released:
                self._released[uid] = change.released
            if change.pause is None:
                self._pauses.pop(uid, None)
                continue
            self._pauses[uid] = change.pause
            if change.workload.is_stripped and not change.is_written:
                self._noted_at[uid] = self._clock()
            if change.workload.is_stripped:
                self._mended_at[uid] = self._clock()

    def note(self, targets: Targets, now: float) -> None:
        """Record the paused and the running workloads; *now* is Redis' clock, as in a pause."""
        self._owner_uid = targets.owner.uid
        running = {c.workload.uid: now for c in targets.candidates if c.workload.pause is None}
        pauses = {c.workload.uid: c.workload.pause for c in targets.owned if c.workload.pause}
        self._pauses, self._running_at = pauses, running
        self._asked = {uid: pause for uid, pause in self._asked.items() if uid in pauses or uid in running}
        self._mended_at = {uid: at for uid, at in self._mended_at.items() if uid in pauses}
        self._noted_at = {uid: at for uid, at in self._noted_at.items() if uid in pauses}
