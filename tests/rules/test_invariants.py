"""What holds whatever happens, in whatever order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

from hypothesis import given
from hypothesis import strategies as st

from openrouter_guard.rules import checks
from openrouter_guard.rules import record as records
from openrouter_guard.rules.breaker import Closed, HalfOpen, Open, Phase, Policy
from openrouter_guard.rules.override import Override, OverrideKind
from openrouter_guard.rules.record import Record, Upstream
from openrouter_guard.rules.signals import NEUTRAL, SUCCESS, Effect, ErrorType, OpenRouterState, Signal
from openrouter_guard.rules.wire import encode, parse

POLICY = Policy(reset_timeout_s=10, max_reset_timeout_s=40, permit_lease_s=15, permits=2)
OWNERS = ("wa/1", "wb/1", "wc/1", "wd/1")

Event: TypeAlias = Callable[[Record, float], Record | None]


def settle(record: Record, now_s: float) -> Record:
    return records.settled(record, now_s=now_s, policy=POLICY, by="me")


def result(signal: Signal, reporter: str) -> Event:
    return lambda record, _now_s: records.counted(record, signal, reporter)


def permit(owner: str) -> Event:
    return lambda record, now_s: records.with_permit(record, owner, now_s=now_s, policy=POLICY)


def trial(signal: Signal, owner: str) -> Event:
    return lambda record, now_s: records.after_trial(record, signal, owner, now_s=now_s, policy=POLICY)


def older_writer(*, says_open: bool) -> Event:
    def write(record: Record, _now_s: float) -> Record:
        return parse(encode(record) | {"circuit_breaker_open": str(says_open).lower()})

    return write


def limit(wait_s: float) -> Event:
    signal = Signal(Effect.RATE_LIMIT, ErrorType.RATE_LIMITED, wait_s=wait_s)
    return lambda record, now_s: records.limited(record, signal, now_s)


def check(state: OpenRouterState) -> Event:
    return lambda record, now_s: checks.after_check(
        record, Upstream(state, last_check_s=now_s), now_s=now_s, policy=POLICY, by="checker"
    )


def slot(record: Record, now_s: float) -> Record | None:
    return checks.with_check_slot(record, now_s=now_s, slot_s=1, policy=POLICY)


def doubt(signal: Signal) -> Event:
    return lambda record, now_s: checks.doubted(record, signal, now_s=now_s, policy=POLICY, by="me")


def override(kind: OverrideKind, for_s: float) -> Event:
    return lambda record, now_s: records.overridden(record, Override(kind, "ann", "a test", now_s + for_s), now_s)


def release(record: Record, now_s: float) -> Record:
    return records.released(record, by="ann", now_s=now_s)


def lose(record: Record, now_s: float) -> Record | None:
    return records.recovered(record, None, now_s)


signals = st.sampled_from([SUCCESS, NEUTRAL, *(Signal(Effect.FAILURE, kind) for kind in ErrorType)])
owners = st.sampled_from(OWNERS)
events: st.SearchStrategy[Event] = (
    st.builds(result, signals, owners)
    | st.builds(permit, owners)
    | st.builds(trial, signals, owners)
    | st.builds(lambda says_open: older_writer(says_open=says_open), st.booleans())
    | st.builds(limit, st.floats(0, 100))
    | st.builds(check, st.sampled_from(OpenRouterState))
    | st.builds(doubt, signals)
    | st.just(slot)
    | st.builds(override, st.sampled_from(OverrideKind), st.sampled_from([1.0, 10.0]))
    | st.just(release)
    | st.just(lose)
    | st.just(settle)
)
steps = st.lists(st.tuples(events, st.sampled_from([0.0, 0.5, 3.0, 20.0])), max_size=60)


@given(steps)
def test_of_any_story(story: list[tuple[Event, float]]) -> None:
    record, now_s = replace(records.fresh(1_000.0), live_reporters=1), 1_000.0
    for event, pause_s in story:
        now_s += pause_s
        after = event(record, now_s) or record
        every_transition_has_a_new_epoch(record, after)
        open_until_never_moves_earlier(record, after, now_s)
        an_override_holds_until_it_ends_or_another_comes(record, after, now_s)
        no_more_permits_than_the_fleet_has(after, now_s)
        it_is_the_same_once_written_and_read(after)
        record = after


def every_transition_has_a_new_epoch(before: Record, after: Record) -> None:
    assert after.epoch >= before.epoch
    if type(before.breaker) is not type(after.breaker):
        assert after.epoch > before.epoch
        assert after.transitions[-1].epoch == after.epoch


def an_override_holds_until_it_ends_or_another_comes(before: Record, after: Record, now_s: float) -> None:
    standing = before.standing(now_s)
    if standing is not None and after.epoch == before.epoch:
        assert after.override == before.override
        assert after.phase(now_s) is (Phase.OPEN if standing.is_open else Phase.CLOSED)
        assert type(after.breaker) is type(before.breaker)


def open_until_never_moves_earlier(before: Record, after: Record, now_s: float) -> None:
    if isinstance(before.breaker, Open) and before.breaker.until_s > now_s:
        assert isinstance(after.breaker, Open)
        assert after.breaker.until_s >= before.breaker.until_s


def no_more_permits_than_the_fleet_has(record: Record, now_s: float) -> None:
    if isinstance(record.breaker, HalfOpen):
        assert sum(until > now_s for until in record.breaker.permits.values()) <= POLICY.permits
        assert len(record.breaker.permits) <= POLICY.permits


def it_is_the_same_once_written_and_read(record: Record) -> None:
    read = parse({name: value for name, value in encode(record).items() if value})
    assert type(read.breaker) is type(record.breaker)
    assert (read.override, read.fleet, read.legacy_open) == (record.override, record.fleet, None)
    assert (read.epoch, read.breaker.failures, read.transitions) == (
        record.epoch,
        record.breaker.failures,
        record.transitions,
    )


@given(steps)
def test_a_closed_breaker_lets_calls_go_unless_a_limit_or_a_person_stands_against_it(
    story: list[tuple[Event, float]],
) -> None:
    record, now_s = records.fresh(1_000.0), 1_000.0
    for event, pause_s in story:
        now_s += pause_s
        record = event(record, now_s) or record
        is_free = record.upstream.rate_limit_reset_s <= now_s and record.standing(now_s) is None
        if isinstance(record.breaker, Closed) and is_free:
            assert records.block_s(record, now_s) is None
