"""The journal of pauses, for workloads that have lost their annotation."""

from __future__ import annotations

from dataclasses import replace

import pytest

from openrouter_operator.controller.pause_journal import MEND_S, NOTED_S, PauseJournal
from openrouter_operator.decisions import plan
from openrouter_operator.decisions.goal import Goal, Step
from openrouter_operator.decisions.targets import Candidate, Owner, Targets
from openrouter_operator.workloads.workload import Change, Pause, Workload, forgets
from tests.operator.samples import NOW_S, OTHER, OWNER, Clock, closed, opened, paused, unknown, workload

PAUSE = Goal(Step.PAUSE, "BreakerOpen")
ALL_BACK = Goal(Step.RESUME, "BreakerClosed", share=1.0)
PAUSED = paused("a", original=3)
RUNNING = workload("c", 5)
STRIPPED = replace(PAUSED, pause=None)
"""The same, once somebody has taken the annotation away."""


@pytest.fixture
def journal(clock: Clock) -> PauseJournal:
    journal = PauseJournal(clock)
    journal.note(Targets(OWNER, [Candidate(PAUSED), Candidate(paused("b", owner=OTHER)), Candidate(RUNNING)]), NOW_S)
    return journal


def test_a_workload_without_its_annotation_is_known_by_its_uid(journal: PauseJournal) -> None:
    assert journal.recall(STRIPPED).pause == PAUSED.pause
    assert journal.recall(replace(STRIPPED, uid="made anew")).pause is None
    assert journal.recall(workload("b", 0)).pause is None, "that one is another resource's"


def test_what_is_there_counts_more_than_what_was(journal: PauseJournal) -> None:
    other = paused("a", original=9)
    for seen in (other, replace(STRIPPED, released="default/1")):
        assert journal.recall(seen) == seen


def test_an_annotation_that_somebody_has_damaged_is_known_as_one_that_is_gone(journal: PauseJournal) -> None:
    assert journal.recall(replace(STRIPPED, damage="no JSON")) == journal.recall(STRIPPED)
    unknown = replace(STRIPPED, uid="paused before this process started", damage="no JSON")
    assert journal.recall(unknown) == unknown


def undone(name: str, at: float, *, owner: Owner = OWNER) -> Workload:
    """The workload once ``kubectl rollout undo`` has put back the annotation of an earlier outage."""
    return paused(name, original=9, at=at, owner=owner)


@pytest.mark.parametrize("owner", [OWNER, OTHER], ids=["our own", "one of a resource that is gone"])
def test_an_annotation_of_an_earlier_outage_is_put_right(journal: PauseJournal, owner: Owner) -> None:
    seen = journal.recall(undone("a", at=100.0, owner=owner))
    assert (seen.pause, seen.is_stripped) == (PAUSED.pause, True)
    (again,) = plan.changes(PAUSE, opened(), Targets(OWNER, [Candidate(seen)]))
    assert (again.value, again.pause) == (0, PAUSED.pause)
    (first,) = plan.changes(ALL_BACK, closed(), Targets(OWNER, [Candidate(seen)]))
    assert (first.value, first.pause) == (0, PAUSED.pause), "what it comes back to is written on it first"
    journal.made([first])
    (back,) = plan.changes(ALL_BACK, closed(), Targets(OWNER, [Candidate(journal.recall(PAUSED))]))
    assert (back.value, back.pause) == (3, None)


def test_one_of_an_earlier_outage_on_what_runs_means_nothing(journal: PauseJournal) -> None:
    seen = journal.recall(replace(undone("c", at=100.0), value=5))
    assert (seen.pause, seen.has_litter) == (None, True)


def test_one_that_scales_to_zero_and_undoes_a_rollout_is_not_taken_for_paused(journal: PauseJournal) -> None:
    seen = journal.recall(undone("c", at=100.0))
    assert (seen.pause, seen.has_litter) == (None, True)


def test_a_late_write_of_an_earlier_leader_is_a_pause_like_any_other(journal: PauseJournal) -> None:
    late = replace(undone("c", at=100.0), is_our_value=True)
    assert journal.recall(late) == late


