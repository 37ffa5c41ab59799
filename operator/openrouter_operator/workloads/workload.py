"""A workload, and the pause stored on it.

The original is kept on the workload itself, in one annotation, written by the same patch that pauses it: after a
crash at any point, nothing else is needed to restore it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from openrouter_guard.rules.codec import parse_iso

from .kinds import Kind, Replicas, ScaleControl, Trait, Value
from .manifest import (
    FIELD_MANAGER,
    empties,
    has_ready_pods,
    is_applied,
    is_by_hand,
    is_kept,
    is_untried,
    last_writer,
    owns,
    scales,
    shaped,
    truth,
    word,
    writes_manifests,
)
from .pause import GROUP, PAUSED, Contest, Pause

__all__ = [
    "FIELD_MANAGER",
    "GROUP",
    "OPT",
    "PAUSED",
    "RELEASED",
    "RESUME_TO",
    "STAY",
    "Change",
    "Contest",
    "Pause",
    "Workload",
    "forgets",
    "raised",
    "restored",
    "returns",
]

RELEASED = f"{GROUP}/released"
"""The outage (the scope, and its start) in which the workload is not paused again."""
OPT = f"{GROUP}/pause"
"""The owner's setting: ``"true"`` for targets by annotation, ``"false"`` keeps it running."""
RESUME_TO = f"{GROUP}/resume-to"
"""Also the owner's setting: the number of pods after the pause, or :data:`STAY`. It counts once."""
STAY = "stay"
_DIGITS_MOST = 9
_USUAL_TEXT = 1000
"""Longer annotations are not kept."""
_NOTE = ("metadata", "annotations", PAUSED)
_OWN = ("app.kubernetes.io/part-of", "openrouter-guard")


