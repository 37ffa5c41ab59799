"""The installed product: real pods that call an upstream, on a real node."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.controlplane import KubectlFailed

from .conftest import Fleet
from .manifests import GUARD, TEAM, UPSTREAM, eater

ASK_DNS = ("python", "-c", f"import socket; socket.getaddrinfo('openrouter.{UPSTREAM}', 80)")
OPERATOR = "app.kubernetes.io/component=operator"

pytestmark = [pytest.mark.node, pytest.mark.slow]


def paused(fleet: Fleet) -> None:
    """Let an outage begin, and wait until all is at zero. From time to time a canary comes and goes from then on."""
    fleet.switch("outage")
    fleet.until(lambda: is_paused(fleet))


def is_paused(fleet: Fleet) -> bool:
    state = fleet.state()
    return " open " in state and "4/4" in state


def is_back(fleet: Fleet) -> bool:
    return fleet.ready() == 6 and " closed " in fleet.state() and "0/4" in fleet.state()


def uids(fleet: Fleet) -> set[str]:
    return {pod["metadata"]["uid"] for pod in fleet.pods()}


def test_an_outage_takes_the_pods_away_and_the_recovery_brings_all_back(fleet: Fleet) -> None:
    before = uids(fleet)
    down = fleet.switch("outage")
    opened = fleet.until(lambda: " open " in fleet.state())
    gone = fleet.until(lambda: not before & uids(fleet))
    fleet.until(lambda: is_paused(fleet))
    assert fleet.node.get("cronjob", "nightly", f"--namespace={TEAM}")["spec"]["suspend"] is True
    well = fleet.switch("healthy")
    failed = fleet.calls()
    first = fleet.until(lambda: fleet.calls() > failed)
    back = fleet.until(lambda: is_back(fleet))
    fleet.times.update(
        {
            "outage → breaker open": opened - down,
            "outage → last pod gone": gone - down,
            "recovery → first served call": first - well,
            "recovery → all pods at work": back - well,
        }
    )


@pytest.mark.parametrize("component", ["valkey", "operator", "health-service"])
def test_the_fleet_comes_back_though_a_part_is_killed_during_the_pause(fleet: Fleet, component: str) -> None:
    paused(fleet)
    selector = f"app.kubernetes.io/component={component}"
    fleet.node.kubectl("delete", "pods", f"--namespace={GUARD}", f"--selector={selector}", "--now")
    fleet.node.kubectl(
        "wait", "pods", f"--namespace={GUARD}", f"--selector={selector}", "--for=condition=Ready", "--timeout=60s"
    )
    fleet.switch("healthy")
    fleet.until(lambda: is_back(fleet))


def test_the_fleet_comes_back_though_the_kubelet_restarts_during_the_pause(fleet: Fleet) -> None:
    paused(fleet)
    fleet.node.restart("kubelet")
    fleet.switch("healthy")
    fleet.until(lambda: is_back(fleet))


def test_the_fleet_comes_back_though_dns_was_away_during_the_pause(fleet: Fleet) -> None:
    paused(fleet)
    with without_dns(fleet):
        with pytest.raises(KubectlFailed, match="name resolution"):
            fleet.node.kubectl("exec", f"--namespace={GUARD}", "deployment/openrouter-guard", "--", *ASK_DNS)
        fleet.node.kubectl("delete", "pods", f"--namespace={GUARD}", f"--selector={OPERATOR}", "--now")
        fleet.switch("healthy")
    fleet.until(lambda: is_back(fleet))


@contextmanager
def without_dns(fleet: Fleet) -> Iterator[None]:
    chain = "chain input { type filter hook input priority 0; udp dport 53 drop; tcp dport 53 drop; }"
    fleet.node.run("nft", f"table inet no_dns {{ {chain}; }}").check_returncode()
    try:
        yield
    finally:
        fleet.node.run("nft", "delete", "table", "inet", "no_dns").check_returncode()


def test_no_request_fails_while_both_parts_are_rolled_over(fleet: Fleet) -> None:
    answers: list[int] = []
    done = threading.Event()

    def ask() -> None:
        address = fleet.node.get("service", "openrouter-guard", f"--namespace={GUARD}")["spec"]["clusterIP"]
        url = f"http://{address}/api/v1/openrouter/status"
        while not done.is_set():
            answers.append(fleet.node.run("curl", "--silent", "--fail", "--max-time", "5", url).returncode)

    parts = ("deployment/openrouter-guard", "deployment/openrouter-guard-operator")
    askers = [threading.Thread(target=ask) for _ in range(2)]
    for asker in askers:
        asker.start()
    try:
        fleet.node.kubectl("rollout", "restart", f"--namespace={GUARD}", *parts)
        for part in parts:
            fleet.node.kubectl("rollout", "status", part, f"--namespace={GUARD}", "--timeout=120s")
    finally:
        done.set()
        for asker in askers:
            asker.join()
    print(f"{len(answers)} requests")
    assert len(answers) > 20
    assert {*answers} == {0}


def test_a_worker_that_is_killed_for_its_memory_in_a_call_stops_nobody(fleet: Fleet) -> None:
    fleet.node.kubectl("apply", "--filename=-", stdin=json.dumps(eater()))
    try:
        fleet.until(lambda: ending(fleet) == "OOMKilled")
        served = fleet.calls()
        fleet.until(lambda: fleet.calls() > served + 6)
        assert is_back(fleet)
    finally:
        fleet.node.kubectl("delete", "pod", "eater", f"--namespace={TEAM}", "--now")


def ending(fleet: Fleet) -> str:
    (container,) = fleet.node.get("pod", "eater", f"--namespace={TEAM}")["status"].get("containerStatuses", [{}])
    return str(container.get("state", {}).get("terminated", {}).get("reason", ""))


@pytest.mark.parametrize(
    ("namespace", "selector", "grace_s"),
    [
        (GUARD, OPERATOR, 10),
        (GUARD, "app.kubernetes.io/component=health-service", 25),
        (TEAM, "app=summaries", 20),
    ],
)
def test_each_part_ends_well_within_its_grace(fleet: Fleet, namespace: str, selector: str, grace_s: int) -> None:
    where = [f"--namespace={namespace}", f"--selector={selector}"]
    ended = [pod["metadata"]["name"] for pod in fleet.node.get("pods", *where)["items"]]
    keep = '{"metadata": {"finalizers": ["tests.example/keep"]}}'
    drop = '{"metadata": {"finalizers": null}}'
    for name in ended:
        fleet.node.kubectl("patch", "pod", name, where[0], f"--patch={keep}", "--type=merge")
    fleet.node.kubectl("delete", "pod", *ended, where[0], "--wait=false")
    try:
        fleet.until(lambda: all(exit_code(fleet, namespace, name) is not None for name in ended))
        assert {exit_code(fleet, namespace, name) for name in ended} == {0}
    finally:
        for name in ended:
            fleet.node.kubectl("patch", "pod", name, where[0], f"--patch={drop}", "--type=merge")


def exit_code(fleet: Fleet, namespace: str, name: str) -> int | None:
    (container,) = fleet.node.get("pod", name, f"--namespace={namespace}")["status"]["containerStatuses"]
    terminated = container["state"].get("terminated")
    return int(terminated["exitCode"]) if terminated else None


def test_helm_tests_upgrades_and_rolls_back_what_is_paused(fleet: Fleet) -> None:
    paused(fleet)
    fleet.helm("test", "openrouter-guard", "--timeout=120s")
    fleet.upgrade(operator={"replicas": 1})
    fleet.until(lambda: is_paused(fleet))
    assert fleet.ready() <= 1  # a canary
    fleet.helm("rollback", "openrouter-guard", "--wait", "--timeout=120s")
    fleet.until(lambda: is_paused(fleet))
    assert fleet.ready() <= 1
    fleet.switch("healthy")
    fleet.until(lambda: is_back(fleet))


def test_uninstalling_during_a_pause_brings_all_back(fleet: Fleet) -> None:
    """Last: nothing is installed afterwards."""
    paused(fleet)
    fleet.helm("uninstall", "openrouter-guard", "--wait", "--timeout=120s")
    fleet.until(lambda: fleet.ready() == 6)
    fleet.node.kubectl("delete", "namespace", GUARD, TEAM, "--timeout=90s")
