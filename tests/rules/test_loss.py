"""Recovery of state that Redis has lost from a worker's copy: only what still applies comes back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from openrouter_guard.rules import breaker as breakers
from openrouter_guard.rules import shared_state, transitions, trial_calls
from openrouter_guard.rules.breaker import BreakerState, Closed, HalfOpen, Open, Policy
from openrouter_guard.rules.codec import encode, parse
from openrouter_guard.rules.loss import recovered
from openrouter_guard.rules.override import Override, OverrideKind
from openrouter_guard.rules.shared_state import Limit, SharedState, Transition, Upstream
from openrouter_guard.rules.signals import SUCCESS, OpenRouterState

pytestmark = pytest.mark.slow

NOW_S = 1_800_000_000.0
POLICY = Policy()
BEGUN = int(NOW_S * 1000) - 90_000
OPENED = Transition(BEGUN + 1, BreakerState.CLOSED, BreakerState.OPEN, "timeout", "wa", NOW_S - 60)

soon = st.integers(1, 900_000_000).map(lambda micros: round(NOW_S + micros / 1e6, 6))
soon_look = st.integers(1, 100).map(lambda seconds: NOW_S + seconds)
lately = st.integers(0, 90_000_000).map(lambda micros: round(NOW_S - micros / 1e6, 6))
overrides = st.builds(Override, st.sampled_from(OverrideKind), st.just("ann"), st.just("a test"), lately | soon)
breakers_ = st.one_of(
    st.builds(Closed, st.integers(0, 9), since=lately | st.just(0.0), trips=st.integers(0, 3)),
    st.builds(Open, st.just("timeout"), st.just(NOW_S - 60), lately | soon, st.integers(1, 3)),
    st.builds(
        HalfOpen, st.just("timeout"), st.just(NOW_S - 60), st.integers(1, 3),
        permits=st.dictionaries(st.sampled_from(["wa/1", "wb/1"]), lately | st.floats(NOW_S + 0.1, NOW_S + 15)),
    ),
)  # fmt: skip
upstreams = st.builds(
    Upstream, st.sampled_from(OpenRouterState), last_check_at=lately, rate_limit_reset_at=st.just(0.0) | lately | soon
)


@st.composite
def states(draw: st.DrawFn, begun: int) -> SharedState:
    breaker = draw(breakers_)
    told = () if draw(st.booleans()) and isinstance(breaker, Closed) else (replace(OPENED, epoch=begun + 1),)
    return SharedState(
        breaker,
        begun + draw(st.integers(1, 5)),
        draw(upstreams),
        told,
        override=draw(st.none() | overrides),
        limit=draw(st.just(Limit()) | st.builds(Limit, st.just("wa"), lately, soon, soon_look)),
        check_slot_at=draw(st.just(0.0) | soon),
        check_wanted_at=draw(st.just(0.0) | lately),
        doubted_at=draw(st.just(0.0) | lately),
        timed_until=draw(lately),
        begun=begun,
        version=draw(st.integers(1, 9)),
    )


def written(record: SharedState) -> SharedState:
    """As it is read once it was committed."""
    kept = {name: value for name, value in encode(record).items() if value}
    return parse(kept | {"version": str(record.version + 1)}, NOW_S)


def deadlines(record: SharedState) -> dict[str, float]:
    """Every time of the record that lies ahead, by its path: what a loss must not take away."""
    found: dict[str, float] = {}

    def look(path: str, value: object) -> None:
        if isinstance(value, float) and value > NOW_S:
            found[path] = value
        elif isinstance(value, dict):
            for name, each in value.items():
                look(f"{path}.{name}", each)
        elif value is not None and is_dataclass(value) and not isinstance(value, type):
            for field in fields(value):
                look(f"{path}.{field.name}", getattr(value, field.name))

    look("", record)
    return found


@given(states(BEGUN))
def test_every_deadline_that_is_known_comes_back_after_a_loss(known: SharedState) -> None:
    again = recovered(known, None, NOW_S, POLICY)
    if again is None:
        assert not {path for path in deadlines(known) if "breaker" in path or "override" in path or "reset" in path}
        return
    back = deadlines(written(again))
    assert all(back.get(path, 0.0) >= at for path, at in deadlines(known).items())


@given(states(BEGUN))
def test_so_it_does_where_somebody_who_knew_nothing_was_faster(known: SharedState) -> None:
    began = replace(shared_state.fresh(NOW_S), begun=int(NOW_S * 1000), version=1)
    joined = recovered(known, began, NOW_S, POLICY)
    back = deadlines(written(joined)) if joined else {}
    assert all(back.get(path, 0.0) >= at for path, at in deadlines(known).items() if at)


@given(states(BEGUN), states(BEGUN + 50_000) | states(BEGUN))
def test_who_has_joined_what_it_knows_has_nothing_to_add(known: SharedState, seen: SharedState) -> None:
    joined = recovered(known, seen, NOW_S, POLICY)
    assume(joined is not None)
    assert joined is not None
    now = written(joined)
    assert recovered(known, now, NOW_S, POLICY) is None
    assert recovered(now, now, NOW_S, POLICY) is None


@given(states(BEGUN), states(BEGUN + 50_000), states(BEGUN + 70_000))
def test_two_who_know_different_things_come_to_rest(one: SharedState, other: SharedState, seen: SharedState) -> None:
    changes = 0
    for known in (one, other, one, other):
        joined = recovered(known, seen, NOW_S, POLICY)
        if joined is not None:
            seen, changes = written(joined), changes + 1
    assert changes <= 2


@given(states(BEGUN))
def test_what_came_of_a_state_stands(known: SharedState) -> None:
    assert recovered(known, replace(known, version=known.version + 1), NOW_S, POLICY) is None
    for said in (None, True, False):
        same = replace(known, legacy_open=said)
        assert recovered(same, same, NOW_S, POLICY) is None
        assert recovered(known, same, NOW_S, POLICY) is None


@given(states(BEGUN), st.floats(1e-9, 4e-7))
def test_what_is_written_is_no_loss_though_times_are_known_more_exactly(known: SharedState, more_s: float) -> None:
    breaker = known.breaker
    if isinstance(breaker, Closed):
        breaker = replace(breaker, since=breaker.since and breaker.since + more_s)
    elif isinstance(breaker, Open):
        breaker = replace(breaker, until=breaker.until + more_s)
    else:
        breaker = replace(breaker, permits={owner: at + more_s for owner, at in breaker.permits.items()})
    exact = replace(known, breaker=breaker, check_slot_at=known.check_slot_at and known.check_slot_at + more_s)
    seen = replace(written(exact), version=exact.version)
    assert recovered(exact, seen, NOW_S, POLICY) is None
    assert recovered(exact, replace(seen, begun=BEGUN - 7), NOW_S, POLICY) is None


@given(states(BEGUN))
def test_nobody_is_given_a_permit_until_all_who_hold_one_have_told(known: SharedState) -> None:
    again = recovered(known, None, NOW_S, POLICY)
    assume(again is not None and not isinstance(again.breaker, Closed) and again.override is None)
    assert again is not None
    again = replace(again, upstream=Upstream())
    assert trial_calls.with_permit(again, "new/1", now=NOW_S + 2.9, policy=POLICY) is None
    if isinstance(again.breaker, Open) and again.breaker.until < NOW_S + 3.1:
        assert trial_calls.with_permit(again, "new/1", now=NOW_S + 3.1, policy=POLICY) is not None


UNTIL_S = NOW_S + 60
HALF_OPEN = SharedState(HalfOpen("timeout", NOW_S - 60), BEGUN + 2, transitions=(OPENED,), begun=BEGUN, version=4)
OPEN = replace(HALF_OPEN, breaker=Open("timeout", NOW_S - 60, UNTIL_S))


def test_a_permit_of_before_the_loss_takes_the_place_that_was_kept_for_it() -> None:
    by_another = recovered(HALF_OPEN, None, NOW_S, POLICY)
    assert by_another is not None
    seen = written(replace(by_another, begun=by_another.epoch))
    holder = replace(HALF_OPEN, breaker=HalfOpen("timeout", NOW_S - 60, permits={"wa/1": NOW_S + 10}), version=5)
    joined = recovered(holder, seen, NOW_S + 1, POLICY)
    assert joined is not None
    assert isinstance(joined.breaker, HalfOpen)
    assert joined.breaker.permits.keys() == {"wa/1", "lost/0"}
    assert trial_calls.after_trial(joined, SUCCESS, "wa/1", now=NOW_S + 2, policy=POLICY).breaker == Closed(
        since=NOW_S + 2, trips=1
    )


def damaged(**changes: object) -> Callable[[SharedState], SharedState]:
    return lambda record: replace(record, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(damaged(breaker=Closed()), id="the breaker"),
        pytest.param(damaged(breaker=Open("timeout", NOW_S - 60, 0.0)), id="its end"),
        pytest.param(damaged(epoch=0), id="the epoch"),
        pytest.param(damaged(transitions=()), id="the transitions"),
        pytest.param(damaged(begun=0), id="the number of the state"),
        pytest.param(damaged(version=0), id="the version"),
    ],
)
def test_what_somebody_damaged_is_mended_by_who_knows_it(damage: Callable[[SharedState], SharedState]) -> None:
    seen = damage(OPEN)
    after = recovered(OPEN, seen, NOW_S, POLICY) or seen
    assert after.phase(NOW_S) is BreakerState.OPEN
    assert breakers.phase(after.breaker, NOW_S + 59) is BreakerState.OPEN


def test_an_override_that_a_person_ended_after_the_loss_stays_ended() -> None:
    forced = Override(OverrideKind.FORCED_OPEN, "ann", "a test", NOW_S + 60)
    known = replace(transitions.overridden(OPEN, forced, NOW_S - 5), begun=BEGUN)
    began = recovered(known, None, NOW_S, POLICY)
    assert began is not None
    assert began.override == forced
    ended = transitions.released(replace(began, begun=began.epoch), by="ann", now=NOW_S)
    assert (recovered(known, written(ended), NOW_S, POLICY) or ended).override is None


def test_who_joins_a_half_open_breaker_to_an_older_one_keeps_room_for_the_permits_of_others() -> None:
    halved = Transition(BEGUN + 2, BreakerState.OPEN, BreakerState.HALF_OPEN, "reset_timeout", "wa/1", NOW_S - 5)
    waiting = Open("timeout", NOW_S - 60, NOW_S + 3)
    trying = HalfOpen("timeout", NOW_S - 60, permits={"wa/1": NOW_S + 10})
    # A worker that had not seen the first trial call has written back that it waits; then the caller tells of it.
    seen = SharedState(waiting, BEGUN + 80_000, transitions=(OPENED,), begun=BEGUN + 80_000, version=1)
    known = SharedState(trying, BEGUN + 2, transitions=(OPENED, halved), begun=BEGUN, version=4)
    joined = recovered(known, seen, NOW_S, POLICY)
    assert joined is not None
    assert trial_calls.with_permit(joined, "wc/1", now=NOW_S + 1, policy=POLICY) is None
    another = replace(known, breaker=replace(trying, permits={"wa/1": NOW_S + 10, "wb/1": NOW_S + 10}), version=5)
    told = recovered(another, replace(joined, version=2), NOW_S + 1, POLICY)
    assert told is not None
    assert told.breaker.permits.keys() == {"wa/1", "wb/1"}
