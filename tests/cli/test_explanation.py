"""The sentences of ``openrouter-guard why``, as plain text."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from openrouter_guard.cli.cluster.explanation import explained
from openrouter_guard.cli.cluster.resources import resource_of
from openrouter_operator.workloads.workload import Workload
from tests.operator.samples import paused, workload

OPEN = {"state": "open", "reason": "timeout", "retryAt": "2026-03-01T12:30:00Z"}


def resource(breaker: dict[str, Any] | None = None, *, status: dict[str, Any] | None = None, **spec: Any) -> Any:
    metadata = {"namespace": "jobs", "name": "default", "generation": 1}
    return resource_of({"metadata": metadata, "spec": spec, "status": {"breaker": breaker or {}} | (status or {})})


def orphaned() -> Workload:
    found = paused()
    assert found.pause is not None
    return replace(found, pause=replace(found.pause, is_orphaned=True))


CASES = {
    "open": (paused(), resource(OPEN), "trial calls may go from 2026-03-01T12:30:00Z on"),
    "half-open": (paused(), resource({"state": "half_open"}), "after a trial call of another worker"),
    "closed": (paused(), resource({"state": "closed"}), "The breaker is closed, and the workloads come back now"),
    "in steps": (
        paused(set_to=1),
        resource({"state": "closed"}, status={"progress": {"nextAt": "12:31", "reason": "BreakerClosed"}}),
        "the next step is due at 12:31 (BreakerClosed)",
    ),
    "forced": (
        paused(),
        resource(OPEN, status={"override": {"action": "ForceOpen", "by": "ann", "until": "13:00"}}),
        "An override by ann forces the breaker open until 13:00",
    ),
    "suspended": (paused(), resource(OPEN, suspend=True), "openrouter-guard resume default --namespace jobs"),
    "unknown": (paused(), resource(), "The operator cannot read the state of the breaker"),
    "without its resource": (paused(), None, "run openrouter-guard rescue --namespace jobs"),
    "orphaned": (orphaned(), resource(OPEN), "stays paused until you scale it"),
    "on its floor": (paused(set_to=1), resource(OPEN), "is paused, and has 1 pods at present"),
    "damaged": (workload(damage="it is not JSON"), None, "it is not JSON. Set the replicas by hand"),
    "at zero": (workload(replicas=0, changed_by="kubectl"), None, "kubectl wrote that number last"),
    "opted out": (workload(opt="false"), None, "so it is never paused"),
    "not named": (workload(), None, "no OpenRouterStatus of namespace jobs names it"),
    "released": (workload(released="default/then"), resource(OPEN), "is left alone until its end"),
    "observed": (workload(), resource(OPEN, mode="Observe"), "does not act (Observe)"),
    "running": (workload(), resource(OPEN), "would pause it in an outage"),
}


@pytest.mark.parametrize(("seen", "owner", "expected"), CASES.values(), ids=CASES)
def test_each_case_is_said(seen: Workload, owner: Any, expected: str) -> None:
    assert expected in " ".join(explained(seen, owner, []))


def test_what_a_person_has_changed_is_not_said_to_come_back() -> None:
    seen = paused(replicas=5, changed_by="kubectl-edit")
    told = list(explained(seen, resource(OPEN), []))
    assert told[1].startswith("Somebody else has changed it since (kubectl-edit).")
    assert len(told) == 2


def test_the_problems_of_the_status_come_last() -> None:
    problem = {"reason": "RolloutUnderWay", "message": "finish it"}
    assert list(explained(workload(), resource(OPEN), [problem]))[-1] == "RolloutUnderWay: finish it."
