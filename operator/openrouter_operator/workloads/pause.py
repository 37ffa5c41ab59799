"""The pause in a workload's annotation, and its encoding; pure."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from openrouter_guard.rules.backoff import Backoff
from openrouter_guard.rules.codec import iso, parse_iso
from openrouter_guard.rules.parsing import line_of

from .kinds import ScaleControl, Value

__all__ = ["GROUP", "PAUSED", "Contest", "Pause"]

GROUP = "openrouter-guard.io"
PAUSED = f"{GROUP}/paused"
"""The annotation with the original value and the owner; see :class:`Pause`."""
_CONTEST = Backoff(5.0, 300.0)
"""The first and the longest wait before an undone pause is put back."""
_SAME_S = 0.001
"""Times are written to the microsecond."""
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")
_NAME_MOST = 253
_BY_MOST = 128
"""Longest name of a field manager that the API server allows."""


@dataclass(frozen=True, slots=True)
class Contest:
    """A pause that is repeatedly undone.

    How often it was put back, the last time (Unix seconds), and the other manager.
    """

    times: int
    at: float
    by: str

    @property
    def next_at(self) -> float:
        """Return when it may be put back again: the wait doubles each time, up to five minutes."""
        return self.at + _CONTEST.wait_s(self.times)


@dataclass(frozen=True, slots=True)
class Pause:
    """The pause of a workload, as stored on it.

    Attributes:
        uid: The paused workload. Another one with this annotation is a copy.
        owner_uid: The ``OpenRouterStatus`` that paused it.
        owner: Its name, in the namespace of the workload.
        epoch: The breaker's epoch at the pause.
        original: The value before the pause; None if there was none.
        set_to: The value the operator wrote last; any other is a foreign change.
        at: When it was paused, Unix seconds of the Redis server's clock.
        pods: Number of pods, if ``original`` does not say it.
        contest: The contest, if another manager undoes it; else None.
        is_orphaned: Whether its owner was deleted and left it paused.
    """

    owner_uid: str
    owner: str
    epoch: int
    original: Value
    set_to: Value
    at: float
    pods: int | None = None
    contest: Contest | None = None
    is_orphaned: bool = False
    uid: str = ""

    def is_same(self, other: Pause) -> bool:
        """Return whether both are the same pause, apart from later changes."""
        return (self.uid, self.epoch) == (other.uid, other.epoch) and abs(self.at - other.at) < _SAME_S

    @classmethod
    def parse(cls, text: str, control: ScaleControl) -> Pause:
        """Return the pause in an annotation.

        Raises:
            ValueError: If it was edited and is unreadable.
        """
        try:
            found = json.loads(text)
            owner = found["owner"]
            pause = cls(
                owner_uid=str(owner["uid"]),
                owner=_name(owner["name"]),
                epoch=int(found["epoch"]),
                original=found["original"],
                set_to=found["set"],
                at=parse_iso(str(found["at"])),
                pods=None if found.get("pods") is None else int(found["pods"]),
                contest=_contest(found.get("contested")),
                is_orphaned=found.get("orphaned") is True,
                uid=str(found.get("uid") or ""),
            )
        except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
            raise ValueError(line_of(f"annotation {PAUSED} cannot be read: {error}")) from error
        if not pause.at or not all(map(control.is_sound, (pause.original, pause.set_to))):
            when = iso(pause.at) or "no time that can be read"
            raise ValueError(line_of(f"annotation {PAUSED} cannot be right: from {found['original']!r} at {when}"))
        if control.pods(pause.original) < 1:
            raise ValueError(line_of(f"annotation {PAUSED} cannot be right: {pause.original!r} is never paused"))
        return pause

    def text(self) -> str:
        more: dict[str, Any] = {} if self.pods is None else {"pods": self.pods}
        if self.contest is not None:
            more["contested"] = {"times": self.contest.times, "at": iso(self.contest.at), "by": self.contest.by}
        if self.is_orphaned:
            more["orphaned"] = True
        if self.uid:
            more["uid"] = self.uid
        return json.dumps(
            {
                "owner": {"name": self.owner, "uid": self.owner_uid},
                "epoch": self.epoch,
                "original": self.original,
                "set": self.set_to,
                "at": iso(self.at),
                **more,
            }
        )


def _contest(found: Any) -> Contest | None:
    if found is None:
        return None
    return Contest(int(found["times"]), parse_iso(str(found["at"])), line_of(found["by"], _BY_MOST))


def _name(found: Any) -> str:
    """Return a valid name of a resource: it is used in requests, and shown to people."""
    if not isinstance(found, str) or len(found) > _NAME_MOST or not _NAME.fullmatch(found):
        raise ValueError("its owner has an invalid name")
    return found
