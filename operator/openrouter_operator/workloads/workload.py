"""A workload, and what it remembers about its own pause.

The original is kept on the workload itself, in one annotation, written by the same patch that pauses it: whatever
dies between two steps, nothing else is needed to restore it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from openrouter_guard.rules.codec import unix_s

from .kinds import Kind, Replicas, ScaleControl, Trait, Value
from .manifest import (
    FIELD_MANAGER,
    empties,
    has_ready_pods,
    is_applied,
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
"""The outage (the scope, and the time it began) during which the workload is not paused again."""
OPT = f"{GROUP}/pause"
"""The word of the workload's owner: ``"true"`` for targets by annotation, ``"false"`` keeps it running."""
RESUME_TO = f"{GROUP}/resume-to"
"""The word of its owner, too: how many pods run after the pause, or :data:`STAY`. It counts once."""
STAY = "stay"
_DIGITS_MOST = 9
_NOTE = ("metadata", "annotations", PAUSED)
_OWN = ("app.kubernetes.io/part-of", "openrouter-guard")


@dataclass(frozen=True, slots=True)
class Workload:
    """A workload of any kind, as last seen.

    Attributes:
        version: Its ``resourceVersion``: a change is refused once anybody has made another.
        value: What is written where its kind keeps how much is to run.
        pause: What it remembers; None if it is not paused.
        copied: What another workload remembers, where this one is a copy of it, made by hand or by a backup tool.
        has_litter: Whether its annotation tells of a pause that is over, as an undone rollout brings back.
        damage: Why its annotation cannot be read; empty if it can.
        released: The outage during which it is left alone; empty if none.
        opt: What its owner says to being paused, ``"true"`` or ``"false"``; empty for nothing, and the text as it is
            where that is no truth value.
        resume_to: What its owner wants after the pause, as they wrote it, shortened; empty for nothing.
        is_kept: Whether somebody has asked for 0 pods while we held it there, as ``kubectl scale`` does.
        is_controlled: Whether another object owns it and would put its replicas back.
        is_cron_run: Whether it is a Job that a CronJob has started.
        is_keda_run: Whether it is a Job that a ScaledJob of KEDA has started.
        is_ready: Whether a pod of it is ready.
        is_untried: Whether its controller says that it has never been available.
        scales: Kind and name of the workload behind it; None for what is none of KEDA's.
        empties: Kind and name of the workload that a Rollout of Argo has taken over and scales to 0; None for others.
        changed_by: The field manager that wrote the value last; empty if we did, or if it left no name.
        is_restated: Whether that was a tool that writes whole manifests, and the number with all the rest.
        is_altered: Whether something on the way, such as a mutating admission policy, made another value of what we
            wrote last.
        is_our_value: Whether the API server knows us as who wrote the value last.
        is_foreign: Whether it knows others as who wrote the value or the annotation, and not us as who wrote the
            value: somebody has set it since, or an undone rollout has brought back what we wrote in an earlier pause.
        is_undone: Whether it is the latter, for sure: others wrote the annotation.
        owned: Which of its managed fields' entries are ours, by number,
        owners: and how many entries there are.
        generation: Grows with each change of its spec; 0 where nobody counts.
        is_applied: Whether another tool applies it server-side, and would be refused what we own.
        is_stripped: Whether its annotation is not what we wrote, so that only we know what it was.
        is_mendable: Whether it is time to write that annotation again.
        is_unkept: Whether that was done a moment ago, and it is gone again, as where a policy takes it away.
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
        """The workload in an object of the API."""
        body = shaped(body)
        metadata = body["metadata"]
        annotations = metadata.get("annotations") or {}
        controllers = [owner for owner in metadata.get("ownerReferences") or () if owner.get("controller")]
        runs_of = {owner.get("kind") for owner in controllers} if kind.name == "Job" else set()
        is_cron_run = "CronJob" in runs_of
        # A CronJob starts its Jobs and leaves them alone from then on.
        is_controlled = bool(controllers) and not is_cron_run
        # A Deployment hands its annotations down to its ReplicaSets, and so does a Rollout: theirs are not their own.
        pause, damage = _pause(None if is_controlled else annotations.get(PAUSED), kind.control)
        is_copy = pause is not None and pause.uid not in ("", metadata["uid"])
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
            # Whoever changes a value becomes its owner, and we no longer are.
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
        """How many pods it should have, not how many it has."""
        return self.kind.control.pods(self.value)

    @property
    def original_pods(self) -> int:
        """How many it had before we paused it, or its owner wants back; as many as now if we have not."""
        if self.pause is None:
            return self.pods
        if self.asked_pods is not None:
            return self.asked_pods
        return self.kind.control.pods(self.pause.original) if self.pause.pods is None else self.pause.pods

    @property
    def set_pods(self) -> int:
        """How many pods we set it to last; as many as now if we have not."""
        return self.pods if self.pause is None else self.kind.control.pods(self.pause.set_to)

    @property
    def is_as_we_set_it(self) -> bool:
        """Whether nobody has changed it since, though it may not be what we asked for."""
        is_same = self.pause is not None and (self.value == self.pause.set_to or self.is_altered)
        return is_same and not self.is_kept and not self.is_foreign

    @property
    def owes_fields(self) -> bool:
        """Whether fields of ours would be in somebody's way, though there is nothing that we need them for.

        Of what is paused we need them, to see that somebody scales it to 0. But who applies server-side names the
        replicas in each upgrade, and would be refused the whole of it.
        """
        if not self.owned or self.is_going or self.damage or self.copied:
            return False
        return self.pause is None or (self.is_applied and self.value == self.pause.set_to and not self.is_kept)

    @property
    def asked_pods(self) -> int | None:
        """How many pods its owner wants after the pause; None where they have said nothing that can be read."""
        if self.resume_to.lower() == STAY:
            return self.pods
        is_number = self.resume_to.isascii() and self.resume_to.isdecimal() and len(self.resume_to) <= _DIGITS_MOST
        pods = int(self.resume_to) if is_number else None
        return None if pods and not isinstance(self.kind.control, Replicas) else pods

    @property
    def has_unclear_return(self) -> bool:
        """Whether its owner has said something about the time after the pause that nobody can read."""
        return bool(self.resume_to) and self.asked_pods is None

    @property
    def has_unclear_opt(self) -> bool:
        """Whether its owner has said something about being paused that nobody can read."""
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
        is_written: Whether what runs is changed, and not only what is remembered.
        value: What is to be written.
        pause: What the workload is to remember; None makes it forget.
        released: The outage during which it is to be left alone; empty for none.
        rank: Those with a smaller one are made first.
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
        """How many pods are to run; None leaves them as they are."""
        if not self.is_written:
            return None
        restores = self.pause is None
        return self.workload.original_pods if restores else self.workload.kind.control.pods(self.value)

    def __str__(self) -> str:
        now = "as it is" if self.pods is None else f"from {self.workload.pods} to {self.pods}"
        return f"{self.workload}: {now}"

    def patch(self) -> dict[str, Any]:
        """The merge patch, refused (409) if the workload is no longer as it was seen."""
        annotations = {
            PAUSED: self.pause.text() if self.pause else None,
            RELEASED: self.released or None,
        }
        if self.pause is None and self.workload.asked_pods is not None:
            annotations[RESUME_TO] = None
        written = self.workload.kind.control.write(self.value) if self.is_written else {}
        metadata = written.pop("metadata", {})
        annotations |= metadata.get("annotations", {})
        return {"metadata": {"resourceVersion": self.workload.version, "annotations": annotations}} | written


def forgets(workload: Workload, *, released: str = "") -> Change:
    """The change that leaves what runs to whoever set it, and forgets the pause."""
    return Change(workload, workload.value, pause=None, released=released, is_written=False)


def restored(workload: Workload) -> Change | None:
    """The change that undoes a pause whose owner is gone, or is none here; what somebody has set since stands."""
    pause = workload.pause or workload.copied
    if pause is None:
        return None
    is_set_by_us = workload.value == pause.set_to or workload.is_altered
    if workload.is_kept or workload.is_foreign or not is_set_by_us:
        return forgets(workload)
    return returns(replace(workload, pause=pause))


def returns(workload: Workload, *, released: str = "") -> Change:
    """The change that ends a pause: it comes back as it was, or as its owner has asked for meanwhile."""
    if workload.resume_to.lower() == STAY:
        return forgets(workload, released=released)
    original = workload.pause.original if workload.pause else workload.value
    value = original if workload.asked_pods is None else workload.kind.control.at(workload.asked_pods)
    return Change(workload, value, pause=None, released=released)


def raised(workload: Workload) -> Change | None:
    """What to remember first where more pods are to come back than there were: the admission policy asks for it."""
    pause, asked = workload.pause, workload.asked_pods
    if pause is None or asked is None or asked <= workload.kind.control.pods(pause.original):
        return None
    return Change(workload, workload.value, replace(pause, original=asked), is_written=False)


def _pause(text: str | None, control: ScaleControl) -> tuple[Pause | None, str]:
    if not text:
        return None, ""
    try:
        return Pause.parse(text, control), ""
    except ValueError as error:
        return None, str(error)


def _is_written_by_others(pause: Pause, metadata: Mapping[str, Any], control: ScaleControl) -> bool:
    """Whether others have written the value or the annotation, where we have not written the value."""
    writer, noter = last_writer(metadata, control.paths), last_writer(metadata, (_NOTE,))
    if is_applied(metadata):
        # We own nothing there in a pause either. Who applies may state what is in the cluster, as Argo CD does.
        noter, writer = {}, {} if writer.get("operation") == "Apply" else writer
    if not (writer or noter):
        return False
    if pause.uid:
        return bool(pause.uid == metadata["uid"])
    # Earlier operators wrote no UID, and under another name: value and annotation at once, as a backup tool does it
    # where what is older than the pause is a copy.
    at_once = any(owns(e, _NOTE) and any(owns(e, path) for path in control.paths) for e in metadata["managedFields"])
    return not at_once and _made_s(metadata) <= pause.at_s


def _made_s(metadata: Mapping[str, Any]) -> float:
    return unix_s(str(metadata.get("creationTimestamp"))) or math.inf
