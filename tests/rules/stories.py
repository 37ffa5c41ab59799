"""Random events on the shared state, in any order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

from hypothesis import strategies as st

from openrouter_guard.rules import evaluation, health_checks, transitions, trial_calls
from openrouter_guard.rules.breaker import Closed, Policy
from openrouter_guard.rules.codec import encode, parse
from openrouter_guard.rules.loss import recovered
from openrouter_guard.rules.override import Override, OverrideKind
from openrouter_guard.rules.shared_state import SharedState, Upstream
from openrouter_guard.rules.signals import NEUTRAL, SUCCESS, Effect, ErrorType, OpenRouterState, Signal
from openrouter_guard.rules.trial_reports import Told, reported
from openrouter_guard.rules.window import StepCounts

__all__ = ["POLICY", "Event", "Story", "lose", "steps"]

POLICY = Policy(
    failure_threshold=2,
    reset_timeout_s=10,
    max_reset_timeout_s=40,
    permit_lease_s=15,
    permits=2,
    failure_rate=0.5,
    slow_rate=0.5,
    window_calls=2,
)
OWNERS = ("wa/1", "wb/1", "wc/1", "wd/1")

Event: TypeAlias = Callable[[SharedState, float], SharedState | None]
"""From the record and the time to the record that follows; None: it stays."""
Story: TypeAlias = list[tuple[Event, float]]
"""What happens, and the seconds before."""


def settle(record: SharedState, now: float) -> SharedState:
    return evaluation.evaluate(record, now=now, policy=POLICY, by="me")


def result(signal: Signal, reporter: str) -> Event:
    return lambda record, _now: evaluation.counted(record, signal, reporter)


def permit(owner: str) -> Event:
    return lambda record, now: trial_calls.with_permit(record, owner, now=now, policy=POLICY)


def trial(signal: Signal, owner: str) -> Event:
    return lambda record, now: trial_calls.after_trial(record, signal, owner, now=now, policy=POLICY)


def report(*, is_success: bool) -> Event:
    """Of a call without a permit that took no time."""

    def tell(record: SharedState, now: float) -> SharedState:
        told = [Told(is_success, record.epoch, now)]
        return reported(record, told, now=now, policy=POLICY, by="http")

    return tell


def older_writer(*, says_open: bool) -> Event:
    def write(record: SharedState, now: float) -> SharedState:
        return parse(encode(record) | {"circuit_breaker_open": str(says_open).lower()}, now)

    return write


def limit(wait_s: float) -> Event:
    signal = Signal(Effect.RATE_LIMIT, ErrorType.RATE_LIMITED, wait_s=wait_s)
    return lambda record, now: trial_calls.limited(record, signal, now)


def check(state: OpenRouterState, balance: float | None = None) -> Event:
    return lambda record, now: health_checks.after_check(
        record,
        Upstream(state, checked_at=now, balance=balance),
        now=now,
        policy=POLICY,
        by="checker",
        began_at=now,
    )


def slot(record: SharedState, now: float) -> SharedState | None:
    return health_checks.with_check_slot(record, now=now, slot_s=1, policy=POLICY)


def doubt(signal: Signal) -> Event:
    return lambda record, now: health_checks.doubted(record, signal, now=now, policy=POLICY, by="me")


def override(kind: OverrideKind, for_s: float) -> Event:
    return lambda record, now: transitions.overridden(record, Override(kind, "ann", "a test", now + for_s), now)


def release(record: SharedState, now: float) -> SharedState:
    return transitions.released(record, by="ann", now=now)


def seen_lately(failures: int, slow: int) -> Event:
    """Two calls in the window, as the store's script counts them."""

    def count(record: SharedState, now: float) -> SharedState | None:
        tally = StepCounts(int(now), 2, failures, slow, ("wa",))
        breaker = record.breaker
        return replace(record, breaker=replace(breaker, window=(tally,))) if isinstance(breaker, Closed) else None

    return count


def lose(record: SharedState, now: float) -> SharedState | None:
    return recovered(record, None, now, POLICY)


signals = st.sampled_from([SUCCESS, NEUTRAL, *(Signal(Effect.FAILURE, kind) for kind in ErrorType)])
owners = st.sampled_from(OWNERS)
events: st.SearchStrategy[Event] = (
    st.builds(result, signals, owners)
    | st.builds(permit, owners)
    | st.builds(trial, signals, owners)
    | st.builds(lambda says_open: older_writer(says_open=says_open), st.booleans())
    | st.builds(lambda is_success: report(is_success=is_success), st.booleans())
    | st.builds(limit, st.floats(0, 100))
    | st.builds(check, st.sampled_from(OpenRouterState), st.sampled_from([None, 1.0]))
    | st.builds(doubt, signals)
    | st.builds(seen_lately, st.integers(0, 2), st.integers(0, 2))
    | st.just(slot)
    | st.builds(override, st.sampled_from(OverrideKind), st.sampled_from([1.0, 10.0]))
    | st.just(release)
    | st.just(lose)
    | st.just(settle)
)
steps: st.SearchStrategy[Story] = st.lists(st.tuples(events, st.sampled_from([0.0, 0.5, 3.0, 20.0])), max_size=60)
