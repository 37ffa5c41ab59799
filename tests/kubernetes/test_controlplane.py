"""The throwaway control plane is real, and leaves nothing behind."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.controlplane import ControlPlane, ControlPlaneFailed, KubectlFailed, server
from tests.controlplane.processes import free_port
from tests.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("control_plane")]  # without one: all are skipped

DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: workers}
spec:
  replicas: 2
  selector: {matchLabels: {app: workers}}
  template:
    metadata: {labels: {app: workers}}
    spec:
      containers: [{name: worker, image: "example.invalid/worker:1"}]
"""
READER = """
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: reader-views}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}
subjects: [{kind: ServiceAccount, name: reader}]
"""


@pytest.fixture
def workers(control_plane: ControlPlane, namespace: str) -> str:
    """The namespace of a Deployment that has its two pods."""
    control_plane.kubectl("apply", "--filename=-", f"--namespace={namespace}", input=DEPLOYMENT)
    until(lambda: len(pods(control_plane, namespace)) == 2)
    return namespace


@pytest.fixture
def reader(control_plane: ControlPlane, workers: str) -> Path:
    """The kubeconfig of a ServiceAccount that may look at one namespace, and do nothing."""
    control_plane.kubectl("create", "serviceaccount", "reader", f"--namespace={workers}")
    control_plane.kubectl("apply", "--filename=-", f"--namespace={workers}", input=READER)
    return control_plane.kubeconfig_for_service_account(workers, "reader")


def pods(control_plane: ControlPlane, namespace: str) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = control_plane.get("pods", f"--namespace={namespace}")["items"]
    return [pod for pod in listed if "deletionTimestamp" not in pod["metadata"]]


def scale(control_plane: ControlPlane, namespace: str, replicas: int, kubeconfig: Path | None = None) -> None:
    words = ("scale", "deployment/workers", f"--replicas={replicas}", f"--namespace={namespace}")
    control_plane.kubectl(*words, kubeconfig=kubeconfig)


def patches(control_plane: ControlPlane, namespace: str) -> list[str]:
    """Who patched the scale of something in the namespace."""
    return [
        event["user"]["username"]
        for event in control_plane.audit_events()
        if event["verb"] == "patch"
        and event["objectRef"].get("subresource") == "scale"
        and event["objectRef"].get("namespace") == namespace
    ]


def test_a_deployment_gets_a_replica_set_and_pending_pods(control_plane: ControlPlane, workers: str) -> None:
    replica_sets = control_plane.get("replicasets", f"--namespace={workers}")["items"]

    assert [replica_set["spec"]["replicas"] for replica_set in replica_sets] == [2]
    assert {pod["status"]["phase"] for pod in pods(control_plane, workers)} == {"Pending"}


def test_a_pod_runs_as_the_service_account_of_its_namespace(control_plane: ControlPlane, workers: str) -> None:
    assert {pod["spec"]["serviceAccountName"] for pod in pods(control_plane, workers)} == {"default"}


@pytest.mark.parametrize("replicas", [0, 5])
def test_scaling_a_deployment_changes_its_pods(control_plane: ControlPlane, workers: str, replicas: int) -> None:
    scale(control_plane, workers, replicas)

    until(lambda: len(pods(control_plane, workers)) == replicas)


def test_a_deleted_deployment_takes_its_pods_along(control_plane: ControlPlane, workers: str) -> None:
    control_plane.kubectl("delete", "deployment/workers", f"--namespace={workers}")

    until(lambda: not pods(control_plane, workers))


def test_a_deleted_namespace_goes_away(control_plane: ControlPlane, workers: str) -> None:
    control_plane.kubectl("delete", "namespace", workers, "--timeout=30s")

    with pytest.raises(KubectlFailed, match="not found"):
        control_plane.get("namespace", workers)


def test_an_autoscaler_says_that_scaling_is_disabled_at_0(control_plane: ControlPlane, workers: str) -> None:
    scale(control_plane, workers, 0)
    control_plane.kubectl("autoscale", "deployment/workers", "--max=3", "--cpu=80%", f"--namespace={workers}")

    control_plane.kubectl(
        "wait",
        "hpa/workers",
        '--for=jsonpath={.status.conditions[?(@.type=="ScalingActive")].reason}=ScalingDisabled',
        f"--namespace={workers}",
        "--timeout=20s",
    )


def test_a_manifest_is_applied_from_text_and_from_a_file(
    control_plane: ControlPlane, namespace: str, tmp_path: Path
) -> None:
    text = f"{{apiVersion: v1, kind: ConfigMap, metadata: {{name: settings, namespace: {namespace}}}}}"
    file = tmp_path / "settings.yaml"
    file.write_text(text)

    assert control_plane.apply(text) == "configmap/settings created\n"
    assert control_plane.apply(file) == "configmap/settings unchanged\n"


