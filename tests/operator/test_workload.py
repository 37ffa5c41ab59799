"""A workload, the record of its pause, and the patch that changes both at once."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openrouter_guard.rules.parsing import LINE_MOST
from openrouter_operator.workloads.kinds import BY_NAME, DEPLOYMENT
from openrouter_operator.workloads.workload import (
    PAUSED,
    RELEASED,
    Change,
    Contest,
    Pause,
    Workload,
    forgets,
    restored,
)
from tests.operator.samples import OWNER, paused, workload

REMEMBERED: dict[str, Any] = {
    "owner": {"name": "default", "uid": "uid-of-default"},
    "epoch": 7,
    "original": 3,
    "set": 0,
    "at": "1970-01-01T00:15:00+00:00",
}

DAMAGE: dict[str, dict[str, Any]] = {
    "an owner that is a word": {"owner": "default"},
    "an owner without a UID": {"owner": {"name": "default"}},
    "an owner with a name that leads elsewhere": {"owner": {"name": "../../secrets/a", "uid": "u"}},
    "an owner with a name without end": {"owner": {"name": "a" * 100_000, "uid": "u"}},
    "an owner whose name is a number": {"owner": {"name": 5, "uid": "u"}},
    "an epoch that is a text without end": {"epoch": "\x1b[31m" * 10_000},
    "an original that is a word": {"original": "three"},
    "an original of zero, which is never paused": {"original": 0},
    "an original below zero": {"original": -1},
    "an endless original": {"original": float("inf")},
    "an original that is no number": {"original": float("nan")},
    "set below zero": {"set": -1},
    "a time that is none": {"at": "yesterday"},
}

MANAGERS = st.text("abc-", max_size=128)

# -- the annotation -------------------------------------------------------------------------------------------------


def test_what_a_paused_workload_remembers_is_readable_by_people() -> None:
    assert json.loads(Pause("uid-of-default", "default", 7, original=3, set_to=0, at=900.0).text()) == REMEMBERED


@given(
    st.builds(
        Pause,
        owner_uid=st.text(),
        owner=st.from_regex(r"[a-z0-9]([a-z0-9.-]{0,100}[a-z0-9])?", fullmatch=True),
        epoch=st.integers(0, 2**63),
        original=st.integers(1, 2**31 - 1),
        set_to=st.integers(0, 2**31 - 1),
        at=st.integers(1, 4_000_000_000_000_000).map(lambda micros: micros / 1e6),
        pods=st.none() | st.integers(0, 99),
        contest=st.none() | st.builds(Contest, st.integers(1, 99), st.integers(1, 10**9).map(float), MANAGERS),
        is_orphaned=st.booleans(),
    )
)
def test_it_is_the_same_once_written_and_read(pause: Pause) -> None:
    assert Pause.parse(pause.text(), DEPLOYMENT.control) == pause


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("{", id="not JSON"),
        pytest.param("null", id="nothing"),
        pytest.param('"paused"', id="a word"),
        pytest.param("3", id="a number"),
        pytest.param("[]", id="a list"),
        pytest.param("[" * 100_000, id="deep enough to exhaust the parser"),
        *(
            pytest.param(json.dumps({k: v for k, v in REMEMBERED.items() if k != name}), id=f"without {name}")
            for name in REMEMBERED
        ),
        *(pytest.param(json.dumps(REMEMBERED | changed), id=why) for why, changed in DAMAGE.items()),
    ],
)
def test_an_annotation_that_somebody_has_damaged_is_named(text: str) -> None:
    with pytest.raises(ValueError, match=f"annotation {PAUSED} cannot be") as raised:
        Pause.parse(text, DEPLOYMENT.control)
    words = str(raised.value)
    assert (len(words) <= LINE_MOST, words.isprintable()) == (True, True), "people read it in a condition"


@given(st.text() | st.recursive(st.none() | st.floats() | st.text(), st.lists).map(json.dumps))
def test_no_text_at_all_is_more_than_damage(text: str) -> None:
    try:
        Pause.parse(text, DEPLOYMENT.control)
    except ValueError as error:
        assert PAUSED in str(error)  # noqa: PT017  most texts are damaged, and none need be


# -- the workload in an object of the API ---------------------------------------------------------------------------


def body(annotations: dict[str, str] | None = None, spec: dict[str, Any] | None = None, **metadata: Any) -> Any:
    named = {"name": "a", "namespace": "jobs", "uid": "u", "resourceVersion": "41"}
    return {"kind": "Deployment", "metadata": named | metadata | {"annotations": annotations}, "spec": spec}


def test_a_plain_deployment() -> None:
    found = Workload.of(DEPLOYMENT, body(spec={"replicas": 4}, labels={"fleet": "workers"}))
    assert found == Workload(DEPLOYMENT, "jobs", "a", "u", "41", 4, {"fleet": "workers"}, is_untried=True)
    assert str(found) == "Deployment/a"


@pytest.mark.parametrize(
    ("spec", "expected"), [({}, 1), (None, 1), ({"replicas": 0}, 0)], ids=["absent", "no spec", "zero"]
)
def test_replicas_that_are_not_given_are_one_as_for_kubernetes(spec: dict[str, Any] | None, expected: int) -> None:
    assert Workload.of(DEPLOYMENT, body(spec=spec)).pods == expected


def test_a_paused_one_knows_its_pause() -> None:
    found = Workload.of(DEPLOYMENT, body({PAUSED: json.dumps(REMEMBERED), RELEASED: "then"}))
    assert (found.pause, found.damage, found.released) == (paused().pause, "", "then")


def test_a_damaged_annotation_is_damage_and_no_pause() -> None:
    found = Workload.of(DEPLOYMENT, body({PAUSED: "{}"}))
    assert found.pause is None
    assert PAUSED in found.damage


@pytest.mark.parametrize(
    ("owners", "expected"),
    [
        pytest.param(None, False, id="nobody owns it"),
        pytest.param([{"kind": "App"}], False, id="an owner that only collects garbage"),
        pytest.param([{"kind": "App"}, {"kind": "Rollout", "controller": True}], True, id="one that controls it"),
    ],
)
def test_it_is_controlled_by(owners: list[dict[str, Any]] | None, *, expected: bool) -> None:
    assert Workload.of(DEPLOYMENT, body(ownerReferences=owners)).is_controlled is expected


def test_the_annotation_that_a_replica_set_has_from_its_deployment_is_not_its_own() -> None:
    inherited = body({PAUSED: json.dumps(REMEMBERED)}, ownerReferences=[{"kind": "Deployment", "controller": True}])
    found = Workload.of(BY_NAME["ReplicaSet"], inherited)
    assert (found.pause, found.damage) == (None, "")
    assert restored(found) is None


def test_what_gets_a_controller_during_a_pause_keeps_the_pause() -> None:
    owners = [{"kind": "Tenant", "controller": True}]
    uid = body()["metadata"]["uid"]
    adopted = body({PAUSED: json.dumps(REMEMBERED | {"uid": uid})}, ownerReferences=owners)
    found = Workload.of(DEPLOYMENT, adopted)
    assert found.is_controlled
    assert found.pause is not None
    assert found.pause.original == REMEMBERED["original"]


def test_one_that_is_being_deleted_is_going() -> None:
    assert Workload.of(DEPLOYMENT, body(deletionTimestamp="2026-01-01T00:00:00Z")).is_going
    assert not Workload.of(DEPLOYMENT, body()).is_going


@pytest.mark.parametrize(
    ("managers", "expected"),
    [
        pytest.param([("openrouter-guard", "replicas", 9)], "", id="nobody but us"),
        pytest.param([("kubectl", "template", 9)], "", id="one who changed something else"),
        pytest.param([("openrouter-guard", "replicas", 1), ("argocd", "replicas", 2)], "argocd", id="one who did"),
        pytest.param([("argocd", "replicas", 3), ("kubectl", "replicas", 2)], "argocd", id="the last who did"),
    ],
)
def test_who_undid_a_pause_is_known_by_the_fields_that_they_manage(
    managers: list[tuple[str, str, int]], expected: str
) -> None:
    fields = [
        {"manager": who, "time": f"2026-01-01T00:00:0{at}Z", "fieldsV1": {"f:spec": {f"f:{field}": {}}}}
        for who, field, at in managers
    ]
    undone = body({PAUSED: json.dumps(REMEMBERED)}, {"replicas": 4}, managedFields=fields)
    assert Workload.of(DEPLOYMENT, undone).changed_by == expected


def available(status: str, at: str) -> dict[str, Any]:
    since = {"type": "Available", "status": status, "lastTransitionTime": f"2026-01-01T{at}Z"}
    return {"observedGeneration": 1, "conditions": [{"type": "Progressing", "status": "True"}, since]}


@pytest.mark.parametrize(
    ("status", "is_untried"),
    [
        pytest.param(None, True, id="nobody has looked at it"),
        pytest.param({"conditions": []}, True, id="nor is it said when"),
        pytest.param(available("False", "10:00:01"), True, id="not available since it was made"),
        pytest.param(available("False", "10:00:09"), False, id="no longer available"),
        pytest.param(available("True", "10:00:01"), False, id="available"),
        pytest.param({"observedGeneration": 1}, False, id="a kind that says nothing of it"),
        pytest.param(available("False", "some day, "), False, id="a time that is none"),
    ],
)
def test_what_has_never_been_available_is_known_by_its_conditions(status: Any, is_untried: bool) -> None:
    found = body(creationTimestamp="2026-01-01T10:00:00Z") | {"status": status}
    assert Workload.of(DEPLOYMENT, found).is_untried is is_untried


VALUE: dict[str, Any] = {"f:spec": {"f:replicas": {}}}
NOTE: dict[str, Any] = {"f:metadata": {"f:annotations": {f"f:{PAUSED}": {}}}}
US = "openrouter-guard"


@pytest.mark.parametrize(
    ("owners", "uid", "is_foreign"),
    [
        pytest.param([(US, VALUE | NOTE)], "u", False, id="as we left it"),
        pytest.param([("kubectl-scale", VALUE), ("kubectl-rollout", NOTE)], "u", True, id="scaled, then undone"),
        pytest.param([("kubectl-rollout", NOTE)], "u", True, id="undone after we had given our fields back"),
        pytest.param([("kubectl-scale", VALUE), (US, NOTE)], "u", True, id="somebody has set it since"),
        pytest.param([(US, VALUE), ("kubectl-rollout", NOTE)], "u", False, id="undone during the pause"),
        pytest.param([(US, VALUE), ("helm", VALUE)], "u", False, id="applied as it was"),
        pytest.param([], "u", False, id="nobody keeps books"),
        pytest.param([("ancient-changes", VALUE | NOTE)], "u", False, id="ours was merged with older entries"),
        pytest.param([("before-first-apply", VALUE | NOTE)], "u", False, id="ours was lost before another's first"),
        pytest.param([("velero", VALUE | NOTE)], "another", False, id="a copy"),
        pytest.param([("velero", VALUE | NOTE)], "", False, id="a copy of one from before there were UIDs"),
    ],
)
def test_a_pause_that_others_have_written_is_none_though_the_numbers_agree(
    owners: list[tuple[str, dict[str, Any]]], uid: str, is_foreign: bool
) -> None:
    fields = [{"manager": who, "time": "2026-01-01T00:00:00Z", "fieldsV1": written} for who, written in owners]
    note = json.dumps(REMEMBERED | {"uid": uid})
    found = Workload.of(DEPLOYMENT, body({PAUSED: note}, {"replicas": 0}, managedFields=fields))
    assert found.is_foreign is is_foreign
    assert found.is_undone is (is_foreign and (US, NOTE) not in owners), "who scales a paused one undoes no rollout"
    change = restored(found)
    assert change is not None
    assert change.is_written is (not is_foreign), "what somebody has set stands"
    assert found.copied is not None or found.is_as_we_set_it is (not found.is_kept and not is_foreign)


@pytest.mark.parametrize(
    ("owners", "is_foreign"),
    [
        pytest.param([("Update", NOTE)], False, id="undone during the pause"),
        pytest.param([("Apply", VALUE)], False, id="what is ignored is applied as it is"),
        pytest.param([("Update", VALUE)], True, id="somebody has set it since"),
        pytest.param([("before-first-apply", VALUE)], False, id="the first to apply it has found no books"),
    ],
)
def test_of_what_others_apply_we_own_nothing_during_a_pause(
    owners: list[tuple[str, dict[str, Any]]], is_foreign: bool
) -> None:
    books = [{"manager": "helm", "operation": "Apply", "fieldsV1": {"f:spec": {"f:selector": {}}}}]
    books += [{"manager": how.lower(), "operation": how, "fieldsV1": fields} for how, fields in owners]
    note = json.dumps(REMEMBERED | {"uid": "u"})
    found = Workload.of(DEPLOYMENT, body({PAUSED: note}, {"replicas": 0}, managedFields=books))
    assert (found.is_foreign, found.is_as_we_set_it) == (is_foreign, not is_foreign)


def test_one_from_before_there_were_uids_is_its_own_where_the_workload_is_older_than_the_pause() -> None:
    fields = [{"manager": "kubectl-rollout", "time": "2026-01-01T00:00:00Z", "fieldsV1": NOTE}]
    older = body({PAUSED: json.dumps(REMEMBERED)}, managedFields=fields, creationTimestamp="1970-01-01T00:14:00Z")
    younger = body({PAUSED: json.dumps(REMEMBERED)}, managedFields=fields, creationTimestamp="1970-01-01T00:16:00Z")
    assert Workload.of(DEPLOYMENT, older).is_foreign
    assert not Workload.of(DEPLOYMENT, younger).is_foreign


def test_one_that_an_earlier_operator_wrote_under_another_name_is_a_pause() -> None:
    fields = [{"manager": "OpenAPI-Generator", "time": "1970-01-01T00:15:00Z", "fieldsV1": VALUE | NOTE}]
    older = body({PAUSED: json.dumps(REMEMBERED)}, {"replicas": 0}, creationTimestamp="1970-01-01T00:14:00Z")
    older["metadata"]["managedFields"] = fields
    assert Workload.of(DEPLOYMENT, older).is_as_we_set_it


def test_who_undoes_a_pause_is_named_in_one_short_line() -> None:
    contested = {"contested": {"times": 2, "at": "1970-01-01T00:15:00Z", "by": "ci\x1b[31m\n" + "a" * 10_000}}
    contest = Pause.parse(json.dumps(REMEMBERED | contested), DEPLOYMENT.control).contest
    assert contest is not None
    assert (len(contest.by), contest.by.isprintable()) == (128, True)


# -- the patch ------------------------------------------------------------------------------------------------------


def test_one_patch_changes_replicas_and_memory_and_is_refused_on_anything_newer() -> None:
    change = Change(workload(), 0, pause=paused().pause)
    assert change.patch() == {
        "metadata": {
            "resourceVersion": "1",
            "annotations": {PAUSED: json.dumps(REMEMBERED), RELEASED: None},
        },
        "spec": {"replicas": 0},
    }


def test_a_patch_that_only_forgets_leaves_the_replicas_to_whoever_set_them() -> None:
    patch = forgets(paused(replicas=5), released="then").patch()
    assert "spec" not in patch
    assert patch["metadata"]["annotations"] == {PAUSED: None, RELEASED: "then"}


# -- without an owner -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        pytest.param(paused(original=3), Change(paused(original=3), 3, pause=None), id="it comes back"),
        pytest.param(
            paused(original=3, set_to=1), Change(paused(original=3, set_to=1), 3, pause=None), id="from a step, too"
        ),
        pytest.param(paused(replicas=5), forgets(paused(replicas=5)), id="unless somebody has set it since"),
        pytest.param(workload(), None, id="or it was not paused"),
    ],
)
def test_when_the_owner_of_a_pause_is_gone(found: Workload, expected: Change | None) -> None:
    assert restored(found) == expected


def test_what_is_part_of_the_product_is_known_by_its_label() -> None:
    assert workload(labels={"app.kubernetes.io/part-of": "openrouter-guard"}).is_our_own
    assert not workload(labels={"app.kubernetes.io/part-of": OWNER.name}).is_our_own
