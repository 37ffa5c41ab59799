"""A workload, and what it remembers about its own pause.

The original is kept on the workload itself, in one annotation, written by the same patch that changes the replicas:
whatever dies between two steps, nothing else is needed to restore it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from openrouter_guard.rules.wire import iso, unix_s

__all__ = ["GROUP", "PAUSED", "RELEASED", "Change", "Pause", "Workload", "restored"]

GROUP = "openrouter-guard.io"
PAUSED = f"{GROUP}/paused"
"""What the workload was before, and who paused it; see :class:`Pause`."""
RELEASED = f"{GROUP}/released"
"""The outage (the scope, and the time it began) during which the workload is not paused again."""
_OWN = ("app.kubernetes.io/part-of", "openrouter-guard")


@dataclass(frozen=True, slots=True)
class Pause:
    """What a paused workload remembers.

    Attributes:
        owner_uid: The ``OpenRouterStatus`` that paused it.
        owner: Its name, in the namespace of the workload.
        epoch: The breaker's, when it was paused.
        original: Replicas before.
        set_to: Replicas that we set last; anything else is somebody's own change.
        at_s: When it was paused, Unix seconds of the Redis server's clock.
    """

    owner_uid: str
    owner: str
    epoch: int
    original: int
    set_to: int
    at_s: float

    @classmethod
    def parse(cls, text: str) -> Pause:
        """The pause in an annotation.

        Raises:
            ValueError: If somebody has edited it so that it cannot be read.
        """
        try:
            found = json.loads(text)
            owner = found["owner"]
            pause = cls(
                owner_uid=str(owner["uid"]),
                owner=str(owner["name"]),
                epoch=int(found["epoch"]),
                original=int(found["original"]),
                set_to=int(found["set"]),
                at_s=unix_s(str(found["at"])),
            )
        except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
            raise ValueError(f"annotation {PAUSED} cannot be read: {error}") from error
        if pause.original < 1 or pause.set_to < 0 or not pause.at_s:
            raise ValueError(
                f"annotation {PAUSED} cannot be right: from {pause.original} replicas to {pause.set_to},"
                f" at {iso(pause.at_s) or 'no time that can be read'}"
            )
        return pause

    def text(self) -> str:
        return json.dumps(
            {
                "owner": {"name": self.owner, "uid": self.owner_uid},
                "epoch": self.epoch,
                "original": self.original,
                "set": self.set_to,
                "at": iso(self.at_s),
            }
        )


@dataclass(frozen=True, slots=True)
class Workload:
    """A Deployment, as last seen.

    Attributes:
        version: Its ``resourceVersion``: a change is refused once anybody has made another.
        replicas: That it should have, not that it has.
        pause: What it remembers; None if it is not paused.
        damage: Why its annotation cannot be read; empty if it can.
        released: The outage during which it is left alone; empty if none.
        is_controlled: Whether another object owns it and would put its replicas back.
    """

    kind: str
    namespace: str
    name: str
    uid: str
    version: str
    replicas: int
    labels: Mapping[str, str]
    pause: Pause | None = None
    damage: str = ""
    released: str = ""
    is_controlled: bool = False
    is_going: bool = False

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> Workload:
        """The workload in an object of the API."""
        metadata, spec = body["metadata"], body.get("spec") or {}
        annotations = metadata.get("annotations") or {}
        pause, damage = _pause(annotations.get(PAUSED))
        return cls(
            kind=str(body.get("kind") or "Deployment"),
            namespace=metadata["namespace"],
            name=metadata["name"],
            uid=metadata["uid"],
            version=metadata["resourceVersion"],
            replicas=spec.get("replicas", 1),
            labels=dict(metadata.get("labels") or {}),
            pause=pause,
            damage=damage,
            released=annotations.get(RELEASED, ""),
            is_controlled=any(owner.get("controller") for owner in metadata.get("ownerReferences") or ()),
            is_going=metadata.get("deletionTimestamp") is not None,
        )

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
        replicas: None leaves them as they are.
        pause: What the workload is to remember; None makes it forget.
        released: The outage during which it is to be left alone; empty for none.
    """

    workload: Workload
    replicas: int | None
    pause: Pause | None
    released: str = ""

    def patch(self) -> dict[str, Any]:
        """The merge patch, refused (409) if the workload is no longer as it was seen."""
        annotations = {
            PAUSED: self.pause.text() if self.pause else None,
            RELEASED: self.released or None,
        }
        metadata = {"resourceVersion": self.workload.version, "annotations": annotations}
        return {"metadata": metadata} | ({} if self.replicas is None else {"spec": {"replicas": self.replicas}})


def _pause(text: str | None) -> tuple[Pause | None, str]:
    if not text:
        return None, ""
    try:
        return Pause.parse(text), ""
    except ValueError as error:
        return None, str(error)


def restored(workload: Workload) -> Change | None:
    """The change that undoes a pause whose owner is gone; what somebody has set since stands."""
    pause = workload.pause
    if pause is None:
        return None
    return Change(workload, pause.original if workload.replicas == pause.set_to else None, pause=None)
