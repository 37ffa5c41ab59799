"""The status conditions, when they are written, and which changes emit an Event."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from openrouter_guard.rules.breaker import Closed
from openrouter_guard.rules.signals import OpenRouterState
from openrouter_operator.controller.reconcile import _since_before
from openrouter_operator.decisions import status as conditions
from openrouter_operator.decisions.events import Event, events
from openrouter_operator.decisions.goal import Goal, Step
from openrouter_operator.decisions.result import Overriding, ReconcileResult
from openrouter_operator.decisions.snapshot import ScopeSnapshot
from openrouter_operator.decisions.status import COUNTERS_S, UPSTREAM_S
from openrouter_operator.decisions.summary import (
    PROBLEMS_SHOWN,
    Failure,
    Problem,
    TargetSummary,
    no_match,
    not_pausable,
    not_watched,
    summary,
)
from openrouter_operator.decisions.targets import Candidate, Targets
from openrouter_operator.workloads.kinds import Trait
from openrouter_operator.workloads.workload import Contest, Workload
from tests.operator.samples import (
    NOW_S,
    OTHER,
    OWNER,
    candidates,
    closed,
    half_open,
    opened,
    paused,
    snapshot,
    spec,
    unknown,
    workload,
)

AT_NOW = "1970-01-01T00:16:40Z"
PAUSE = Goal(Step.PAUSE, "BreakerOpen")
CANARY = Goal(Step.CANARY, "BreakerHalfOpen")
RUNNING = Goal(Step.RESUME, "BreakerClosed", share=1.0)
HALF = Goal(Step.RESUME, "BreakerClosed", share=0.5)
NONE_PAUSED = TargetSummary(matched=3, able=3, paused=0, resuming=0, failed=0)
ALL_PAUSED = replace(NONE_PAUSED, paused=3)
COMING_BACK = replace(NONE_PAUSED, paused=1, resuming=2)

Status = dict[str, Any]


def a_round(
    seen: ScopeSnapshot | None = None, goal: Goal = RUNNING, summary: TargetSummary = NONE_PAUSED, **other: Any
) -> ReconcileResult:
    asked = other.pop("spec", spec())
    return ReconcileResult(generation=4, spec=asked, snapshot=seen or closed(), goal=goal, summary=summary, **other)


def status(now: ReconcileResult, old: Status | None = None) -> Status:
    return conditions.status(old or {}, now)


def said(now: ReconcileResult, kind: str) -> tuple[str, str, str]:
    found = next(c for c in status(now)["conditions"] if c["type"] == kind)
    return found["status"], found["reason"], found["message"]


def at(now: float, seen: ScopeSnapshot) -> ScopeSnapshot:
    return replace(seen, now=now, last_known_at=now)


IN_PEACE = a_round()
IN_AN_OUTAGE = a_round(opened(), PAUSE, ALL_PAUSED)
ON_TRIAL = a_round(half_open(), CANARY, replace(NONE_PAUSED, paused=2, resuming=1))
IN_THE_DARK = a_round(unknown(900.0), Goal(Step.KEEP, "StateUnknown"), ALL_PAUSED)

# -- counting -------------------------------------------------------------------------------------------------------


def count(
    *found: Workload | Candidate, failures: dict[str, Failure] | None = None, outage: str = ""
) -> TargetSummary:
    return summary(Targets(OWNER, candidates(*found)), outage, failures or {})


def test_each_workload_is_counted_for_what_it_is() -> None:
    found = count(
        paused("a"),
        paused("b", set_to=1),
        workload("c"),
        workload("d", replicas=0),
        workload("e", is_controlled=True),
        paused("f", owner=OTHER),
        Candidate(paused("g"), is_matched=False),
    )
    assert (found.matched, found.able, found.paused, found.resuming, found.failed) == (6, 3, 2, 1, 0)
    assert [(p.target, p.reason) for p in found.problems] == [
        ("Deployment/e", "ControlledByOwner"),
        ("Deployment/f", "PausedByOther"),
    ]


def test_being_at_zero_already_is_no_problem() -> None:
    assert count(workload(replicas=0)) == TargetSummary(matched=1, able=0, paused=0, resuming=0, failed=0)


def test_a_change_that_was_not_taken_is_a_problem_with_the_words_of_the_api_server() -> None:
    found = count(workload("a"), failures={"uid-of-a": Failure("Refused", "admission webhook says no")})
    assert found.failed == 1
    assert found.problems == (("Deployment/a", "Refused", "admission webhook says no"),)


def test_what_could_not_be_changed_is_named_before_what_is_left_alone() -> None:
    harmless = [workload(f"a{nth:02}", is_controlled=True) for nth in range(PROBLEMS_SHOWN + 5)]
    found = count(*harmless, workload("z"), failures={"uid-of-z": Failure("Refused", "the webhook says no")})
    assert found.problems[0] == ("Deployment/z", "Refused", "the webhook says no")
    assert said(a_round(summary=found), "Ready") == (
        "False", "TargetsFailed", "1 workload could not be changed; Deployment/z: the webhook says no",
    )  # fmt: skip
    assert status(a_round(summary=found))["problemCounts"] == {"ControlledByOwner": PROBLEMS_SHOWN + 5, "Refused": 1}


def test_what_admission_made_of_a_pause_is_told_with_what_comes_back() -> None:
    (problem,) = count(paused("a", 5, replicas=2, is_altered=True)).problems
    assert (problem.target, problem.reason) == ("Deployment/a", "ChangedByAdmission")
    assert "made 2 of the 0 pods" in problem.message
    assert "comes back with 5" in problem.message


def test_few_problems_need_no_count() -> None:
    assert "problemCounts" not in status(a_round(summary=count(workload("a", is_controlled=True))))


def test_a_target_that_matches_nothing_is_a_problem_an_event_and_makes_the_resource_unready() -> None:
    missing = no_match("spec.targets[0]", "there is no Deployment 'wroker' in namespace jobs")
    found = summary(Targets(OWNER, candidates(workload("a"))), "", {}, unmatched=[missing])
    ready, reason, message = said(a_round(summary=found), "Ready")
    assert (ready, reason) == ("False", "NoMatch")
    assert message.startswith("spec.targets[0]: there is no Deployment 'wroker' in namespace jobs: mend")
    assert [(e.type, e.reason) for e in events({}, status(a_round(summary=found)))] == [("Warning", "NoMatch")]


@pytest.mark.parametrize(
    ("problem", "expected"),
    [
        (
            not_pausable("apps/v1 DaemonSet"),
            "gives a DaemonSet no number of replicas, so it cannot be paused",
        ),
        (not_pausable("a.b/v1 Thing", "Thing.a.b has no scale"), "Thing.a.b has no scale, so it cannot be paused"),
    ],
)
def test_a_kind_without_replicas_is_told_from_one_that_is_not_there(problem: Problem, expected: str) -> None:
    ready = said(a_round(summary=summary(Targets(OWNER, []), "", {}, unwatched=[problem])), "Ready")
    assert ready[:2] == ("False", "KindNotPausable")
    assert expected in ready[2]


def test_a_resource_without_targets_says_that_it_only_shows_the_state() -> None:
    now = a_round(summary=TargetSummary(0, 0, 0, 0, 0), spec=spec(mode="Observe", targets=[]))
    assert said(now, "Ready") == ("True", "CarriedOut", "The state is shown; the spec names no workloads")


def test_a_resource_whose_workloads_are_all_left_alone_says_so() -> None:
    found = count(workload("a"), workload("b", labels={"app.kubernetes.io/part-of": "openrouter-guard"}))
    assert said(a_round(summary=found), "Ready")[2] == "1 workload running as before"
    found = count(workload("b", labels={"app.kubernetes.io/part-of": "openrouter-guard"}))
    assert said(a_round(summary=found), "Ready")[2] == "Nothing to pause: the matching workload is left alone"


def test_only_the_first_few_problems_are_shown_and_all_are_counted() -> None:
    names = [f"w{nth:02}" for nth in range(PROBLEMS_SHOWN + 5)]
    failures = {f"uid-of-{name}": Failure("Refused", "no") for name in names}
    found = count(*map(workload, reversed(names)), failures=failures)
    assert found.failed == len(names)
    assert [p.target for p in found.problems] == [f"Deployment/{name}" for name in names[:PROBLEMS_SHOWN]]


# -- the conditions -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        pytest.param(IN_PEACE, ("True", "CarriedOut"), id="in peace"),
        pytest.param(IN_AN_OUTAGE, ("True", "CarriedOut"), id="in an outage: it is not about OpenRouter"),
        pytest.param(IN_THE_DARK, ("Unknown", "StateUnknown"), id="not known while the state is not"),
        pytest.param(a_round(spec=spec(suspend=True)), ("True", "Suspended"), id="suspended"),
        pytest.param(
            a_round(summary=TargetSummary(0, 0, 0, 0, 0)), ("True", "NoTargets"), id="with targets that match nothing"
        ),
        pytest.param(
            a_round(summary=TargetSummary(0, 0, 0, 0, 0), spec=spec(mode="Observe", targets=[])),
            ("True", "CarriedOut"), id="without targets at all",
        ),
        pytest.param(
            a_round(opened(), PAUSE, replace(NONE_PAUSED, paused=2, failed=1)),
            ("False", "TargetsFailed"), id="not while one workload cannot be changed",
        ),
        pytest.param(a_round(invalid="spec.mode: no"), ("False", "InvalidSpec"), id="not with an invalid spec"),
    ],
)  # fmt: skip
def test_ready_tells_whether_the_spec_is_carried_out(now: ReconcileResult, expected: tuple[str, str]) -> None:
    assert said(now, "Ready")[:2] == expected


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        pytest.param(IN_PEACE, ("True", "BreakerClosed"), id="in peace"),
        pytest.param(IN_AN_OUTAGE, ("False", "BreakerOpen"), id="in an outage"),
        pytest.param(ON_TRIAL, ("False", "BreakerHalfOpen"), id="on trial"),
        pytest.param(IN_THE_DARK, ("Unknown", "StateUnknown"), id="in the dark"),
        pytest.param(
            a_round(snapshot(Closed(), rate_limit_reset_at=NOW_S + 1)), ("False", "RateLimited"), id="rate limited"
        ),
        pytest.param(
            a_round(snapshot(Closed(), rate_limit_reset_at=NOW_S)), ("True", "BreakerClosed"), id="no longer limited"
        ),
    ],
)
def test_upstream_available_tells_whether_calls_go_through(now: ReconcileResult, expected: tuple[str, str]) -> None:
    assert said(now, "UpstreamAvailable")[:2] == expected


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        pytest.param(IN_PEACE, ("False", "BreakerClosed", "No workload is paused"), id="nothing"),
        pytest.param(IN_AN_OUTAGE, ("True", "BreakerOpen", "3 of 3 workloads paused"), id="everything"),
        pytest.param(
            ON_TRIAL,
            ("True", "BreakerHalfOpen", "2 workloads paused, 1 with one pod that tests the upstream"), id="a canary",
        ),
        pytest.param(
            a_round(closed(), HALF, COMING_BACK),
            ("True", "BreakerClosed", "3 workloads coming back, at 50% of their pods"), id="a step",
        ),
        pytest.param(
            IN_THE_DARK, ("True", "StateUnknown", "3 workloads still paused (StateUnknown)"), id="kept in the dark"
        ),
    ],
)  # fmt: skip
def test_paused_tells_what_is_paused_and_why(now: ReconcileResult, expected: tuple[str, str, str]) -> None:
    assert said(now, "Paused") == expected


def test_reconciling_lasts_until_the_goal_is_reached_and_all_is_back() -> None:
    assert said(IN_AN_OUTAGE, "Reconciling")[:2] == ("False", "Done")
    assert said(a_round(opened(), PAUSE, NONE_PAUSED, is_settled=False), "Reconciling")[:2] == ("True", "InProgress")
    assert said(a_round(closed(), HALF, COMING_BACK), "Reconciling")[:2] == ("True", "InProgress")


def test_stalled_waits_for_somebody_to_mend_the_spec() -> None:
    assert said(a_round(invalid="spec.mode: no"), "Stalled") == ("True", "InvalidSpec", "spec.mode: no")
    assert said(IN_THE_DARK, "Stalled")[0] == "False"


def test_state_fresh_tells_whether_nobody_has_reported_or_redis_is_away() -> None:
    assert said(IN_PEACE, "StateFresh") == ("True", "Read", "The state of scope 'default' is read from Redis")
    assert said(IN_THE_DARK, "StateFresh") == ("False", "Unreadable", "Redis is away")
    nobody = replace(unknown(900.0), error="")
    assert said(a_round(nobody), "StateFresh")[:2] == ("False", "NotReported")


def test_a_condition_keeps_its_time_until_its_status_changes() -> None:
    before = status(IN_AN_OUTAGE)
    after = status(a_round(at(NOW_S + 9, half_open()), CANARY, ALL_PAUSED), before)
    times = {c["type"]: c["lastTransitionTime"] for c in after["conditions"]}
    assert times["UpstreamAvailable"] == AT_NOW, "False as before, for another reason"
    later = status(replace(IN_PEACE, snapshot=at(NOW_S + 99, closed())), after)
    assert (
        next(c for c in later["conditions"] if c["type"] == "Paused")["lastTransitionTime"] == "1970-01-01T00:18:19Z"
    )


def test_conditions_are_dated_by_the_clock_that_a_process_knows_from_its_start() -> None:
    told = status(a_round(unknown(900.0), dated_at=5_000.0))
    assert conditions.unknown_since(told) == 5_000.0


@pytest.mark.parametrize("redis_s", [-3_600.0, 0.0, 3_600.0], ids=["an hour behind", "right", "an hour ahead"])
def test_by_whichever_clock_somebody_reads_the_state_is_unknown_for_as_long(redis_s: float) -> None:
    told = status(a_round(unknown(900.0), dated_at=5_000.0))
    now = 5_100.0 + redis_s
    seen = replace(unknown(now), now=now)
    assert _since_before(seen, told, 5_100.0).last_known_at == now - 100.0


def test_the_state_is_unknown_since_somebody_wrote_that_down() -> None:
    assert conditions.unknown_since(status(IN_THE_DARK)) == NOW_S
    assert conditions.unknown_since(status(IN_PEACE)) is None
    assert conditions.unknown_since({}) is None


# -- the rest of the status -----------------------------------------------------------------------------------------


def test_what_was_told_of_a_rollout_is_known_to_the_next_process() -> None:
    rolling = Candidate(replace(workload("a"), traits=frozenset({Trait.ROLLING})))
    told = status(a_round(opened(), PAUSE, count(rolling, workload("b", 0), paused("c", 5))))
    assert conditions.rolling(told) == {"Deployment/a"}
    assert conditions.rolling({}) == frozenset()


def test_the_columns_of_kubectl_get() -> None:
    found = status(IN_AN_OUTAGE)
    assert found["observedGeneration"] == 4
    assert found["upstream"] == {"state": "active", "message": "No call has been made yet"}
    assert found["breaker"] == {
        "state": "open",
        "reason": "timeout",
        "failures": 5,
        "since": "1970-01-01T00:15:00Z",
        "openedAt": "1970-01-01T00:15:00Z",
        "retryAt": "1970-01-01T00:17:00Z",
        "epoch": 7,
    }
    assert found["targets"] == {
        "matched": 3, "paused": 3, "resuming": 0, "skipped": 0, "failed": 0, "summary": "3/3",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        pytest.param(unknown(900.0), "unknown", id="what was never known"),
        pytest.param(unknown(900.0, record=opened().record), "unknown", id="what is no longer known"),
        pytest.param(opened(until=NOW_S), "half_open", id="open until a time that has passed"),
        pytest.param(half_open(), "half_open", id="half-open"),
        pytest.param(closed(), "closed", id="closed"),
    ],
)
def test_the_breaker_is_shown_as(seen: ScopeSnapshot, expected: str) -> None:
    shown = status(a_round(seen))["breaker"]
    assert shown["state"] == expected
    assert "retryAt" not in shown or expected == "unknown"


def test_a_rate_limit_is_shown_as_long_as_it_stands() -> None:
    limited = snapshot(Closed(), rate_limit_reset_at=NOW_S + 1, state=OpenRouterState.RATE_LIMITED)
    assert status(a_round(limited))["upstream"]["rateLimitReset"] == "1970-01-01T00:16:41+00:00"
    assert "rateLimitReset" not in status(a_round(at(NOW_S + 1, limited)))["upstream"]


def test_the_last_pause_and_the_last_resume_say_when_why_and_how_long() -> None:
    seen = status(IN_PEACE)
    assert "lastPause" not in seen
    seen = status(a_round(at(1_000, opened()), PAUSE, replace(NONE_PAUSED, paused=1)), seen)
    assert seen["lastPause"] == {"startedAt": AT_NOW, "reason": "timeout"}
    seen = status(a_round(at(1_004, opened()), PAUSE, ALL_PAUSED), seen)
    assert seen["lastPause"]["durationSeconds"] == 4
    seen = status(a_round(at(1_010, half_open()), CANARY, replace(NONE_PAUSED, paused=2, resuming=1)), seen)
    assert "lastResume" not in seen
    seen = status(a_round(at(1_020, closed()), HALF, COMING_BACK), seen)
    assert seen["lastResume"] == {"startedAt": "1970-01-01T00:17:00Z", "reason": "BreakerClosed"}
    seen = status(a_round(at(1_050, closed()), RUNNING, NONE_PAUSED), seen)
    assert seen["lastResume"]["durationSeconds"] == 30
    assert seen["lastPause"] == {"startedAt": AT_NOW, "reason": "timeout", "durationSeconds": 4}


# -- whether it is worth a write ------------------------------------------------------------------------------------


def with_failures(number: int) -> Status:
    return status(a_round(snapshot(Closed(failures=number))))


def limited_until(reset_s: float) -> Status:
    return status(a_round(snapshot(Closed(), rate_limit_reset_at=reset_s, state=OpenRouterState.RATE_LIMITED)))


@pytest.mark.parametrize(
    ("old", "new", "since_write_s", "expected"),
    [
        pytest.param(status(IN_PEACE), status(IN_PEACE), 1e9, False, id="what is the same never"),
        pytest.param({}, status(IN_PEACE), 0, True, id="the first one at once"),
        pytest.param(status(IN_PEACE), status(IN_AN_OUTAGE), 0, True, id="a transition at once"),
        pytest.param(with_failures(0), with_failures(3), COUNTERS_S - 1, False, id="counters not soon"),
        pytest.param(with_failures(0), with_failures(3), COUNTERS_S, True, id="but after a while"),
        pytest.param(
            limited_until(1_100), limited_until(1_101), UPSTREAM_S - 1, False,
            id="not each 429 that moves the end of a rate limit",
        ),
        pytest.param(limited_until(1_100), limited_until(1_101), UPSTREAM_S, True, id="but the latest in a moment"),
        pytest.param(limited_until(0), limited_until(1_100), 0, True, id="the beginning of a rate limit at once"),
    ],
)  # fmt: skip
def test_it_is_written(old: Status, new: Status, since_write_s: float, *, expected: bool) -> None:
    assert conditions.differs(old, new, since_write_s=since_write_s) is expected


# -- events ---------------------------------------------------------------------------------------------------------


def told(old: ReconcileResult, new: ReconcileResult) -> list[tuple[str, str]]:
    before = status(old)
    return [(event.type, event.reason) for event in events(before, status(new, before))]


@pytest.mark.parametrize("now", [IN_PEACE, IN_AN_OUTAGE, ON_TRIAL, IN_THE_DARK], ids=lambda now: now.goal.reason)
def test_what_goes_on_is_not_told_again(now: ReconcileResult) -> None:
    assert told(now, now) == []


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        pytest.param(IN_PEACE, IN_AN_OUTAGE, [("Warning", "BreakerOpened"), ("Normal", "Pausing")], id="an outage"),
        pytest.param(IN_AN_OUTAGE, ON_TRIAL, [("Normal", "BreakerHalfOpen")], id="a trial"),
        pytest.param(
            ON_TRIAL, a_round(closed(), HALF, COMING_BACK), [("Normal", "BreakerClosed"), ("Normal", "Resuming")],
            id="a good end",
        ),
        pytest.param(
            ON_TRIAL, IN_AN_OUTAGE, [("Warning", "BreakerOpened"), ("Normal", "PausedAgain")], id="a bad end",
        ),
        pytest.param(
            a_round(closed(), HALF, COMING_BACK), IN_AN_OUTAGE,
            [("Warning", "BreakerOpened"), ("Normal", "PausedAgain")], id="an outage before all is back",
        ),
        pytest.param(
            IN_AN_OUTAGE, a_round(opened(), Goal(Step.RESUME, "MaxPause", share=0.25), COMING_BACK),
            [("Normal", "Resuming")], id="it took too long",
        ),
        pytest.param(IN_PEACE, a_round(invalid="no"), [("Warning", "InvalidSpec")], id="a mistake"),
        pytest.param(
            IN_PEACE, a_round(override=Overriding(None, Failure("OverrideNotAllowed", "no"))),
            [("Warning", "OverrideNotAllowed")], id="a wish that is not granted",
        ),
        pytest.param(a_round(closed(), HALF, COMING_BACK), IN_PEACE, [("Normal", "Resumed")], id="all is back"),
        pytest.param(IN_AN_OUTAGE, IN_THE_DARK, [("Warning", "StateUnknown")], id="Redis goes"),
        pytest.param(IN_THE_DARK, IN_AN_OUTAGE, [("Normal", "StateKnown")], id="Redis comes back"),
    ],
)  # fmt: skip
def test_a_transition_is_told_once(
    old: ReconcileResult, new: ReconcileResult, expected: list[tuple[str, str]]
) -> None:
    assert told(old, new) == expected


def test_the_first_status_of_a_resource_tells_nothing() -> None:
    assert events({}, status(IN_PEACE)) == []


def test_a_new_problem_is_told_and_an_old_one_is_not() -> None:
    one = replace(NONE_PAUSED, problems=(Problem("Deployment/a", "Refused", "no"),))
    two = replace(one, problems=(*one.problems, Problem("Deployment/b", "Refused", "no")))
    before = status(a_round(summary=one))
    assert events({}, before) == [Event("Warning", "Refused", "Deployment/a: no")]
    assert events(before, status(a_round(summary=two), before)) == [Event("Warning", "Refused", "Deployment/b: no")]


# -- progress -------------------------------------------------------------------------------------------------------


def test_the_status_tells_in_pods_how_far_it_has_come() -> None:
    goal = Goal(Step.RESUME, "BreakerClosed", share=0.25, next_at=NOW_S + 15)
    counted = count(paused("a", 8, set_to=2), paused("b", 4, set_to=1))
    found = status(a_round(closed(), goal, counted))
    assert found["progress"] == {
        "step": "resume", "reason": "BreakerClosed", "pods": 3, "originalPods": 12, "nextAt": "1970-01-01T00:16:55Z",
    }  # fmt: skip


def test_with_nothing_paused_there_is_no_progress_to_tell() -> None:
    assert "progress" not in status(IN_PEACE)


# -- what the user has to mend --------------------------------------------------------------------------------------


def contested(times: int) -> Workload:
    found = paused()
    assert found.pause is not None
    return replace(found, pause=replace(found.pause, contest=Contest(times, NOW_S, "argocd")))


def test_a_fight_over_a_pause_is_not_ready_and_names_the_other_one() -> None:
    now = a_round(opened(), PAUSE, count(contested(3)))
    state, reason, message = said(now, "Ready")
    assert (state, reason) == ("False", "Contested")
    assert "'argocd' undoes its pause, put back 3 times" in message
    assert status(now)["targets"]["contested"] == 1


def test_a_kind_that_nobody_watches_is_not_ready_and_says_where_to_add_it() -> None:
    counted = summary(Targets(OWNER, []), "", {}, unwatched=[not_watched("ReplicaSet")])
    state, reason, message = said(a_round(summary=counted), "Ready")
    assert (state, reason) == ("False", "KindNotWatched")
    assert "operator.kinds" in message


def test_a_dry_run_is_ready_and_says_what_it_would_do() -> None:
    now = a_round(opened(), PAUSE, spec=spec(dryRun=True), would=("Deployment/a: from 3 to 0",))
    assert said(now, "Ready")[:2] == ("True", "DryRun")
    assert status(now)["wouldChange"] == ["Deployment/a: from 3 to 0"]


def test_a_breaker_that_flaps_is_said_to() -> None:
    now = a_round(closed(), Goal(Step.CANARY, "Flapping"), ALL_PAUSED)
    assert said(now, "Paused")[:2] == ("True", "Flapping")
    assert "too often in vain; to go on now, write override ForceClosed" in said(now, "Paused")[2]
    assert status(now)["targets"]["summary"] == "3/3 Flapping"
    told = events(status(IN_AN_OUTAGE), status(now))
    assert ("Warning", "Flapping") in [(event.type, event.reason) for event in told]
    assert "Flapping" not in [event.reason for event in events(status(now), status(now))]


def test_a_damaged_annotation_is_told_before_what_is_harmless() -> None:
    damaged = workload("z", 0, damage="its annotation cannot be read")
    now = a_round(closed(), RUNNING, count(workload("a", is_controlled=True), damaged))
    assert [each["reason"] for each in status(now)["problems"]] == ["AnnotationDamaged", "ControlledByOwner"]
    state, reason, message = said(now, "Ready")
    assert (state, reason) == ("False", "AnnotationDamaged")
    assert message.startswith("Deployment/z: its annotation cannot be read")
