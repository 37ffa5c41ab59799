"""Every kind of workload: where it stores its number of replicas, and when it is left alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from openrouter_operator.decisions import plan
from openrouter_operator.decisions.goal import Goal, Step
from openrouter_operator.decisions.targets import Candidate, Skip, Targets, skip
from openrouter_operator.resource.spec import Options
from openrouter_operator.workloads.kinds import BY_NAME, Kind, Trait, UnusableKind, Value, from_crd
from openrouter_operator.workloads.workload import PAUSED, RELEASED, Workload, restored
from tests.operator.samples import NOW_S, OWNER, closed, half_open, opened

KEDA = "autoscaling.keda.sh"
PAUSE = Goal(Step.PAUSE, "BreakerOpen")
CANARY = Goal(Step.CANARY, "BreakerHalfOpen")
ALL_BACK = Goal(Step.RESUME, "BreakerClosed", share=1.0)
HOLD = Options(holds=True)


def crd(path: str = ".spec.replicas", **scale: Any) -> dict[str, Any]:
    """The CRD of a Rollout."""
    versions: list[dict[str, Any]] = [
        {"name": "v1", "served": True, "storage": True, "subresources": {"scale": {"specReplicasPath": path} | scale}}
    ]
    names = {"kind": "Rollout", "plural": "rollouts"}
    return {"spec": {"group": "argoproj.io", "scope": "Namespaced", "names": names, "versions": versions}}


ROLLOUT = from_crd(crd())
SIZED = from_crd(crd(".spec.pool.size"))


def found(kind: Kind, spec: dict[str, Any] | None = None, **more: Any) -> Workload:
    """A worker of the kind, as the API server shows it."""
    named = {"name": "a", "namespace": "jobs", "uid": "u", "resourceVersion": "1"}
    body = {"kind": kind.name, "spec": spec or {}, "status": more.pop("status", {}), "metadata": named | more}
    return Workload.of(kind, body)


def patched(workload: Workload, patch: dict[str, Any]) -> Workload:
    """The workload after the patch, as read again."""
    body: dict[str, Any] = {"metadata": {"name": "a", "namespace": "jobs", "uid": "u"}, "spec": {}}
    body["metadata"]["annotations"] = {k: v for k, v in patch["metadata"]["annotations"].items() if v is not None}
    body["metadata"]["resourceVersion"] = "2"
    body["spec"] = patch.get("spec", {})
    return Workload.of(workload.kind, body)


# -- pausing and restoring ------------------------------------------------------------------------------------------

SAMPLES = [
    pytest.param(BY_NAME["Deployment"], {"replicas": 3}, {"spec": {"replicas": 0}}, 3, id="Deployment"),
    pytest.param(BY_NAME["StatefulSet"], {"replicas": 3}, {"spec": {"replicas": 0}}, 3, id="StatefulSet"),
    pytest.param(BY_NAME["ReplicaSet"], {"replicas": 3}, {"spec": {"replicas": 0}}, 3, id="ReplicaSet"),
    pytest.param(
        BY_NAME["ReplicationController"], {"replicas": 3}, {"spec": {"replicas": 0}}, 3, id="ReplicationController"
    ),
    pytest.param(BY_NAME["CronJob"], {"suspend": False}, {"spec": {"suspend": True}}, False, id="CronJob"),
    pytest.param(BY_NAME["CronJob"], {}, {"spec": {"suspend": True}}, None, id="CronJob that says nothing"),
    pytest.param(BY_NAME["Job"], {"suspend": False}, {"spec": {"suspend": True}}, False, id="Job"),
    pytest.param(ROLLOUT, {"replicas": 3}, {"spec": {"replicas": 0}}, 3, id="a kind by its scale subresource"),
    pytest.param(ROLLOUT, {}, {"spec": {"replicas": 0}}, None, id="... that leaves the number out"),
    pytest.param(
        SIZED, {"pool": {"size": 5}}, {"spec": {"pool": {"size": 0}}}, 5, id="... that keeps it somewhere else"
    ),
    pytest.param(
        BY_NAME["ScaledObject"], {},
        {"annotations": {f"{KEDA}/paused-replicas": "0", f"{KEDA}/paused": None}}, None, id="ScaledObject",
    ),
    pytest.param(BY_NAME["ScaledJob"], {}, {"annotations": {f"{KEDA}/paused": "true"}}, None, id="ScaledJob"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "spec", "written", "original"), SAMPLES)
def test_pausing_writes_what_stops_the_kind_and_remembers_what_was_there(
    kind: Kind, spec: dict[str, Any], written: dict[str, Any], original: Value
) -> None:
    (change,) = plan.changes(PAUSE, opened(), Targets(OWNER, [Candidate(found(kind, spec))]))
    patch = change.patch()
    annotations = patch["metadata"]["annotations"]
    assert annotations.pop(PAUSED) is not None
    assert annotations.pop(RELEASED) is None
    assert patch.get("spec") == written.get("spec")
    assert annotations == written.get("annotations", {})
    assert change.pause is not None
    assert change.pause.original == original


@pytest.mark.parametrize(("kind", "spec", "written", "original"), SAMPLES)
def test_what_was_paused_is_read_as_paused_and_comes_back_as_it_was(
    kind: Kind, spec: dict[str, Any], written: dict[str, Any], original: Value
) -> None:
    before = found(kind, spec)
    (change,) = plan.changes(PAUSE, opened(), Targets(OWNER, [Candidate(before)]))
    after = patched(before, change.patch())
    assert after.is_as_we_set_it
    assert (after.pods, after.original_pods) == (0, before.pods)
    (back,) = plan.changes(ALL_BACK, closed(), Targets(OWNER, [Candidate(after)]))
    again = patched(after, back.patch())
    assert (again.value, again.pause) == (original, None)
    assert restored(after) == back


@pytest.mark.parametrize(
    ("kind", "spec", "annotations"),
    [
        pytest.param("CronJob", {"suspend": True}, {}, id="a CronJob that its owner has suspended"),
        pytest.param("Job", {"suspend": True}, {}, id="a suspended Job"),
        pytest.param("StatefulSet", {"replicas": 0}, {}, id="a StatefulSet at zero"),
        pytest.param("ScaledObject", {}, {f"{KEDA}/paused-replicas": "0"}, id="a ScaledObject that is paused"),
        pytest.param("ScaledObject", {}, {f"{KEDA}/paused-replicas": "2"}, id="... at some pods"),
        pytest.param("ScaledObject", {}, {f"{KEDA}/paused": "true"}, id="... or held"),
        pytest.param("ScaledObject", {}, {f"{KEDA}/paused": "perhaps"}, id="... by a text that is no truth value"),
        pytest.param("ScaledJob", {}, {f"{KEDA}/paused": "true"}, id="a ScaledJob that is paused"),
        pytest.param("ScaledJob", {}, {f"{KEDA}/paused": ""}, id="... by an empty text"),
    ],
)
def test_what_its_owner_has_paused_stays_so(kind: str, spec: dict[str, Any], annotations: dict[str, str]) -> None:
    theirs = Candidate(found(BY_NAME[kind], spec, annotations=annotations))
    for goal, seen in ((PAUSE, opened()), (CANARY, half_open()), (ALL_BACK, closed())):
        assert plan.changes(goal, seen, Targets(OWNER, [theirs])) == []


@pytest.mark.parametrize("word", ["0", "f", "F", "false", "FALSE", "False"])
@pytest.mark.parametrize("kind", ["ScaledObject", "ScaledJob"])
def test_what_keda_takes_for_not_paused_is_paused_and_given_back_as_its_owner_wrote_it(kind: str, word: str) -> None:
    before = found(BY_NAME[kind], {}, annotations={f"{KEDA}/paused": word})
    (change,) = plan.changes(PAUSE, opened(), Targets(OWNER, [Candidate(before)]))
    after = patched(before, change.patch())
    assert (before.pods, after.pods, after.is_as_we_set_it) == (1, 0, True)
    (back,) = plan.changes(ALL_BACK, closed(), Targets(OWNER, [Candidate(after)]))
    written = back.patch()["metadata"]["annotations"]
    assert (written[f"{KEDA}/paused"], written.get(f"{KEDA}/paused-replicas")) == (word, None)
    assert patched(after, back.patch()).value == before.value


def test_a_cron_job_is_changed_in_nothing_but_its_suspension() -> None:
    spec = {"suspend": False, "schedule": "*/5 * * * *", "startingDeadlineSeconds": 200}
    (change,) = plan.changes(PAUSE, opened(), Targets(OWNER, [Candidate(found(BY_NAME["CronJob"], spec))]))
    assert change.patch()["spec"] == {"suspend": True}


# -- in steps -------------------------------------------------------------------------------------------------------


def pause_of(*before: Candidate) -> list[Candidate]:
    changes = {c.workload.name: c for c in plan.changes(PAUSE, opened(), Targets(OWNER, before))}
    return [
        replace(c, workload=replace(patched(c.workload, changes[c.workload.name].patch()), name=c.workload.name))
        if c.workload.name in changes
        else c
        for c in before
    ]


def named(workload: Workload, name: str) -> Workload:
    return replace(workload, name=name, uid=f"uid-of-{name}")


def test_a_scaled_object_comes_back_in_steps_of_the_pods_that_were_there() -> None:
    scaled = Candidate(found(BY_NAME["ScaledObject"]), pods_behind=8)
    (held,) = pause_of(scaled)
    (step,) = plan.changes(Goal(Step.RESUME, "BreakerClosed", share=0.25), closed(), Targets(OWNER, [held]))
    assert step.patch()["metadata"]["annotations"][f"{KEDA}/paused-replicas"] == "2"
    (canary,) = plan.changes(CANARY, half_open(), Targets(OWNER, [held]))
    assert canary.patch()["metadata"]["annotations"][f"{KEDA}/paused-replicas"] == "1"


def test_one_who_unpauses_a_scaled_object_during_its_canary_is_respected() -> None:
    (held,) = pause_of(Candidate(found(BY_NAME["ScaledObject"]), pods_behind=8))
    (canary,) = plan.changes(CANARY, half_open(), Targets(OWNER, [held]))
    running = replace(held, workload=replace(patched(held.workload, canary.patch()), value=None))
    (change,) = plan.changes(PAUSE, opened(), Targets(OWNER, [running]))
    assert (change.pause, change.is_written, change.released != "") == (None, False, True)


@pytest.mark.parametrize("kind", ["CronJob", "Job", "ScaledJob"])
def test_what_has_no_pods_to_ask_for_is_no_canary(kind: str) -> None:
    (stopped,) = pause_of(Candidate(found(BY_NAME[kind])))
    assert plan.changes(CANARY, half_open(), Targets(OWNER, [stopped])) == []


# -- held -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "spec", "value"),
    [
        pytest.param("CronJob", {"suspend": False}, True, id="CronJobs are suspended"),
        pytest.param("Job", {"suspend": False}, True, id="so are Jobs without pods"),
        pytest.param("ScaledObject", {}, "held", id="objects of KEDA keep the pods that they have"),
        pytest.param("ScaledJob", {}, "true", id="or start nothing new"),
        pytest.param("Deployment", {"replicas": 3}, None, id="Deployments stay as they are"),
        pytest.param("StatefulSet", {"replicas": 3}, None, id="and so do StatefulSets"),
    ],
)
def test_holding(kind: str, spec: dict[str, Any], value: Value) -> None:
    changes = plan.changes(PAUSE, opened(), Targets(OWNER, [Candidate(found(BY_NAME[kind], spec), options=HOLD)]))
    assert [change.value for change in changes] == ([] if value is None else [value])


def test_a_held_scaled_object_is_marked_as_keda_reads_it() -> None:
    (change,) = plan.changes(
        PAUSE, opened(), Targets(OWNER, [Candidate(found(BY_NAME["ScaledObject"]), options=HOLD)])
    )
    annotations = change.patch()["metadata"]["annotations"]
    assert (annotations[f"{KEDA}/paused"], annotations[f"{KEDA}/paused-replicas"]) == ("true", None)


def test_what_was_scaled_down_comes_back_when_the_mode_becomes_hold() -> None:
    (down,) = pause_of(Candidate(found(BY_NAME["Deployment"], {"replicas": 3})))
    (change,) = plan.changes(PAUSE, opened(), Targets(OWNER, [replace(down, options=HOLD)]))
    assert (change.value, change.pause) == (3, None)


def test_what_was_held_is_scaled_down_when_the_mode_becomes_scale_down() -> None:
    scaled = Candidate(found(BY_NAME["ScaledObject"]), options=HOLD)
    (held,) = pause_of(scaled)
    assert held.workload.value == "held"
    (change,) = plan.changes(PAUSE, opened(), Targets(OWNER, [replace(held, options=Options())]))
    assert change.value == "0"


# -- left alone -----------------------------------------------------------------------------------------------------

RETAIN = {"persistentVolumeClaimRetentionPolicy": {"whenScaled": "Retain", "whenDeleted": "Delete"}}
DELETE = {"persistentVolumeClaimRetentionPolicy": {"whenScaled": "Delete"}}
RUNNING = {"active": 1}
COMPLETE = {"conditions": [{"type": "Complete", "status": "True"}]}
CRON_RUN = found(BY_NAME["Job"], ownerReferences=[{"kind": "CronJob", "controller": True}])
QUEUED = {"kueue.x-k8s.io/queue-name": "gpu"}


@pytest.mark.parametrize(
    ("candidate", "reason"),
    [
        pytest.param(Candidate(found(BY_NAME["StatefulSet"], RETAIN)), "", id="volumes that are kept"),
        pytest.param(Candidate(found(BY_NAME["StatefulSet"], DELETE)), "WouldDeleteVolumes", id="volumes would go"),
        pytest.param(
            Candidate(found(BY_NAME["StatefulSet"], DELETE), options=Options(allow_volume_deletion=True)),
            "", id="unless that is allowed",
        ),
        pytest.param(Candidate(found(BY_NAME["Job"], status=RUNNING)), "", id="a running Job is suspended"),
        pytest.param(
            Candidate(found(BY_NAME["Job"], status=RUNNING), options=HOLD), "HasActivePods", id="but not in Hold"
        ),
        pytest.param(Candidate(found(BY_NAME["Job"], status=COMPLETE)), "Finished", id="a Job that is done"),
        pytest.param(Candidate(CRON_RUN), "StartedByCronJob", id="a Job of a CronJob"),
        pytest.param(Candidate(CRON_RUN, options=Options(takes_cron_runs=True)), "", id="unless the target takes it"),
        pytest.param(
            Candidate(found(BY_NAME["Job"], ownerReferences=[{"kind": "Workflow", "controller": True}])),
            "ControlledByOwner", id="a Job of another controller",
        ),
        pytest.param(Candidate(found(BY_NAME["Job"], labels=QUEUED)), "ManagedByKueue", id="a Job in a queue"),
        pytest.param(Candidate(found(BY_NAME["Deployment"], labels=QUEUED)), "ManagedByKueue", id="or a Deployment"),
        pytest.param(Candidate(found(ROLLOUT, {"paused": True})), "OwnerPaused", id="a paused Rollout"),
        pytest.param(Candidate(found(BY_NAME["Deployment"]), is_kedas=True), "ScaledByKeda", id="what KEDA scales"),
    ],
)  # fmt: skip
def test_it_is_left_alone(candidate: Candidate, reason: str) -> None:
    why = skip(candidate, OWNER, "")
    assert (why.reason if why else "") == reason


# -- a floor --------------------------------------------------------------------------------------------------------


def floored(replicas: int, floor: int, **more: Any) -> Candidate:
    deployment = found(BY_NAME["Deployment"], {"replicas": replicas})
    return Candidate(deployment, options=Options(paused_replicas=floor), **more)


def test_a_floor_of_pods_runs_on() -> None:
    (change,) = plan.changes(PAUSE, opened(), Targets(OWNER, [floored(5, 2)]))
    assert change.value == 2
    (down,) = pause_of(floored(5, 2))
    assert plan.changes(PAUSE, opened(), Targets(OWNER, [down])) == []
    assert plan.changes(CANARY, half_open(), Targets(OWNER, [down])) == [], "what runs is the canary"
    (back,) = plan.changes(ALL_BACK, closed(), Targets(OWNER, [down]))
    assert back.value == 5


@pytest.mark.parametrize(("floor", "expected"), [(3, 3), (9, 5), (0, 0)], ids=["higher", "above all", "lower"])
def test_a_floor_that_is_edited_during_the_pause_counts_at_once(floor: int, expected: int) -> None:
    (down,) = pause_of(floored(5, 2))
    (change,) = plan.changes(PAUSE, opened(), Targets(OWNER, [replace(down, options=Options(paused_replicas=floor))]))
    assert change.value == expected


@pytest.mark.parametrize(
    ("candidate", "reason"),
    [
        pytest.param(floored(2, 2), "AtItsFloor", id="nothing to take away"),
        pytest.param(floored(1, 2), "AtItsFloor", id="fewer than the floor already"),
        pytest.param(
            floored(5, 1, has_autoscaler=True, autoscaler_min=2), "BelowAutoscaler", id="an autoscaler would undo it"
        ),
        pytest.param(floored(5, 2, has_autoscaler=True, autoscaler_min=2), "", id="its own minimum stands"),
        pytest.param(floored(5, 0, has_autoscaler=True, autoscaler_min=2), "", id="at 0 it gives up by itself"),
    ],
)
def test_with_a_floor(candidate: Candidate, reason: str) -> None:
    why = skip(candidate, OWNER, "")
    assert (why.reason if why else "") == reason


def test_an_autoscaler_that_moves_pods_above_the_floor_is_no_person() -> None:
    (down,) = pause_of(floored(9, 2, has_autoscaler=True, autoscaler_min=2))
    moved = replace(down, workload=replace(down.workload, value=4))
    assert plan.changes(PAUSE, opened(), Targets(OWNER, [moved])) == []
    (back,) = plan.changes(ALL_BACK, closed(), Targets(OWNER, [moved]))
    assert (back.value, back.pause) == (9, None)


def test_a_person_beside_an_autoscaler_is_a_person() -> None:
    (down,) = pause_of(floored(9, 2, has_autoscaler=True, autoscaler_min=2))
    moved = replace(down, workload=replace(down.workload, value=4, is_by_hand=True))
    (change,) = plan.changes(PAUSE, opened(), Targets(OWNER, [moved]))
    assert (change.pods, change.pause, change.released) == (None, None, opened().outage)


# -- what matters less ----------------------------------------------------------------------------------------------


def ranked(name: str, priority: int, replicas: int = 4) -> Candidate:
    deployment = named(found(BY_NAME["Deployment"], {"replicas": replicas}), name)
    return Candidate(deployment, options=Options(priority=priority))


def test_what_matters_less_is_paused_first_and_comes_back_last() -> None:
    mixed = [ranked("main", 10), ranked("batch", -10), ranked("other", 0)]
    paused = plan.changes(PAUSE, opened(), Targets(OWNER, mixed))
    assert [(c.workload.name, c.rank) for c in paused] == [("batch", -10), ("other", 0), ("main", 10)]
    back = plan.changes(ALL_BACK, closed(), Targets(OWNER, pause_of_all(mixed)))
    assert [c.workload.name for c in back] == ["main", "other", "batch"]


def test_steps_fill_what_matters_most_first() -> None:
    mixed = pause_of_all([ranked("a", 0, 4), ranked("b", 0, 4), ranked("main", 10, 4)])

    def step(share: float) -> dict[str, int | None]:
        made = plan.changes(Goal(Step.RESUME, "BreakerClosed", share=share), closed(), Targets(OWNER, mixed))
        return {change.workload.name: change.pods for change in made}

    assert step(0.25) == {"main": 3}
    assert step(0.5) == {"main": 4, "a": 1, "b": 1}


def test_the_canary_is_of_what_matters_most() -> None:
    mixed = pause_of_all([ranked("a", 0), ranked("main", 10)])
    (canary,) = plan.changes(CANARY, half_open(), Targets(OWNER, mixed))
    assert (canary.workload.name, canary.value) == ("main", 1)


def pause_of_all(candidates: list[Candidate]) -> list[Candidate]:
    def paused(candidate: Candidate) -> Candidate:
        (change,) = plan.changes(PAUSE, opened(), Targets(OWNER, [candidate]))
        assert change.pause is not None
        assert change.pause.at == NOW_S
        return replace(candidate, workload=replace(candidate.workload, value=0, pause=change.pause))

    return [paused(candidate) for candidate in candidates]


# -- any kind with a scale subresource ------------------------------------------------------------------------------


def test_a_kind_is_known_by_its_crd() -> None:
    assert (ROLLOUT.path, ROLLOUT.name) == (("argoproj.io", "v1", "rollouts"), "Rollout")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        pytest.param(crd(".status.replicas"), "keeps its replicas at .status.replicas", id="not in its spec"),
        pytest.param(crd(".spec['a.b']"), "cannot be used", id="in a place of its own kind"),
    ],
)
def test_a_kind_that_cannot_be_scaled_so_is_refused(body: dict[str, Any], said: str) -> None:
    with pytest.raises(UnusableKind, match=said):
        from_crd(body)


def test_a_kind_without_a_scale_subresource_is_refused() -> None:
    body = crd()
    body["spec"]["versions"][0].pop("subresources")
    with pytest.raises(UnusableKind, match=r"Rollout\.argoproj\.io has no scale subresource"):
        from_crd(body)


def test_a_job_of_a_cron_job_is_no_problem_and_one_that_is_suspended_remembers_it() -> None:
    why = skip(Candidate(CRON_RUN), OWNER, "")
    assert why is not None
    assert not why.message
    (change,) = plan.changes(
        PAUSE, opened(), Targets(OWNER, [Candidate(CRON_RUN, options=Options(takes_cron_runs=True))])
    )
    assert patched(CRON_RUN, change.patch()).is_as_we_set_it


# -- rollouts -------------------------------------------------------------------------------------------------------

MIXED = {"replicas": 13, "updatedReplicas": 5}
EVEN = {"replicas": 10, "updatedReplicas": 10}
REVISIONS = {"replicas": 3, "updatedReplicas": 1, "currentRevision": "s-1", "updateRevision": "s-2"}
ON_DELETE = {"updateStrategy": {"type": "OnDelete"}}
PARTITION = {"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}}
CANARY_OF_ARGO = {"replicas": 5, "stableRS": "a", "currentPodHash": "b"}


@pytest.mark.parametrize(
    ("workload", "at_zero", "at_a_floor"),
    [
        pytest.param(found(BY_NAME["Deployment"], status=EVEN), False, False, id="all of one revision"),
        pytest.param(found(BY_NAME["Deployment"]), False, False, id="one that the controller has not seen yet"),
        pytest.param(found(BY_NAME["Deployment"], status={"replicas": 3}), True, False, id="no new pod yet"),
        pytest.param(found(BY_NAME["Deployment"], status=MIXED), True, False, id="a rollout under way"),
        pytest.param(
            found(BY_NAME["Deployment"], {"paused": True}, status=MIXED), True, True, id="a rollout that is paused"
        ),
        pytest.param(
            found(BY_NAME["Deployment"], {"paused": True}, status=EVEN), False, False, id="paused before it began"
        ),
        pytest.param(
            found(BY_NAME["StatefulSet"], PARTITION, status=REVISIONS), True, False, id="a partition"
        ),
        pytest.param(
            found(BY_NAME["StatefulSet"], ON_DELETE, status=REVISIONS), True, True, id="OnDelete"
        ),
        pytest.param(
            found(BY_NAME["StatefulSet"], ON_DELETE, status=REVISIONS | {"updatedReplicas": 3}), False, False,
            id="once all of its pods are new",
        ),
        pytest.param(found(ROLLOUT, status=CANARY_OF_ARGO), True, True, id="a canary of Argo"),
        pytest.param(
            found(ROLLOUT, status=CANARY_OF_ARGO | {"currentPodHash": "a"}), False, False, id="once it is promoted"
        ),
    ],
)  # fmt: skip
def test_a_rollout_under_way_is_left_alone_unless_the_target_says_otherwise(
    workload: Workload, *, at_zero: bool, at_a_floor: bool
) -> None:
    def is_left_alone(**options: Any) -> bool:
        why = skip(Candidate(workload, options=Options(**options)), OWNER, "")
        return why is not None and why.reason == "RolloutInProgress" and bool(why.message)

    assert (is_left_alone(), is_left_alone(paused_replicas=1)) == (at_zero, at_a_floor)
    assert not is_left_alone(pauses_rollouts=True)
    assert skip(Candidate(workload, has_worked=False), OWNER, "") is None, "no revision of it has ever worked"


@pytest.mark.parametrize(
    ("spec", "status", "is_left_alone"),
    [
        pytest.param({}, EVEN | {"observedGeneration": 1}, True, id="the controller is behind"),
        pytest.param({}, EVEN | {"observedGeneration": 2}, False, id="it has seen the newest spec"),
        pytest.param({}, {}, False, id="there are no pods"),
        pytest.param({"replicas": 0}, EVEN | {"observedGeneration": 1}, False, id="there are to be none"),
    ],
)
@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet"])
def test_what_may_begin_a_rollout_at_this_moment_is_not_paused_before_its_controller_has_looked(
    kind: str, spec: dict[str, Any], status: dict[str, Any], is_left_alone: bool
) -> None:
    body = {"metadata": {"name": "a", "namespace": "jobs", "uid": "u", "resourceVersion": "1", "generation": 2}}
    workload = Workload.of(BY_NAME[kind], body | {"spec": spec, "status": status})
    assert (Trait.UNSEEN in workload.traits) is is_left_alone
    candidate = Candidate(replace(workload, value=3))
    assert skip(candidate, OWNER, "") == (Skip("NotYetSeen") if is_left_alone else None)
    assert skip(replace(candidate, options=Options(pauses_rollouts=True)), OWNER, "") is None


def test_what_keda_scales_is_left_alone_in_a_rollout_too() -> None:
    behind = found(BY_NAME["Deployment"], status=MIXED).traits
    why = skip(Candidate(found(BY_NAME["ScaledObject"]), traits_behind=behind), OWNER, "")
    assert why is not None
    assert why.reason == "RolloutInProgress"


def test_what_is_paused_comes_back_whatever_was_rolled_out_meanwhile() -> None:
    (change,) = plan.changes(PAUSE, opened(), Targets(OWNER, [Candidate(found(BY_NAME["Deployment"]))]))
    after = replace(patched(found(BY_NAME["Deployment"]), change.patch()), traits=frozenset({Trait.ROLLING}))
    assert len(plan.changes(ALL_BACK, closed(), Targets(OWNER, [Candidate(after)]))) == 1
