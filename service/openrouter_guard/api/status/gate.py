"""Decides whether calls may go, as a pure function of a snapshot."""

from __future__ import annotations

import math
from dataclasses import dataclass

from openrouter_guard.replica import Snapshot
from openrouter_guard.rules.admission import admitted_share, fleet_refusal
from openrouter_guard.rules.breaker import BreakerState, Policy
from openrouter_guard.rules.models import model_refusal
from openrouter_guard.rules.override import OverrideKind
from openrouter_guard.rules.shared_state import SharedState

__all__ = ["Gate", "gate", "ramp", "fingerprint", "whole_s"]

HALF_OPEN_RETRY_S = 5.0
"""A trial call may end at any moment, so the time of closing is unknown."""


@dataclass(frozen=True, slots=True)
class Gate:
    """The verdict.

    Attributes:
        reason: The reason why calls must wait; empty if they may go.
        retry_after_s: When to ask again; 0 if calls may go.
    """

    reason: str = ""
    retry_after_s: float = 0.0

    @property
    def permits(self) -> bool:
        return not self.reason


def gate(view: Snapshot, policy: Policy, model: str = "") -> Gate:
    """Return whether calls, or calls to *model* if named, may go.

    Without a state, calls may go: without Redis only a known deadline counts, such as that of an open breaker.
    """
    record, now = view.record or SharedState(), view.now
    standing = record.standing(now)
    if standing is not None and standing.kind is OverrideKind.DISABLED:
        return Gate()
    refused = fleet_refusal(record, now) or model_refusal(view.models, model, now=now, policy=policy)
    if refused is not None:
        return Gate(str(refused.reason) or "open", refused.retry_after_s)
    if record.phase(now) is BreakerState.HALF_OPEN and not view.is_degraded:
        return Gate(BreakerState.HALF_OPEN.value, HALF_OPEN_RETRY_S)
    return Gate()


def ramp(view: Snapshot, policy: Policy) -> float:
    """Return the share of all calls that may go without a permit, from 0 to 1: 0 while they wait.

    Rounded to two digits, so that it does not change at every look; never 0 if some calls may go.
    """
    if not gate(view, policy).permits:
        return 0.0
    return float(f"{admitted_share(view.record or SharedState(), now=view.now, policy=policy):.2g}")


def fingerprint(view: Snapshot, policy: Policy, model: str) -> bytes:
    """Changes when the gate's answer changes, and is the same in every replica.

    It does not include the remaining wait, which changes all the time.
    """
    epoch = view.record.epoch if view.record else 0
    shown = (gate(view, policy, model).reason, ramp(view, policy), epoch, view.is_degraded)
    return repr(shown).encode()


def whole_s(seconds: float) -> int:
    """Return seconds for ``Retry-After``, rounded up so that a client does not come too early."""
    return max(math.ceil(seconds), 1)