def test_our_own_pause_is_known_though_its_answer_was_lost(journal: PauseJournal) -> None:
    (change,) = plan.changes(PAUSE, opened(), Targets(OWNER, [Candidate(RUNNING)]))
    journal.asks([change])
    journal.note(Targets(OWNER, [Candidate(RUNNING)]), NOW_S + 5)
    assert change.pause is not None
    made = replace(RUNNING, value=0, pause=Pause.parse(change.pause.text(), RUNNING.kind.control))
    assert journal.recall(made) == made


def test_a_pause_that_we_made_and_ended_is_over_for_good(journal: PauseJournal) -> None:
    (change,) = plan.changes(PAUSE, opened(), Targets(OWNER, [Candidate(RUNNING)]))
    journal.asks([change])
    journal.made([change])
    made = replace(RUNNING, value=0, pause=change.pause)
    journal.made(plan.changes(ALL_BACK, closed(), Targets(OWNER, [Candidate(made)])))
    journal.note(Targets(OWNER, [Candidate(RUNNING)]), NOW_S + 5)
    assert journal.recall(made).has_litter


def test_a_later_pause_of_another_resource_is_its_own(journal: PauseJournal) -> None:
    theirs = undone("a", at=NOW_S + 10, owner=OTHER)
    assert journal.recall(theirs) == theirs


@pytest.mark.parametrize("at", [NOW_S + 10, 4e9], ids=["of a moment later", "of the next century"])
def test_an_annotation_that_tells_of_no_pause_of_ours_is_put_right(journal: PauseJournal, at: float) -> None:
    seen = journal.recall(undone("a", at=at))
    assert (seen.pause, seen.is_stripped) == (PAUSED.pause, True)


def test_an_annotation_is_written_again_once_a_minute_at_the_most(journal: PauseJournal, clock: Clock) -> None:
    (again,) = plan.changes(PAUSE, opened(), Targets(OWNER, [Candidate(journal.recall(STRIPPED))]))
    assert (again.value, again.pause) == (0, PAUSED.pause)
    journal.made([again])
    assert plan.changes(PAUSE, opened(), Targets(OWNER, [Candidate(journal.recall(STRIPPED))])) == []
    clock.now += MEND_S
    assert len(plan.changes(PAUSE, opened(), Targets(OWNER, [Candidate(journal.recall(STRIPPED))]))) == 1


@pytest.mark.parametrize("is_applied", [True, False])
def test_an_annotation_that_is_written_again_is_nobodys_wish_for_0_where_we_own_no_replicas(
    journal: PauseJournal, *, is_applied: bool
) -> None:
    kept = replace(PAUSED, is_kept=True, is_applied=is_applied)
    assert journal.recall(kept).is_kept
    (again,) = plan.changes(PAUSE, opened(), Targets(OWNER, [Candidate(journal.recall(STRIPPED))]))
    journal.made([again])
    assert journal.recall(kept).is_kept is not is_applied


def test_what_comes_back_does_so_without_its_annotation_where_that_is_taken_away_at_once(
    journal: PauseJournal, clock: Clock
) -> None:
    (first,) = plan.changes(ALL_BACK, closed(), Targets(OWNER, [Candidate(journal.recall(STRIPPED))]))
    assert (first.value, first.pause) == (0, PAUSED.pause)
    journal.made([first])
    (back,) = plan.changes(ALL_BACK, closed(), Targets(OWNER, [Candidate(journal.recall(STRIPPED))]))
    assert (back.value, back.pause) == (3, None)
    clock.now += NOTED_S
    (again,) = plan.changes(ALL_BACK, closed(), Targets(OWNER, [Candidate(journal.recall(STRIPPED))]))
    assert (again.value, again.pause) == (0, PAUSED.pause), (
        "our own admission policy has refused it: perhaps somebody else took it away just then"
    )


def test_what_we_bring_back_ourselves_is_not_taken_for_forgotten(journal: PauseJournal) -> None:
    journal.made([Change(PAUSED, 3, pause=None)])
    assert journal.recall(STRIPPED) == STRIPPED


def test_what_was_let_go_stays_so_in_its_outage_and_no_other(journal: PauseJournal) -> None:
    outage = opened()
    journal.made([forgets(journal.recall(STRIPPED), released=outage.outage)])
    journal.begin(outage)
    assert journal.recall(STRIPPED).released == outage.outage
    journal.begin(unknown(900.0))
    assert journal.recall(STRIPPED).released == outage.outage, "nobody knows that it is over"
    journal.begin(closed())
    assert journal.recall(STRIPPED) == STRIPPED