@dataclass(frozen=True, slots=True)
class Workload:
    """A workload of any kind, as last seen.

    Attributes:
        version: Its ``resourceVersion``: a change is refused after any other change.
        value: The value of its kind's scale control.
        pause: Its pause; None if it is not paused.
        copied: The pause of another workload, if this one is a copy of it, made by hand or by a backup tool.
        has_litter: Whether its annotation has a pause that is over, as brought back by an undone rollout.
        damage: The reason why its annotation is unreadable; empty if it is readable.
        released: The outage in which it is left alone; empty if none.
        opt: The owner's setting for pauses, ``"true"`` or ``"false"``; empty for none, or text that is neither.
        resume_to: The owner's setting for after the pause, as written, shortened; empty for none.
        is_kept: Whether 0 pods were requested while it was held there, as by ``kubectl scale``.
        is_controlled: Whether another object owns it and would reset its replicas.
        is_cron_run: Whether it is a Job started by a CronJob.
        is_keda_run: Whether it is a Job that a ScaledJob of KEDA has started.
        is_ready: Whether a pod of it is ready.
        is_untried: Whether its controller reports that it was never available.
        scales: Kind and name of the workload behind it; None for kinds other than KEDA's.
        empties: Kind and name of the workload that an Argo Rollout replaces and scales to 0; None for others.
        changed_by: The field manager that wrote the value last; empty if it was this operator, or left no name.
        is_restated: Whether that was a tool that writes whole manifests, including the number.
        is_by_hand: Whether that was surely no autoscaler.
        is_altered: Whether an intermediary, such as a mutating admission policy, changed the operator's last value.
        is_our_value: Whether the API server lists this operator as the last writer of the value.
        is_foreign: Whether it lists others as writers of the value or the annotation, and not this operator for the
            value: it was changed since, or an undone rollout has brought back an earlier pause.
        is_undone: Whether it is surely the latter: others wrote the annotation.
        owned: Indexes of our entries in its managed fields.
        owners: The number of entries.
        generation: Grows with each change of its spec; 0 if not reported.
        is_applied: Whether another tool applies it server-side, and would be refused our fields.
        is_stripped: Whether its annotation is not the operator's own, so that only the journal has its original.
        is_mendable: Whether that annotation is due to be written again.
        is_unkept: Whether that was just done, and it is gone again, as if a policy removes it.
    """

    kind: Kind
    namespace: str
    name: str
    uid: str
    version: str
    value: Value
    labels: Mapping[str, str]
    pause: Pause | None = None
    copied: Pause | None = None
    has_litter: bool = False
    damage: str = ""
    released: str = ""
    opt: str = ""
    resume_to: str = ""
    is_kept: bool = False
    traits: frozenset[Trait] = frozenset()
    is_controlled: bool = False
    is_cron_run: bool = False
    is_keda_run: bool = False
    is_ready: bool = False
    is_untried: bool = False
    is_going: bool = False
    scales: tuple[str, str] | None = None
    empties: tuple[str, str] | None = None
    changed_by: str = ""
    is_restated: bool = False
    is_by_hand: bool = False
    is_altered: bool = False
    is_our_value: bool = False
    is_foreign: bool = False
    is_undone: bool = False
    owned: tuple[int, ...] = ()
    owners: int = 0
    generation: int = 0
    is_applied: bool = False
    is_stripped: bool = False
    is_mendable: bool = True
    is_unkept: bool = False

    @classmethod
    def of(cls, kind: Kind, body: Mapping[str, Any]) -> Workload:
        """Return the workload in an object of the API."""
        body = shaped(body)
        metadata = body["metadata"]
        annotations = metadata.get("annotations") or {}
        controllers = [owner for owner in metadata.get("ownerReferences") or () if owner.get("controller")]
        runs_of = {owner.get("kind") for owner in controllers} if kind.name == "Job" else set()
        is_cron_run = "CronJob" in runs_of
        # A CronJob starts its Jobs and leaves them alone from then on.
        is_controlled = bool(controllers) and not is_cron_run
        pause, damage = _pause(annotations.get(PAUSED), kind.control)
        is_copy = pause is not None and pause.uid not in ("", metadata["uid"])
        if is_controlled and not (pause and pause.uid == metadata["uid"]):
            # A Deployment passes its annotations on to its ReplicaSets, as a Rollout does: theirs are not their own.
            pause, damage, is_copy = None, "", False
        value = kind.control.read(body)
        is_as_set = pause is not None and value == pause.set_to
        books = metadata.get("managedFields") or ()
        owned = tuple(nth for nth, entry in enumerate(books) if entry.get("manager") == FIELD_MANAGER)
        entries = [books[nth] for nth in owned]
        is_ours = any(owns(entry, path) for entry in entries for path in kind.control.paths)
        is_foreign = pause is not None and not is_ours and _is_written_by_others(pause, metadata, kind.control)
        writer = {} if is_as_set else last_writer(metadata, kind.control.paths)
        return cls(
            kind=kind,
            namespace=metadata["namespace"],
            name=metadata["name"],
            uid=metadata["uid"],
            version=metadata["resourceVersion"],
            value=value,
            labels=dict(metadata.get("labels") or {}),
            pause=None if is_copy else pause,
            copied=pause if is_copy else None,
            damage=damage,
            released=annotations.get(RELEASED, ""),
            opt=truth(annotations[OPT]) if OPT in annotations else "",
            resume_to=word(annotations[RESUME_TO]) if RESUME_TO in annotations else "",
            is_kept=is_as_set and not is_copy and is_kept(kind.control, value, entries),
            traits=kind.traits(body),
            is_controlled=is_controlled,
            is_cron_run=is_cron_run,
            is_keda_run="ScaledJob" in runs_of,
            is_ready=has_ready_pods(body),
            is_untried=is_untried(body),
            is_going=metadata.get("deletionTimestamp") is not None,
            scales=scales(body),
            empties=empties(body),
            changed_by=str(writer.get("manager", "")),
            is_restated=pause is not None and not is_ours and writes_manifests(writer, kind.control),
            is_by_hand=is_by_hand(writer),
            # The manager that changes a value becomes its owner, in place of this operator.
            is_altered=pause is not None and not is_copy and not is_as_set and is_ours,
            is_our_value=is_ours,
            is_foreign=is_foreign,
            is_undone=is_foreign and bool(last_writer(metadata, (_NOTE,))),
            owned=owned,
            owners=len(books),
            generation=metadata.get("generation") or 0,
            is_applied=is_applied(metadata),
        )

    @property
    def pods(self) -> int:
        """The number of pods it should have, not the number it has."""
        return self.kind.control.pods(self.value)

    @property
    def original_pods(self) -> int:
        """The number before the pause, or the one its owner wants back; the present one if it is not paused."""
        if self.pause is None:
            return self.pods
        if self.asked_pods is not None:
            return self.asked_pods
        return self.kind.control.pods(self.pause.original) if self.pause.pods is None else self.pause.pods

    @property
    def set_pods(self) -> int:
        """The number of pods of the last change; the present one if it is not paused."""
        return self.pods if self.pause is None else self.kind.control.pods(self.pause.set_to)

    @property
    def is_as_we_set_it(self) -> bool:
        """Return whether it is unchanged since, though it may not be the requested value."""
        is_same = self.pause is not None and (self.value == self.pause.set_to or self.is_altered)
        return is_same and not self.is_kept and not self.is_foreign

    @property
    def owes_fields(self) -> bool:
        """Return whether our fields would block another tool without being needed.

        A paused workload needs them, to notice a manual scaling to 0. But a tool that applies server-side names the
        replicas in each upgrade, and the API server would refuse all of it.
        """
        if not self.owned or self.is_going or self.damage or self.copied:
            return False
        return self.pause is None or (self.is_applied and self.value == self.pause.set_to and not self.is_kept)

    @property
    def may_lack_its_pause(self) -> bool:
        """Whether its annotation may be missing because an undone rollout has replaced all of them.

        The operator was the last to write the replicas. It gives the field up a moment after a pause, and during the
        pause of an object that another tool applies; then nobody owns it.
        """
        if self.pause is not None or self.copied is not None or self.damage or self.released or self.is_going:
            return False
        return self.is_our_value or (self.is_applied and not self.changed_by and self.pods == 0)

    @property
    def asked_pods(self) -> int | None:
        """The number of pods its owner wants after the pause; None without a readable setting."""
        if self.resume_to.lower() == STAY:
            return self.pods
        is_number = self.resume_to.isascii() and self.resume_to.isdecimal() and len(self.resume_to) <= _DIGITS_MOST
        pods = int(self.resume_to) if is_number else None
        return None if pods and not isinstance(self.kind.control, Replicas) else pods

    @property
    def has_unclear_return(self) -> bool:
        """Whether the owner's setting for after the pause is unreadable."""
        return bool(self.resume_to) and self.asked_pods is None

    @property
    def has_unclear_opt(self) -> bool:
        """Whether the owner's setting for pauses is unreadable."""
        return self.opt not in ("", "true", "false")

    @property
    def is_our_own(self) -> bool:
        """Whether it belongs to this product, which must not pause itself."""
        return self.labels.get(_OWN[0]) == _OWN[1]

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"


