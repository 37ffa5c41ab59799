"""A worker's part in the ramp after a recovery."""

from __future__ import annotations

import time

from openrouter_guard.rules.breaker import Closed, HalfOpen, Open, Policy
from openrouter_guard.rules.shared_state import Record
from openrouter_guard.worker.view import View, monotonic_offset

POLICY = Policy(permits=2, ramp_s=30)


def view(since_s: float, fleet: int = 20) -> View:
    """A breaker that closed so many seconds ago."""
    now_s = time.time()
    record = Record(Closed(since_s=now_s - since_s), fleet=fleet)
    return View(record, monotonic_offset(now_s), POLICY)


def test_of_many_that_waited_a_few_go_at_first() -> None:
    just_closed = view(since_s=0.0)
    assert just_closed.free_ticket is None
    refusals = [refusal for _ in range(1_000) if (refusal := just_closed.refusal())]
    assert 850 < len(refusals) < 950
    assert {reason for _, reason in refusals} == {"recovering"}
    assert all(0.5 <= retry_s <= 1.5 for retry_s, _ in refusals)


def test_once_it_is_over_it_costs_nothing() -> None:
    assert view(since_s=30.1).free_ticket
    assert view(since_s=0.0, fleet=2).free_ticket


def test_while_open_the_deadline_counts_and_half_open_the_permits() -> None:
    now_s = time.time()
    offset_s = monotonic_offset(now_s)
    refusal = View(Record(Open("timeout", now_s, now_s + 60), fleet=20), offset_s, POLICY).refusal()
    assert refusal is not None
    assert refusal[1] == "timeout"
    assert View(Record(HalfOpen("timeout", now_s), fleet=20), offset_s, POLICY).refusal() is None
