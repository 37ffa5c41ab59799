"""A pause that somebody else undoes: whose change is respected, and which number is restored."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from openrouter_operator.decisions import contests
from openrouter_operator.decisions.summary import summary
from openrouter_operator.decisions.targets import Candidate, Targets
from openrouter_operator.decisions.workload_events import notice
from openrouter_operator.resource.spec import Options
from openrouter_operator.workloads.kinds import BY_NAME, DEPLOYMENT
from openrouter_operator.workloads.manifest import is_applied, is_by_hand, last_writer, writes_manifests
from openrouter_operator.workloads.workload import Contest
from tests.operator.samples import NOW_S, OWNER, closed, opened, paused
from tests.operator.test_plan import ALL_BACK, PAUSE, made, share

ENFORCES = Options(enforces=True)


def undone(contest: Contest | None = None, *, live: int = 4, by: str = "argocd") -> Candidate:
    found = paused(original=3, replicas=live, changed_by=by)
    assert found.pause is not None
    return Candidate(replace(found, pause=replace(found.pause, contest=contest)), options=ENFORCES)


def test_it_is_put_back_and_what_they_want_comes_back_later() -> None:
    change = made(PAUSE, undone(live=4))["a"]
    assert change.pause is not None
    assert (change.pods, change.pause.original, change.pause.contest) == (0, 4, Contest(1, NOW_S, "argocd"))


@pytest.mark.parametrize(
    ("contest", "requeue_after_s"),
    [
        pytest.param(Contest(1, 998.0, "argocd"), 1_003, id="after 5 s"),
        pytest.param(Contest(3, 990.0, "argocd"), 1_010, id="doubled each time"),
        pytest.param(Contest(40, 900.0, "argocd"), 1_200, id="up to five minutes"),
    ],
)
def test_the_next_time_takes_longer(contest: Contest, requeue_after_s: float) -> None:
    assert made(PAUSE, undone(contest)) == {}
    assert contests.next_contest_at(Targets(OWNER, [undone(contest)])) == requeue_after_s
    later = made(PAUSE, undone(contest), seen=opened(now=requeue_after_s, until=2_000))["a"]
    assert later.pause is not None
    assert later.pause.contest == Contest(contest.times + 1, requeue_after_s, "argocd")


def test_a_contest_from_before_the_clock_was_set_back_makes_nobody_wait() -> None:
    change = made(PAUSE, undone(Contest(3, NOW_S + 86_400, "argocd")))["a"]
    assert change.pause is not None
    assert change.pause.contest == Contest(4, NOW_S, "argocd")


def test_a_contest_that_has_rested_begins_anew() -> None:
    change = made(PAUSE, undone(Contest(3, NOW_S - contests.REST_S, "argocd")))["a"]
    assert change.pause is not None
    assert change.pause.contest == Contest(1, NOW_S, "argocd")


def test_at_the_end_of_the_pause_what_they_set_stands_all_the_same() -> None:
    change = made(ALL_BACK, undone(), seen=closed())["a"]
    assert (change.pods, change.pause) == (None, None)


def test_one_who_wants_fewer_pods_than_a_step_is_respected() -> None:
    found = Candidate(paused(original=8, set_to=2, replicas=0), options=ENFORCES)
    change = made(share(0.5), found, seen=closed())["a"]
    assert (change.pods, change.pause) == (None, None)


# -- tools that write whole manifests -------------------------------------------------------------------------------


def restated(contest: Contest | None = None, **other: Any) -> Candidate:
    """One that a tool has applied, where changes by hand are respected."""
    return replace(undone(contest, by="helm"), options=Options(), workload=replace(undone(contest).workload, **other))


def upgraded(contest: Contest | None = None) -> Candidate:
    return restated(contest, is_restated=True, changed_by="helm")


def test_a_manifest_is_an_upgrade_and_what_is_changed_by_itself_a_decision() -> None:
    upgrade, decision = made(PAUSE, upgraded())["a"], made(PAUSE, restated())["a"]
    assert upgrade.pause is not None
    assert (upgrade.pods, upgrade.pause.original, upgrade.pause.contest) == (0, 4, Contest(1, NOW_S, "helm"))
    assert (decision.pods, decision.pause, decision.released) == (None, None, opened().outage)


def test_one_that_insists_is_respected() -> None:
    often = Contest(contests.RESTATED_MOST, NOW_S - 100, "helm")
    change = made(PAUSE, upgraded(often))["a"]
    assert (change.pods, change.pause) == (None, None)
    assert contests.next_contest_at(Targets(OWNER, [upgraded(often)])) == float("inf")
    once = Contest(1, NOW_S, "helm")
    assert contests.next_contest_at(Targets(OWNER, [upgraded(once)])) == NOW_S + 5


@pytest.mark.parametrize(
    ("found", "reasons"),
    [
        pytest.param(upgraded(Contest(1, NOW_S, "helm")), [], id="an upgrade is no fight"),
        pytest.param(upgraded(Contest(2, NOW_S, "helm")), ["Contested"], id="the second one is"),
        pytest.param(undone(Contest(1, NOW_S, "argocd")), ["Contested"], id="and so is each, where we enforce"),
    ],
)
def test_a_fight_is_told(found: Candidate, reasons: list[str]) -> None:
    assert [problem.reason for problem in summary(Targets(OWNER, [found]), "", {}).contested] == reasons


def test_the_workload_says_what_will_come_back() -> None:
    told = notice(made(PAUSE, upgraded())["a"], "OpenRouterStatus default", "timeout")
    words = "helm changed it during the pause, which holds: 4 pods run once it is over"
    assert told == ("Normal", "PutBack", words)


# -- who it was, by the API server's books --------------------------------------------------------------------------

SELECTOR: dict[str, Any] = {"f:selector": {}}
REPLICAS: dict[str, Any] = {"f:replicas": {}}
SUSPEND: dict[str, Any] = {"f:suspend": {}}
SCHEDULE: dict[str, Any] = {"f:schedule": {}}
NOTES: dict[str, Any] = {"f:annotations": {"f:kubectl.kubernetes.io/last-applied-configuration": {}}}
POD: dict[str, Any] = {"f:template": {"f:spec": {"f:restartPolicy": {}}}}
IMAGE: dict[str, Any] = {"f:template": {"f:spec": {"f:containers": {}}}}


def entry(operation: str, spec: dict[str, Any], metadata: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"manager": "m", "operation": operation, "fieldsV1": {"f:spec": spec, "f:metadata": metadata or {}}}


@pytest.mark.parametrize(
    ("found", "kind", "expected"),
    [
        pytest.param(entry("Apply", REPLICAS | IMAGE), "Deployment", True, id="Helm 4, Flux"),
        pytest.param(entry("Apply", REPLICAS), "Deployment", False, id="the replicas alone, applied"),
        pytest.param(entry("Update", REPLICAS | SELECTOR), "Deployment", True, id="Helm 3"),
        pytest.param(entry("Update", REPLICAS, NOTES), "Deployment", True, id="kubectl apply after kubectl create"),
        pytest.param(entry("Update", REPLICAS), "Deployment", False, id="kubectl scale"),
        pytest.param(entry("Update", REPLICAS | IMAGE), "Deployment", False, id="kubectl edit, image and replicas"),
        pytest.param(entry("Update", SUSPEND | {"f:jobTemplate": {"f:spec": POD}}), "CronJob", True, id="Cron"),
        pytest.param(entry("Update", SUSPEND | SCHEDULE), "CronJob", False, id="kubectl edit cronjob"),
        pytest.param(entry("Update", SUSPEND | POD), "Job", True, id="a Job"),
        pytest.param(entry("Apply", SUSPEND | SCHEDULE), "CronJob", True, id="Cron, applied"),
        pytest.param(
            entry("Update", REPLICAS, NOTES) | {"manager": "kubectl-edit"}, "Deployment", False, id="kubectl edit"
        ),
        pytest.param({}, "Deployment", False, id="nobody"),
    ],
)
def test_who_writes_manifests(found: dict[str, Any], kind: str, expected: bool) -> None:
    assert writes_manifests(found, BY_NAME[kind].control) is expected


SCALED = entry("Update", REPLICAS) | {"subresource": "scale"}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        pytest.param(SCALED | {"manager": "kube-controller-manager"}, False, id="a HorizontalPodAutoscaler"),
        pytest.param(SCALED | {"manager": "k3s"}, False, id="one in a distribution of one program"),
        pytest.param(SCALED | {"manager": "keda"}, False, id="KEDA"),
        pytest.param(SCALED | {"manager": "kubectl"}, True, id="kubectl scale"),
        pytest.param(SCALED | {"manager": "k9s"}, True, id="k9s"),
        pytest.param(entry("Update", REPLICAS) | {"manager": "kubectl-edit"}, True, id="kubectl edit"),
        pytest.param(
            entry("Update", REPLICAS) | {"manager": "kube-controller-manager"}, True, id="no autoscaler's way"
        ),
        pytest.param(entry("Apply", REPLICAS | IMAGE) | {"manager": "helm"}, True, id="Helm 4"),
        pytest.param(entry("Apply", REPLICAS | IMAGE) | {"manager": "argocd-controller"}, True, id="Argo CD"),
        pytest.param({}, False, id="nobody"),
    ],
)
def test_who_is_surely_no_autoscaler(found: dict[str, Any], expected: bool) -> None:
    assert is_by_hand(found) is expected


def test_the_last_writer_of_the_replicas_counts_and_never_ourselves() -> None:
    def at(second: int, manager: str, spec: dict[str, Any]) -> dict[str, Any]:
        return entry("Update", spec) | {"manager": manager, "time": f"2026-01-01T00:00:0{second}Z"}

    books = [at(1, "helm", REPLICAS), at(2, "kubectl", REPLICAS), at(3, "set", IMAGE)]
    ours = at(4, "openrouter-guard", REPLICAS)
    assert last_writer({"managedFields": [*books, ours]}, DEPLOYMENT.control.paths)["manager"] == "kubectl"
    assert last_writer({}, DEPLOYMENT.control.paths) == {}


@pytest.mark.parametrize(
    ("books", "expected"),
    [
        ([entry("Update", REPLICAS)], False),
        ([entry("Apply", REPLICAS)], True),
        ([entry("Apply", REPLICAS) | {"subresource": "status"}], False),
        ([entry("Apply", REPLICAS) | {"manager": "openrouter-guard"}], False),
    ],
)
def test_whether_another_tool_applies_it(books: Iterable[Any], expected: bool) -> None:
    assert is_applied({"managedFields": books}) is expected


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        pytest.param({}, False, id="while it is paused we need them"),
        pytest.param({"is_applied": True}, True, id="unless others apply server-side"),
        pytest.param({"is_applied": True, "value": 2}, False, id="what an admission policy has changed is ours"),
        pytest.param({"is_applied": True, "is_kept": True}, False, id="and what somebody has scaled to 0"),
        pytest.param({"pause": None}, True, id="after it"),
        pytest.param({"pause": None, "released": "an outage"}, True, id="and when it is let go of before its end"),
        pytest.param({"pause": None, "owned": ()}, False, id="there is nothing to give back"),
    ],
)
def test_what_is_owed(changed: dict[str, Any], expected: bool) -> None:
    assert replace(paused(original=3, owned=(0,)), **changed).owes_fields is expected
