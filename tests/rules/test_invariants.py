"""Invariants of the breaker under any sequence of events."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given

from openrouter_guard.rules import admission, shared_state
from openrouter_guard.rules.breaker import BreakerState, Closed, HalfOpen, Open
from openrouter_guard.rules.codec import encode, parse
from openrouter_guard.rules.shared_state import SharedState
from tests.rules.stories import POLICY, Story, steps

START_S = 1_800_000_000.0


@given(steps)
def test_of_any_story(story: Story) -> None:
    record, now = replace(shared_state.fresh(START_S), live_reporters=1), START_S
    for event, pause_s in story:
        now += pause_s
        after = event(record, now) or record
        every_transition_has_a_new_epoch(record, after)
        open_until_never_moves_earlier(record, after, now)
        an_override_holds_until_it_ends_or_another_comes(record, after, now)
        no_more_permits_than_the_fleet_has(after, now)
        it_is_the_same_once_written_and_read(after, now)
        record = after


def every_transition_has_a_new_epoch(before: SharedState, after: SharedState) -> None:
    assert after.epoch >= before.epoch
    if type(before.breaker) is not type(after.breaker):
        assert after.epoch > before.epoch
        assert after.transitions[-1].epoch == after.epoch


def an_override_holds_until_it_ends_or_another_comes(before: SharedState, after: SharedState, now: float) -> None:
    standing = before.standing(now)
    if standing is not None and after.epoch == before.epoch:
        assert after.override == before.override
        assert after.phase(now) is (BreakerState.OPEN if standing.is_open else BreakerState.CLOSED)
        assert type(after.breaker) is type(before.breaker)


def open_until_never_moves_earlier(before: SharedState, after: SharedState, now: float) -> None:
    """Only a health check may have a call try before, and then the end stays known."""
    if isinstance(before.breaker, Open) and before.breaker.until > now:
        if after.transitions[-1:] != before.transitions[-1:] and after.transitions[-1].reason == "check_succeeded":
            assert after.breaker == HalfOpen(
                before.breaker.reason,
                before.breaker.opened_at,
                before.breaker.trips,
                before.breaker.failures,
                tried_at=now,
                until=before.breaker.until,
            )
            return
        assert isinstance(after.breaker, Open)
        assert after.breaker.until >= before.breaker.until


def no_more_permits_than_the_fleet_has(record: SharedState, now: float) -> None:
    if isinstance(record.breaker, HalfOpen):
        assert sum(until > now for until in record.breaker.permits.values()) <= POLICY.permits
        assert len(record.breaker.permits) <= POLICY.permits


def it_is_the_same_once_written_and_read(record: SharedState, now: float) -> None:
    read = parse({name: value for name, value in encode(record).items() if value}, now)
    assert type(read.breaker) is type(record.breaker)
    assert (read.override, read.fleet, read.legacy_open) == (record.override, record.fleet, None)
    assert (read.epoch, read.breaker.failures, read.transitions) == (
        record.epoch,
        record.breaker.failures,
        record.transitions,
    )


@given(steps)
def test_a_closed_breaker_lets_calls_go_unless_a_limit_or_a_person_stands_against_it(
    story: Story,
) -> None:
    record, now = shared_state.fresh(START_S), START_S
    for event, pause_s in story:
        now += pause_s
        record = event(record, now) or record
        is_free = record.upstream.rate_limit_reset_at <= now and record.standing(now) is None
        if isinstance(record.breaker, Closed) and is_free:
            assert admission.fleet_refusal(record, now) is None
