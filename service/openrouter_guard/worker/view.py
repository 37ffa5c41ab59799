"""The worker's local copy of the shared state and its clock, shared by callers and background."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from openrouter_guard.clocks import MonotonicTime, ServerTime
from openrouter_guard.rules import admission
from openrouter_guard.rules.admission import fleet_refusal
from openrouter_guard.rules.breaker import BreakerState, Closed, Policy
from openrouter_guard.rules.limits import is_look_due
from openrouter_guard.rules.models import Models, are_any_back, back_since, cooling, model_refusal
from openrouter_guard.rules.override import OverrideKind
from openrouter_guard.rules.ramp import Ramp
from openrouter_guard.rules.refusal import Refusal
from openrouter_guard.rules.shared_state import SharedState
from openrouter_guard.rules.signals import OpenRouterState, Signal

__all__ = ["Mailbox", "Ended", "Refused", "Admission", "View", "monotonic_offset"]


class Admission(NamedTuple):
    """Admission of one call: the epoch in which it began, and its permit (empty: none was needed)."""

    epoch: int
    permit: str


@dataclass(frozen=True, slots=True)
class View:
    """A worker's snapshot of the state.

    Attributes:
        record: The last read, with due transitions.
        offset_s: Redis' clock minus this process' monotonic clock, so that jumps of the wall clock move no deadline.
        policy: The settings of the rules.
        models: Single models with a state of their own.
        is_known: Whether it is valid: not before the background has read the state, or given up.
        is_alone: Whether no background runs: then each call takes the longer way, on which it does the background's
            work.
        admission: The admission of a call that needs no permit.
        free_admission: The same, if calls may go without reading the clock; else None.
        noop_success: The same, if a success would change nothing; else None.
    """

    record: SharedState
    offset_s: float
    policy: Policy = Policy()
    models: Models = field(default_factory=dict)
    is_known: bool = True
    is_alone: bool = False
    admission: Admission = field(init=False)
    free_admission: Admission | None = field(init=False)
    noop_success: Admission | None = field(init=False)

    def __post_init__(self) -> None:
        limited = self.record.upstream.limited_until > self.now
        held_back = limited or self.ramp or self._waits_for_models
        is_closed = isinstance(self.record.breaker, Closed) and self.record.override is None
        admission = Admission(self.record.epoch, "")
        object.__setattr__(self, "admission", admission)
        is_watched = self.is_known and not self.is_alone
        object.__setattr__(self, "free_admission", admission if is_watched and is_closed and not held_back else None)
        object.__setattr__(self, "noop_success", admission if is_watched and is_quiet(self.record) else None)

    @property
    def is_quiet(self) -> bool:
        return self.noop_success is not None

    @property
    def now(self) -> ServerTime:
        return ServerTime(time.monotonic() + self.offset_s)

    @property
    def phase(self) -> BreakerState:
        return self.record.phase(self.now)

    def fleet_refusal(self) -> Refusal | None:
        return fleet_refusal(self.record, self.now)

    @property
    def is_look_due(self) -> bool:
        """Return whether one call of the fleet may test a long rate limit."""
        now = self.now
        return is_look_due(self.record, now) and self.record.phase(now) is not BreakerState.OPEN

    @property
    def needs_permit(self) -> bool:
        """Return whether calls need one of the fleet's permits."""
        return self.phase is not BreakerState.CLOSED or self.is_look_due

    def refusal(self, model: str = "") -> Refusal | None:
        """Return the refusal of a call to *model*; None if it may go, half-open with a permit.

        While the fleet comes back, it also needs a start from the process' :class:`~.lane.Lane`.
        """
        standing = self.record.standing(self.now)
        if standing is not None and standing.kind is OverrideKind.DISABLED:
            return None
        blocked = None if self.is_look_due else self.fleet_refusal()
        return blocked or self.model_refusal(model)

    def model_refusal(self, model: str) -> Refusal | None:
        """Return the refusal of calls to *model* alone; None if they may go."""
        return model_refusal(self.models, model, now=self.now, policy=self.policy)

    @property
    def _waits_for_models(self) -> bool:
        now, policy = self.now, self.policy
        return bool(cooling(self.models, now=now, policy=policy)) or are_any_back(self.models, now=now, policy=policy)

    def model_ramp(self, model: str) -> Ramp | None:
        """Return the ramp of *model* after its wait; None if all calls may go."""
        now, policy = self.now, self.policy
        back = back_since(self.models, model, now=now, policy=policy) if model else None
        return back and admission.model_ramp(self.record, back[0], is_held=back[1], now=now, policy=policy)

    @property
    def ramp(self) -> Ramp | None:
        """Return the fleet's current ramp; None if all calls may go, or none."""
        return admission.ramp(self.record, now=self.now, policy=self.policy)


Ended: TypeAlias = tuple[Signal, Admission, MonotonicTime, MonotonicTime, str | None]
"""A finished call.

Its signal, its admission, its start (0: unknown) and end by this process' monotonic clock, and its model. A plain
tuple, because the caller creates it.
"""
_NOTHING = View(SharedState(), 0.0, is_known=False)


@dataclass(slots=True)
class Refused:
    """Return how many calls were refused since the background last looked."""

    number: int = 0


class Mailbox:
    """Shared by callers and background: most calls only read it and leave a note in it.

    The background keeps the notes, and not the mailbox, so the mailbox goes with the last caller that could reach it.

    Attributes:
        view: The current view; the background replaces it.
        begun: When each call began, by this process' monotonic clock, for the background to take.
        results: Finished calls, likewise.
        refused: Refused calls, likewise.
    """

    __slots__ = ("__weakref__", "begun", "refused", "results", "view")

    def __init__(self) -> None:
        self.view = _NOTHING
        self.begun: deque[MonotonicTime] = deque()
        self.results: deque[Ended] = deque()
        self.refused = Refused()

    def show(self, view: View, by: object) -> None:
        """Replace the view.

        Args:
            view: It.
            by: Owner of the view.
        """
        self.view = view

    def hide(self, by: object) -> None:
        """Show nothing of *by*'s any more."""
        self.forget()

    def forget(self) -> None:
        """Mark it as abandoned: a caller with something to report finds it unknown, and starts again."""
        self.view = _NOTHING


def is_quiet(record: SharedState) -> bool:
    """Return whether a success would change nothing: no failures in a row, no probation or hold, a good status."""
    breaker = record.breaker
    if record.override is not None:
        return True
    is_well = record.upstream.state is OpenRouterState.ACTIVE and record.legacy_open is None
    is_calm = isinstance(breaker, Closed) and not (breaker.failures or breaker.on_probation or breaker.held_until)
    return is_calm and is_well


def monotonic_offset(server_now: float) -> float:
    return server_now - time.monotonic()
