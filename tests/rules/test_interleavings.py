"""All states that three workers, two permits and a few faults can reach, up to a depth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from openrouter_guard.rules import breaker as breakers
from openrouter_guard.rules import evaluation, transitions, trial_calls
from openrouter_guard.rules import failure_run as runs
from openrouter_guard.rules.breaker import HalfOpen, Policy
from openrouter_guard.rules.shared_state import SharedState
from openrouter_guard.rules.signals import Signal
from tests.rules.exploring import explore, roots
from tests.rules.protocol import Violation, World


def worlds(*, crashes: int = 0, losses: int = 0, older: int = 0) -> list[World]:
    return [replace(world, crashes=crashes, losses=losses, older=older) for world in roots()]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("faults", "depth"),
    [
        pytest.param({"crashes": 1}, 5, id="a worker crashes"),
        pytest.param({"losses": 1}, 5, id="Redis loses the state"),
        pytest.param({"older": 1}, 5, id="an older writer writes"),
        pytest.param({"crashes": 1, "losses": 1, "older": 1}, 4, id="all of these"),
    ],
)
def test_no_interleaving_breaks_a_promise(faults: dict[str, int], depth: int) -> None:
    found = explore(worlds(**faults), depth=depth)
    print(f"{found.states:,} states, {found.moves:,} moves, {found.depth} steps deep")
    assert found.depth == depth
    assert found.states > 10_000


# -- the search finds what is broken: each promise, by a rule that does not keep it ---------------------------------


def three_permits(monkeypatch: pytest.MonkeyPatch) -> None:
    real = breakers.permits_by

    def permits_by(now: float, since: float, policy: Policy) -> int:
        found = real(now, since, policy)
        return found + 1 if found == policy.permits else found

    monkeypatch.setattr(breakers, "permits_by", permits_by)


def trial_calls_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breakers, "permits_by", lambda _now, _since, policy: policy.permits)


def leases_that_never_end(monkeypatch: pytest.MonkeyPatch) -> None:
    real = breakers.with_permit

    def with_permit(breaker: Any, owner: str, *, policy: Policy, **known: float) -> HalfOpen | None:
        held = breaker.permits
        return None if len(held) >= policy.permits else real(breaker, owner, policy=policy, **known)

    monkeypatch.setattr(breakers, "with_permit", with_permit)


def whoever_comes_late_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    real = trial_calls.after_trial

    def after_trial(record: SharedState, signal: Signal, owner: str, *, now: float, policy: Policy) -> SharedState:
        if isinstance(record.breaker, HalfOpen):
            record = replace(record, breaker=replace(record.breaker, permits={owner: now}))
        return real(record, signal, owner, now=now, policy=policy)

    monkeypatch.setattr(trial_calls, "after_trial", after_trial)


def epochs_that_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    real = transitions.append_transition
    monkeypatch.setattr(
        transitions, "append_transition", lambda record, *args: replace(real(record, *args), epoch=record.epoch)
    )


def an_older_writer_closes_what_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        evaluation, "_after_older_writer", lambda record, now, _policy: transitions.now_closed(record, "old", now)
    )


def one_failure_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "are_enough", lambda breaker, *_: breaker.failures > 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("broken", "depth", "told"),
    [
        (three_permits, 4, "3 trial calls are out"),
        (trial_calls_all_at_once, 4, "2 trial calls are out"),
        (leases_that_never_end, 4, "gets no permit though all is long over"),
        (epochs_that_stay, 4, "repeats the epoch"),
        (an_older_writer_closes_what_is_open, 3, "an open breaker ends before its time"),
        (one_failure_is_enough, 5, "1 failures open the breaker"),
    ],
)
def test_a_broken_rule_is_found(
    broken: Callable[[pytest.MonkeyPatch], None], depth: int, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = worlds(older=1)
    broken(monkeypatch)
    with pytest.raises(Violation, match=told):
        explore(begin, depth=depth)


@pytest.mark.slow
def test_a_result_that_counts_too_late_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    *_, half_open = worlds()
    two = replace(half_open, workers=half_open.workers[:2])
    whoever_comes_late_decides(monkeypatch)
    with pytest.raises(Violation, match="the late result of"):
        explore([two], depth=8)
