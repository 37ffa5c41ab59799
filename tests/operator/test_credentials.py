"""Tokens that expire, and rights that are missing, withdrawn and granted."""

from __future__ import annotations

import asyncio
import json
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest
from yarl import URL

from openrouter_guard import Settings
from openrouter_operator import main
from openrouter_operator.controller import handlers
from openrouter_operator.kubernetes.client import Cluster
from openrouter_operator.shared_state.feed import Feeds
from openrouter_operator.workloads.inventory import Inventory
from openrouter_operator.workloads.kinds import DEPLOYMENT
from tests.controlplane import ControlPlane
from tests.operator.conftest import KIND, Fleet, Operator, deployment
from tests.operator.crashes import one_of
from tests.operator.proxy import Answer, Proxy
from tests.operator.test_faults import LEASE_S, configuration, problems, restart
from tests.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

IN_A_POD = """
import datetime
import kopf
from kubernetes.aio.config import incluster_config as pod
pod.SERVICE_TOKEN_FILENAME, pod.SERVICE_CERT_FILENAME = {token!r}, {authority!r}
load = pod.InClusterConfigLoader._load_config
def load_at_once(self):
    self._token_refresh_period = datetime.timedelta(0)
    load(self)
    self.host = {url!r}
def login(**_):
    return kopf.ConnectionInfo(server="https://kubernetes.default.svc", token=open({token!r}).read())
pod.InClusterConfigLoader._load_config, kopf.login_with_service_account = load_at_once, login
"""
"""The files of a pod are elsewhere here, are read each time, and the API server speaks plain HTTP. There is no
cluster DNS, which kopf would ask for it."""


@pytest.fixture
def operator(proxy: Proxy, start: Any) -> Operator:
    started: Operator = start(proxy.kubeconfig, OPENROUTER_GUARD_LEASE_SECONDS=str(LEASE_S))
    return started


# -- tokens ---------------------------------------------------------------------------------------------------------


def test_in_a_pod_a_token_that_is_renewed_in_its_file_is_read_again_and_nothing_ends(
    fleet: Fleet, control_plane: ControlPlane, proxy: Proxy, start: Any, tmp_path: Path
) -> None:
    url = json.loads(proxy.kubeconfig.read_text())["clusters"][0]["cluster"]["server"]
    cluster = json.loads(control_plane.kubeconfig.read_text())["clusters"][0]["cluster"]
    token, authority = tmp_path / "token", tmp_path / "ca.crt"
    token.write_text("admin-once")
    authority.write_bytes(b64decode(cluster["certificate-authority-data"]))
    operator = start(
        prelude=IN_A_POD.format(token=str(token), authority=str(authority), url=url),
        KUBERNETES_SERVICE_HOST="127.0.0.1",
        KUBERNETES_SERVICE_PORT=str(URL(url).port),
        OPENROUTER_GUARD_LEASE_SECONDS=str(LEASE_S),
    )
    fleet.deploy(one=1)
    fleet.watch()
    token.write_text("admin-again")
    proxy.rule = lambda seen: Answer(401, message="Unauthorized") if seen.token == "admin-once" else None
    proxy.cut_watches()
    fleet.force("forced_open")
    fleet.until_replicas(one=0)
    fleet.deploy(late=2)
    fleet.until_replicas(one=0, late=0)
    fleet.force("forced_closed")
    fleet.until_replicas(one=1, late=2)
    assert not operator.has_ended


def test_with_an_expired_token_it_ends_and_says_so_and_the_next_start_goes_on_with_the_new_one(
    fleet: Fleet, proxy: Proxy, operator: Operator
) -> None:
    fleet.deploy(one=1)
    fleet.watch()
    fleet.force("forced_open")
    fleet.until_replicas(one=0)
    proxy.rule = lambda seen: Answer(401, message="Unauthorized") if seen.token == "admin" else None
    until(lambda: operator.has_ended)
    assert "the lease cannot be renewed: Unauthorized" in operator.said()
    proxy.use_token("admin-again")
    fleet.force("forced_closed")
    restart(fleet, operator)
    fleet.until_replicas(one=1)


# -- rights ---------------------------------------------------------------------------------------------------------