@dataclass(frozen=True, slots=True)
class Change:
    """One change of one workload.

    Attributes:
        is_written: Whether it changes what runs, and not only the annotation.
        value: The value to write.
        pause: The pause to store on the workload; None removes it.
        released: The outage in which to leave it alone; empty for none.
        rank: Changes with a smaller rank are made first.
        became: The workload as the API server has taken it; None for a change that is not made yet.
    """

    workload: Workload
    value: Value
    pause: Pause | None
    released: str = ""
    is_written: bool = True
    rank: int = 0
    became: Workload | None = None

    @property
    def is_altered(self) -> bool:
        """Whether something on the way, such as a mutating admission policy, made another value of it."""
        return self.is_written and self.became is not None and self.became.value != self.value

    @property
    def pods(self) -> int | None:
        """The number of pods to run; None leaves them as they are."""
        if not self.is_written:
            return None
        restores = self.pause is None
        return self.workload.original_pods if restores else self.workload.kind.control.pods(self.value)

    def __str__(self) -> str:
        now = "as it is" if self.pods is None else f"from {self.workload.pods} to {self.pods}"
        return f"{self.workload}: {now}"

    def patch(self) -> dict[str, Any]:
        """Return the merge patch, refused (409) if the workload has changed since it was read."""
        annotations = {PAUSED: self.pause.text() if self.pause else None, RELEASED: self.released or None}
        if self.pause is None and self.workload.asked_pods is not None:
            annotations[RESUME_TO] = None
        written = self.workload.kind.control.write(self.value) if self.is_written else {}
        metadata = written.pop("metadata", {})
        annotations |= metadata.get("annotations", {})
        return {"metadata": {"resourceVersion": self.workload.version, "annotations": annotations}} | written