def test_the_audit_log_says_who_scaled(control_plane: ControlPlane, workers: str) -> None:
    operator = control_plane.kubeconfig_for("jane", ["system:masters"])

    scale(control_plane, workers, 0, kubeconfig=operator)

    until(lambda: patches(control_plane, workers) == ["jane"])


def test_a_user_without_rights_is_refused(control_plane: ControlPlane, workers: str) -> None:
    nobody = control_plane.kubeconfig_for("nobody", ["strangers"])

    with pytest.raises(KubectlFailed, match='User "nobody" cannot list resource "pods"'):
        control_plane.kubectl("get", "pods", f"--namespace={workers}", kubeconfig=nobody)


def test_a_service_account_may_do_what_its_role_allows(
    control_plane: ControlPlane, workers: str, reader: Path
) -> None:
    listed = control_plane.kubectl("get", "pods", f"--namespace={workers}", "--output=name", kubeconfig=reader)

    assert len(listed.split()) == 2


def test_a_service_account_may_do_nothing_else(control_plane: ControlPlane, workers: str, reader: Path) -> None:
    with pytest.raises(KubectlFailed, match="Forbidden"):
        scale(control_plane, workers, 0, kubeconfig=reader)
    with pytest.raises(KubectlFailed, match="Forbidden"):
        control_plane.kubectl("get", "pods", "--namespace=default", kubeconfig=reader)


# What follows starts control planes of its own, to break them or to see them end.


@pytest.fixture(scope="module")
def fragile() -> Iterator[ControlPlane]:
    with ControlPlane() as ours:
        yield ours


def test_a_killed_api_server_comes_back_with_its_data(fragile: ControlPlane) -> None:
    fragile.kubectl("create", "namespace", "kept")
    fragile.kill_apiserver()
    with pytest.raises(KubectlFailed, match="refused"):
        fragile.get("namespace", "kept")

    fragile.restart_apiserver()

    assert fragile.get("namespace", "kept")["metadata"]["name"] == "kept"


def test_a_paused_api_server_answers_later(fragile: ControlPlane) -> None:
    with fragile.pause_apiserver(), pytest.raises(KubectlFailed):
        fragile.kubectl("get", "--raw=/readyz", "--request-timeout=1s")

    assert fragile.kubectl("get", "--raw=/readyz") == "ok"


def test_a_port_that_somebody_else_took_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as somebody:
        somebody.bind(("127.0.0.1", 0))
        somebody.listen()
        taken = somebody.getsockname()[1]
        ports = iter([taken, free_port()])
        monkeypatch.setattr(server, "free_port", lambda: next(ports))

        with ControlPlane() as ours:
            assert not ours.url.endswith(f":{taken}")


def test_a_program_that_does_not_start_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("etcd", "kube-apiserver", "kube-controller-manager"):
        (tmp_path / name).write_text("#!/bin/sh\necho my disk is on fire\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path))
    ours = ControlPlane()

    with pytest.raises(ControlPlaneFailed, match=r"etcd ended:\nmy disk is on fire"), ours:
        pass
    assert not ours.workdir.exists()


def test_a_stopped_control_plane_leaves_nothing(control_plane: ControlPlane) -> None:
    with ControlPlane() as second:
        assert second.url != control_plane.url
        assert processes_in(second.workdir) == {process.pid for process in second.processes}

    assert not second.workdir.exists()
    assert not processes_in(second.workdir)


def test_a_failure_inside_leaves_nothing() -> None:
    with pytest.raises(ZeroDivisionError), ControlPlane() as ours:
        _ = 1 / 0

    assert not ours.workdir.exists()
    assert not processes_in(ours.workdir)


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.skipif(signal.getsignal(signal.SIGINT) is signal.SIG_IGN, reason="Ctrl-C is ignored in the background")
def test_a_signal_stops_it_cleanly(ending: signal.Signals) -> None:
    with in_the_foreground() as (command, workdir):
        command.send_signal(ending)

        assert command.wait(20) == 0
        assert not workdir.exists()
        assert not processes_in(workdir)


def test_even_a_killed_one_leaves_no_processes_and_the_next_removes_its_folder() -> None:
    with in_the_foreground() as (command, workdir):
        command.kill()
        command.wait()

        until(lambda: not processes_in(workdir))
        with ControlPlane():
            assert not workdir.exists()


@contextmanager
def in_the_foreground() -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """``python -m tests.controlplane`` once it is ready, and its folder."""
    command = [sys.executable, "-m", "tests.controlplane"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            printed = "".join(iter(process.stdout.readline, "Ctrl-C stops it and removes all of it.\n"))
            kubeconfig = re.search(r"export KUBECONFIG=(\S+)", printed)
            assert kubeconfig
            yield process, Path(kubeconfig[1]).parent
        finally:
            process.kill()


def processes_in(workdir: Path) -> set[int]:
    """The processes whose current directory is, or was, *workdir*."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            directory = (process / "cwd").readlink()
        except OSError:  # it has just ended
            continue
        if str(directory).removesuffix(" (deleted)") == str(workdir):
            found.add(int(process.name))
    return found