def test_a_namespace_without_rights_is_left_out_and_told_of_and_the_others_are_looked_after(
    fleet: Fleet, control_plane: ControlPlane, start: Any
) -> None:
    fleet.kubectl("create", "serviceaccount", "half")
    fleet.kubectl("create", "rolebinding", "half", "--clusterrole=cluster-admin", subject(fleet))
    kubeconfig = control_plane.kubeconfig_for_service_account(fleet.namespace, "half")
    fleet.deploy(one=1)
    operator = start(kubeconfig, OPENROUTER_GUARD_NAMESPACES=f"kube-public,{fleet.namespace}")
    fleet.watch()
    fleet.force("forced_open")
    fleet.until_replicas(one=0)
    assert "kube-public is left out until the right is granted: openrouterstatuses" in operator.said()
    assert operator.stop() == 0


def test_a_right_that_is_withdrawn_while_paused_keeps_nobody_else_paused_and_is_told_of(
    fleet: Fleet, control_plane: ControlPlane, start: Any
) -> None:
    rights = ("--verb=*", f"--resource=leases,events,hpa,deployments.apps,cronjobs.batch,{KIND},{KIND}/status")
    fleet.kubectl("create", "serviceaccount", "half")
    fleet.kubectl("create", "role", "half", *rights)
    fleet.kubectl("create", "rolebinding", "half", "--role=half", subject(fleet))
    fleet.apply(deployment("one", 3), one_of("CronJob", "nightly"))
    kubeconfig = control_plane.kubeconfig_for_service_account(fleet.namespace, "half")
    start(kubeconfig, OPENROUTER_GUARD_KINDS="Deployment,CronJob", OPENROUTER_GUARD_LEASE_SECONDS=str(LEASE_S))
    fleet.watch(targets=[{"kind": "Deployment", "name": "one"}, {"kind": "CronJob", "name": "nightly"}])
    fleet.force("forced_open")
    fleet.until_condition("Reconciling", "False")
    until(lambda: fleet.status()["targets"]["paused"] == 2)
    patch = {"rules": [rule(["apps"], ["deployments"], ["get", "list", "watch"])]}
    everything = json.loads(fleet.kubectl("get", "role", "half", "--output=json"))["rules"]
    patch["rules"] += [each for each in everything if "apps" not in each["apiGroups"]]
    fleet.kubectl("patch", "role", "half", "--type=merge", f"--patch={json.dumps(patch)}")
    fleet.force("forced_closed")
    until(lambda: fleet.status()["targets"]["paused"] == 1)
    until(lambda: "cannot patch" in problems(fleet).get("Deployment/one", ""))
    assert fleet.condition("Ready") == "False TargetsFailed"
    fleet.kubectl("patch", "role", "half", "--type=merge", f"--patch={json.dumps({'rules': everything})}")
    fleet.until_replicas(one=3)


def rule(groups: list[str], resources: list[str], verbs: list[str]) -> dict[str, list[str]]:
    return {"apiGroups": groups, "resources": resources, "verbs": verbs}


async def test_once_a_right_is_granted_the_operator_begins_anew(
    fleet: Fleet, control_plane: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(main, "RIGHTS_S", 0.01)
    fleet.kubectl("create", "serviceaccount", "half")
    kubeconfig = control_plane.kubeconfig_for_service_account(fleet.namespace, "half")
    async with Cluster(await configuration(kubeconfig)) as cluster:
        operator = handlers.Operator(
            cluster, Inventory([DEPLOYMENT]), Feeds(Settings("redis://127.0.0.1:1"), "test", lambda _: None)
        )
        operator.left_out = (fleet.namespace,)
        await main._let_in(cluster, operator)
        assert not operator.ending.is_set()
        fleet.kubectl("create", "rolebinding", "half", "--clusterrole=cluster-admin", subject(fleet))

        async def is_ending() -> bool:
            await main._let_in(cluster, operator)
            return operator.ending.is_set()

        async with asyncio.timeout(60):
            while not await is_ending():
                pass


def subject(fleet: Fleet) -> str:
    return f"--serviceaccount={fleet.namespace}:half"
