"""What an operator knows of workloads that have forgotten their pause."""

from __future__ import annotations

from dataclasses import replace

import pytest

from openrouter_operator import plan
from openrouter_operator.candidates import Candidate
from openrouter_operator.memory import MEND_S, Memory
from openrouter_operator.plan import Goal, Step
from openrouter_operator.workload import Change, forgets
from tests.operator.samples import OTHER, OWNER, Clock, closed, opened, paused, unknown, workload

PAUSE = Goal(Step.PAUSE, "BreakerOpen")
PAUSED = paused("a", original=3)
STRIPPED = replace(PAUSED, pause=None)
"""The same, once somebody has taken the annotation away."""


@pytest.fixture
def memory(clock: Clock) -> Memory:
    memory = Memory(clock)
    memory.note([Candidate(PAUSED), Candidate(paused("b", owner=OTHER))], OWNER)
    return memory


def test_a_workload_without_its_annotation_is_known_by_its_uid(memory: Memory) -> None:
    assert memory.recall(STRIPPED).pause == PAUSED.pause
    assert memory.recall(replace(STRIPPED, uid="made anew")).pause is None
    assert memory.recall(workload("b", 0)).pause is None, "that one is another resource's"


def test_what_is_there_counts_more_than_what_was(memory: Memory) -> None:
    other = paused("a", original=9)
    for seen in (other, replace(STRIPPED, damage="no JSON"), replace(STRIPPED, released="default/1")):
        assert memory.recall(seen) == seen


def test_an_annotation_is_written_again_once_a_minute_at_the_most(memory: Memory, clock: Clock) -> None:
    (again,) = plan.changes(PAUSE, OWNER, opened(), [Candidate(memory.recall(STRIPPED))])
    assert (again.value, again.pause) == (0, PAUSED.pause)
    memory.made([again])
    assert plan.changes(PAUSE, OWNER, opened(), [Candidate(memory.recall(STRIPPED))]) == []
    clock.now_s += MEND_S
    assert len(plan.changes(PAUSE, OWNER, opened(), [Candidate(memory.recall(STRIPPED))])) == 1


def test_what_we_bring_back_ourselves_is_not_taken_for_forgotten(memory: Memory) -> None:
    memory.made([Change(PAUSED, 3, pause=None)])
    assert memory.recall(STRIPPED) == STRIPPED


def test_what_was_let_go_stays_so_in_its_outage_and_no_other(memory: Memory) -> None:
    outage = opened()
    memory.made([forgets(memory.recall(STRIPPED), released=outage.outage)])
    memory.begin(outage)
    assert memory.recall(STRIPPED).released == outage.outage
    memory.begin(unknown(900.0))
    assert memory.recall(STRIPPED).released == outage.outage, "nobody knows that it is over"
    memory.begin(closed())
    assert memory.recall(STRIPPED) == STRIPPED
