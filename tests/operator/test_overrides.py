"""Overrides requested by a resource, and who may request them."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from openrouter_guard import OpenRouterStateManager
from openrouter_guard.errors import ConfigurationError
from openrouter_guard.rules.breaker import BreakerState
from openrouter_guard.rules.override import Override, OverrideKind
from openrouter_guard.rules.shared_state import SharedState
from openrouter_operator.resource.access import Access
from openrouter_operator.resource.overrides import decided, wished
from openrouter_operator.resource.spec import InvalidSpec, parse
from tests.operator.conftest import Fleet, Operator
from tests.operator.paused_list import told
from tests.waiting import until

WHO = "OpenRouterStatus jobs/default"
MINE = Override(OverrideKind.FORCED_OPEN, WHO, "maintenance", until=2_000.0)
THEIRS = Override(OverrideKind.FORCED_CLOSED, "ann", "it is fine", until=2_000.0)

# -- the decision ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("standing", "wish", "expected"),
    [
        pytest.param(None, MINE, MINE, id="what is wished stands"),
        pytest.param(THEIRS, MINE, MINE, id="instead of an earlier decision"),
        pytest.param(MINE, None, None, id="what is no longer wished ends"),
        pytest.param(THEIRS, None, THEIRS, id="but not what somebody else has decided"),
        pytest.param(None, None, None, id="nothing is wished, nothing stands"),
    ],
)
def test_after_a_change_of_the_spec(
    standing: Override | None, wish: Override | None, expected: Override | None
) -> None:
    after = decided(SharedState(override=standing), wish, WHO, now=1_000.0)
    assert after is not None
    assert after.override == expected


def test_what_stands_already_is_not_decided_again() -> None:
    record = SharedState(override=MINE)
    assert decided(record, MINE, WHO, now=1_000.0) is record


def test_a_wish_whose_time_is_over_ends_what_is_left_of_it() -> None:
    late = Override(OverrideKind.FORCED_OPEN, WHO, "maintenance", until=999.0)
    assert decided(None, late, WHO, now=1_000.0) is None
    after = decided(SharedState(override=MINE), late, WHO, now=1_000.0)
    assert after is not None
    assert after.override is None


def test_a_spec_is_read_as_the_override_that_it_means() -> None:
    asked = {"action": "ForceOpen", "reason": "maintenance", "until": "1970-01-01T00:33:20Z"}
    assert wished(parse({"override": asked}).override, WHO) == MINE
    assert wished(parse({"override": {"action": "None"}}).override, WHO) is None
    assert wished(parse({}).override, WHO) is None


@pytest.mark.parametrize("missing", ["reason", "until"])
def test_an_override_without_reason_or_end_is_refused(missing: str) -> None:
    asked = {"action": "ForceOpen", "reason": "maintenance", "until": "1970-01-01T00:33:20Z"}
    with pytest.raises(InvalidSpec, match=r"spec\.override.*needs a reason, and a time in until"):
        parse({"override": {name: value for name, value in asked.items() if name != missing}})


# -- who may --------------------------------------------------------------------------------------------------------


def test_by_default_all_may_use_the_default_scope_and_none_override_it() -> None:
    access = Access.parse("")
    assert access.may_use("anybody", "default")
    assert not access.may_use("anybody", "team-a")
    assert not access.may_override("anybody", "default")


def test_what_no_rule_allows_is_not_allowed() -> None:
    rules = [
        {"namespaces": ["*"], "scopes": ["default"]},
        {"namespaces": ["team-a"], "scopes": ["team-a"], "override": True},
    ]
    access = Access.parse(json.dumps(rules))
    assert access.may_use("team-b", "default")
    assert not access.may_use("team-b", "team-a")
    assert access.may_override("team-a", "team-a")
    assert not access.may_override("team-a", "default")


@pytest.mark.parametrize("text", ["{", "{}", '[{"namespace": ["a"]}]', '[{"override": "perhaps"}]'])
def test_rules_that_cannot_be_read_name_the_setting(text: str) -> None:
    with pytest.raises(ConfigurationError, match="OPENROUTER_GUARD_ACCESS cannot be read"):
        Access.parse(text)


# -- on a real API server -------------------------------------------------------------------------------------------

MAY = json.dumps([{"override": True}])


def asked(action: str = "ForceOpen", *, minutes: float = 10) -> dict[str, Any]:
    until_at = datetime.now(UTC) + timedelta(minutes=minutes)
    return {"action": action, "reason": "maintenance", "until": until_at.strftime("%Y-%m-%dT%H:%M:%SZ")}


@pytest.mark.cluster
def test_an_override_reaches_the_workers_and_goes_when_it_is_taken_out(
    fleet: Fleet, start: Any, redis_url: str
) -> None:
    start(OPENROUTER_GUARD_ACCESS=MAY, OPENROUTER_GUARD_CLUSTER="east")
    fleet.deploy(one=2)
    fleet.watch(override=asked())
    fleet.until_phase(BreakerState.OPEN)
    fleet.until_replicas(one=0)
    until(lambda: fleet.status().get("override", {}).get("by") == f"OpenRouterStatus {fleet.namespace}/default")
    until(lambda: told(redis_url).get("workloads") == ["Deployment/one"])
    assert told(redis_url)["resource"] == f"{fleet.namespace}/default"
    fleet.watch()
    fleet.until_phase(BreakerState.CLOSED)
    fleet.until_replicas(one=2)
    until(lambda: "override" not in fleet.status())
    until(lambda: told(redis_url)["workloads"] == [])


@pytest.mark.cluster
def test_one_that_would_hold_for_more_than_30_days_does_not_stand_and_that_is_said(fleet: Fleet, start: Any) -> None:
    start(OPENROUTER_GUARD_ACCESS=MAY)
    fleet.deploy(one=1)
    fleet.watch(mode="Observe", override=asked(minutes=31 * 24 * 60))
    fleet.until_condition("Ready", "False OverrideFailed")
    assert "override" not in fleet.status()
    fleet.watch(mode="Observe", override=asked())
    fleet.until_phase(BreakerState.OPEN)
    fleet.until_condition("Ready", "True")


@pytest.mark.cluster
def test_one_that_had_ended_before_it_could_stand_is_said_to_and_one_that_ends_later_is_not(
    fleet: Fleet, start: Any
) -> None:
    start(OPENROUTER_GUARD_ACCESS=MAY)
    fleet.deploy(one=1)
    fleet.watch(mode="Observe", override=asked(minutes=-5))
    fleet.until_condition("Ready", "False OverrideEnded")
    until(lambda: "OverrideEnded" in fleet.kubectl("get", "events"))
    fleet.watch(mode="Observe", override=asked(minutes=10))
    fleet.until_phase(BreakerState.OPEN)
    fleet.until_condition("Ready", "True")
    fleet.watch(mode="Observe", override=asked(minutes=-5))
    fleet.until_phase(BreakerState.CLOSED)
    fleet.until_condition("Ready", "True")


@pytest.mark.cluster
def test_it_is_applied_once_so_that_a_person_may_end_it_and_a_deleted_resource_withdraws_it(
    fleet: Fleet, start: Any, redis_url: str
) -> None:
    start(OPENROUTER_GUARD_ACCESS=MAY)
    fleet.watch(mode="Observe", override=asked())
    fleet.until_phase(BreakerState.OPEN)
    until(lambda: fleet.status().get("override", {}).get("appliedGeneration") == 1)
    asyncio.run(ended(redis_url))
    fleet.until_condition("UpstreamAvailable", "True")
    fleet.kubectl("annotate", "ors", "default", "note=reconciled")
    until(lambda: "action" not in fleet.status().get("override", {}))
    fleet.until_phase(BreakerState.CLOSED)
    fleet.watch(mode="Observe", override=asked(minutes=20))
    fleet.until_phase(BreakerState.OPEN)
    until(lambda: fleet.status().get("override", {}).get("appliedGeneration") == 2)
    fleet.unwatch("default", "--timeout=15s")
    fleet.until_phase(BreakerState.CLOSED)


@pytest.mark.cluster
def test_a_namespace_that_may_not_override_is_told_and_stops_nobody(fleet: Fleet, start: Any) -> None:
    start(OPENROUTER_GUARD_ACCESS=json.dumps([{"scopes": ["default"]}]))
    fleet.deploy(one=1)
    fleet.watch(override=asked())
    fleet.until_condition("Ready", "False OverrideNotAllowed")
    fleet.watch(name="stranger", scope="team-a")
    fleet.until_condition("Ready", "False InvalidSpec", name="stranger")
    fleet.unwatch("stranger", "--timeout=15s")
    fleet.fail()
    fleet.until_replicas(one=0)


@pytest.mark.cluster
def test_what_a_namespace_has_paused_comes_back_when_it_may_no_longer_use_the_scope(fleet: Fleet, start: Any) -> None:
    allowing = start()
    fleet.deploy(one=2)
    fleet.watch()
    fleet.fail()
    fleet.until_replicas(one=0)
    allowing.stop()
    start(OPENROUTER_GUARD_ACCESS=json.dumps([{"namespaces": ["another"]}]))
    fleet.until_replicas(one=2)
    fleet.until_condition("Ready", "False InvalidSpec")


@pytest.mark.cluster
def test_a_person_who_lets_calls_go_during_the_steps_holds_none_of_them_back(
    fleet: Fleet, operator: Operator
) -> None:
    fleet.deploy(one=8)
    fleet.watch(resume={"strategy": "Staged", "stepPercent": 25, "intervalSeconds": 2, "canary": False})
    fleet.fail()
    fleet.until_replicas(one=0)
    fleet.succeed()
    until(lambda: 0 < fleet.replicas()["one"] < 8)
    seen = [fleet.replicas()["one"]]
    fleet.force("forced_closed")

    def is_back() -> bool:
        seen.append(fleet.replicas()["one"])
        return seen[-1] == 8

    until(is_back)
    assert seen == sorted(seen), "it goes on where it was"
    until(lambda: fleet.condition("Paused").startswith("False"))


@pytest.mark.cluster
def test_what_is_handed_to_a_class_that_nobody_runs_waits_and_keeps_nothing_from_others(
    fleet: Fleet, operator: Operator
) -> None:
    fleet.deploy(one=3, two=2)
    fleet.watch(name="older", targets=[{"kind": "Deployment", "name": "one"}])
    fleet.force("forced_open")
    fleet.until_replicas(one=0, two=2)
    fleet.kubectl("patch", "ors", "older", "--type=merge", '--patch={"spec": {"class": "nobody"}}')
    fleet.watch(name="younger")
    fleet.until_replicas(one=0, two=0)
    until(lambda: [p["reason"] for p in fleet.status("younger")["problems"]] == ["PausedByOther"])
    fleet.force("forced_closed")
    fleet.until_replicas(one=0, two=2)
    fleet.kubectl("patch", "ors", "older", "--type=merge", '--patch={"spec": {"class": "default"}}')
    fleet.until_replicas(one=3, two=2)


@pytest.mark.cluster
def test_operators_of_different_classes_look_after_their_own_resources(fleet: Fleet, start: Any) -> None:
    start(OPENROUTER_GUARD_CLASS="blue", OPENROUTER_GUARD_LEASE_NAME="blue")
    fleet.deploy(one=1)
    fleet.kubectl("apply", "--filename=-", stdin=json.dumps(idle("green")))
    blue: dict[str, Any] = {"class": "blue"}
    fleet.watch(**blue)
    fleet.fail()
    fleet.until_replicas(one=0)
    green = json.loads(fleet.kubectl("get", "ors", "green", "--output=json"))
    assert ("status" in green, green["metadata"].get("finalizers")) == (False, None)


def idle(name: str) -> dict[str, Any]:
    spec = {"class": "green", "mode": "Observe"}
    kind = {"apiVersion": "openrouter-guard.io/v1alpha1", "kind": "OpenRouterStatus"}
    return kind | {"metadata": {"name": name}, "spec": spec}


async def ended(redis_url: str) -> None:
    async with OpenRouterStateManager(redis_url) as manager:
        await manager.clear_override(who="ann")