def forgets(workload: Workload, *, released: str = "") -> Change:
    """Return the change that keeps the present value, and drops the pause."""
    return Change(workload, workload.value, pause=None, released=released, is_written=False)


def restored(workload: Workload) -> Change | None:
    """Return the change that undoes a pause whose owner is gone, or is not here; later foreign changes stand."""
    pause = workload.pause or workload.copied
    if pause is None:
        return None
    is_set_by_us = workload.value == pause.set_to or workload.is_altered
    if workload.is_kept or workload.is_foreign or not is_set_by_us:
        return forgets(workload)
    return returns(replace(workload, pause=pause))


def returns(workload: Workload, *, released: str = "") -> Change:
    """Return the change that ends a pause: it comes back as it was, or as its owner has requested meanwhile."""
    if workload.resume_to.lower() == STAY:
        return forgets(workload, released=released)
    original = workload.pause.original if workload.pause else workload.value
    value = original if workload.asked_pods is None else workload.kind.control.at(workload.asked_pods)
    return Change(workload, value, pause=None, released=released)


def raised(workload: Workload) -> Change | None:
    """Return the annotation to write first if more pods come back than there were.

    The admission policy requires it.
    """
    pause, asked = workload.pause, workload.asked_pods
    if pause is None or asked is None or asked <= workload.kind.control.pods(pause.original):
        return None
    return Change(workload, workload.value, replace(pause, original=asked), is_written=False)


def _pause(text: str | None, control: ScaleControl) -> tuple[Pause | None, str]:
    if not text:
        return None, ""
    return (_read if len(text) <= _USUAL_TEXT else _read.__wrapped__)(text, control)


@lru_cache(maxsize=1024)
def _read(text: str, control: ScaleControl) -> tuple[Pause | None, str]:
    """Read it once: a watch shows a paused workload several times within a second."""
    try:
        return Pause.parse(text, control), ""
    except ValueError as error:
        return None, str(error)


def _is_written_by_others(pause: Pause, metadata: Mapping[str, Any], control: ScaleControl) -> bool:
    """Return whether others have written the value or the annotation, and this operator has not written the value."""
    writer, noter = last_writer(metadata, control.paths), last_writer(metadata, (_NOTE,))
    if is_applied(metadata):
        # We own nothing there in a pause either. A tool that applies may write the cluster's value, as Argo CD does.
        noter, writer = {}, {} if writer.get("operation") == "Apply" else writer
    if not (writer or noter):
        return False
    if pause.uid:
        return bool(pause.uid == metadata["uid"])
    # Earlier operators wrote no UID, and used another name: value and annotation at once, like a backup tool, which
    # makes an object older than the pause a copy.
    at_once = any(owns(e, _NOTE) and any(owns(e, path) for path in control.paths) for e in metadata["managedFields"])
    return not at_once and _made_at(metadata) <= pause.at


def _made_at(metadata: Mapping[str, Any]) -> float:
    return parse_iso(str(metadata.get("creationTimestamp"))) or math.inf
