"""Whole outages in simulated time, by the product's rules: when the fleet is back, and how many calls it spent."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from openrouter_guard.rules import health_checks, shared_state, transitions, trial_calls
from openrouter_guard.rules.breaker import BreakerState, Closed, Open, Policy
from openrouter_guard.rules.shared_state import SharedState, Upstream
from openrouter_guard.rules.signals import SUCCESS, Effect, ErrorType, OpenRouterState, Signal

__all__ = ["Outage", "Recovery", "Service", "recovery"]

SLOT_S = 60.0
BEGIN_S = 1_000_000.0


@dataclass(frozen=True, slots=True)
class Outage:
    """What happens to the upstream, in seconds after the breaker has opened.

    Attributes:
        lasts_s: Calls fail until then.
        fails_in_s: How long a failing call takes.
        succeeds_in_s: How long a good one takes.
        error_type: What fails.
        seed: Of the lot that jitter draws.
    """

    lasts_s: float
    fails_in_s: float = 1.0
    succeeds_in_s: float = 5.0
    error_type: ErrorType = ErrorType.SERVICE_UNAVAILABLE
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Service:
    """A health service beside the fleet.

    Attributes:
        finds: What a check finds at a time, in seconds after the breaker has opened, and so with negative ones.
        last_check_at: When its last check before the opening was.
        takes_s: How long a check takes.
    """

    finds: Callable[[float], OpenRouterState]
    last_check_at: float = -30.0
    takes_s: float = 0.3


@dataclass(frozen=True, slots=True)
class Recovery:
    """How the outage ended.

    Attributes:
        tried_at: From the upstream's return to the first call that was made.
        closed_s: From the upstream's return to the closed breaker.
        calls: What the fleet sent while the upstream was down.
    """

    tried_at: float
    closed_s: float
    calls: int


def recovery(outage: Outage, policy: Policy, service: Service | None = None) -> Recovery:
    """Play one outage, with a fleet that always has calls waiting."""
    return _Play(outage, policy, service).played()


class _Play:
    def __init__(self, outage: Outage, policy: Policy, service: Service | None) -> None:
        self._outage, self._policy, self._service = outage, policy, service
        self._now = BEGIN_S
        self._calls = 0
        self._tried_at = math.inf
        self._trials: dict[str, float] = {}
        self._check: tuple[float, float] | None = None
        self._record = replace(shared_state.fresh(BEGIN_S), epoch=1 + outage.seed)
        if service is not None:
            self._found(BEGIN_S + service.last_check_at)
            slot_s = BEGIN_S + service.last_check_at + SLOT_S
            self._record = replace(self._record, check_slot_at=slot_s)
        self._record = transitions.now_open(self._record, outage.error_type.value, "w", BEGIN_S, policy)

    def played(self) -> Recovery:
        well_s = BEGIN_S + self._outage.lasts_s
        while not isinstance(self._record.breaker, Closed):
            self._look()
            self._now = self._next_s()
            self._ended()
        return Recovery(self._tried_at - well_s, self._now - well_s, self._calls)

    def _look(self) -> None:
        """What everybody does who may do something now."""
        while self._record.phase(self._now) is BreakerState.HALF_OPEN:
            owner = f"w/{self._calls}"
            taken = trial_calls.with_permit(self._record, owner, now=self._now, policy=self._policy)
            if taken is None:
                break
            self._record, self._trials[owner] = taken, self._now
            is_well = self._now >= BEGIN_S + self._outage.lasts_s
            self._tried_at = min(self._tried_at, self._now) if is_well else self._tried_at
            self._calls += 1
        if self._service is not None and self._check is None:
            policy, now = self._policy, self._now
            reserved = health_checks.with_check_slot(self._record, now=now, slot_s=SLOT_S, policy=policy)
            if reserved is not None:
                self._record, self._check = reserved, (now, now + self._service.takes_s)

    def _next_s(self) -> float:
        """When something happens next."""
        ends = [self._ends_at(began_at) for began_at in self._trials.values()]
        if self._check is not None:
            ends.append(self._check[1])
        elif self._service is not None:
            sooner_s = SLOT_S - min(self._policy.recheck_s, SLOT_S)
            ends += [self._record.check_slot_at, self._record.check_slot_at - sooner_s]
        if isinstance(self._record.breaker, Open):
            ends.append(self._record.breaker.until)
        elif self._record.breaker.permits:
            # Renewed in good time, as its holder does; and meanwhile there may be one more.
            ends.append(self._now + self._policy.permit_lease_s / 3)
            ends.append(trial_calls.half_open_since(self._record) + self._policy.next_trial_s)
        return min((end_s for end_s in ends if end_s > self._now), default=self._now + 1)

    def _ends_at(self, began_at: float) -> float:
        is_well = began_at >= BEGIN_S + self._outage.lasts_s
        return began_at + (self._outage.succeeds_in_s if is_well else self._outage.fails_in_s)

    def _ended(self) -> None:
        if self._check is not None and self._check[1] <= self._now:
            began_at, self._check = self._check[0], None
            self._found(self._now, began_at)
        for owner, began_at in list(self._trials.items()):
            if self._ends_at(began_at) > self._now:
                self._record = self._renewed(owner)
                continue
            del self._trials[owner]
            is_well = began_at >= BEGIN_S + self._outage.lasts_s
            signal = SUCCESS if is_well else Signal(Effect.FAILURE, self._outage.error_type)
            self._record = trial_calls.after_trial(self._record, signal, owner, now=self._now, policy=self._policy)

    def _renewed(self, owner: str) -> SharedState:
        if not trial_calls.holds_permit(self._record, owner):
            return self._record
        renewed = trial_calls.with_permit(self._record, owner, now=self._now, policy=self._policy)
        return renewed or self._record

    def _found(self, at: float, began_at: float = 0.0) -> None:
        assert self._service is not None
        state = self._service.finds((began_at or at) - BEGIN_S)
        balance = 1.0 if state is OpenRouterState.ACTIVE else None
        seen = Upstream(state, balance=balance, checked_at=at)
        self._record = health_checks.after_check(
            self._record, seen, now=at, policy=self._policy, by="s", began_at=began_at or at
        )
