"""The operator and ``rescue`` with the pruned Kubernetes client of the image."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.controlplane import ControlPlane
from tests.operator.conftest import Fleet
from tests.packaging.images import Image, installed
from tests.ports import free_port

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    return installed(tmp_path_factory.mktemp("image"))


@pytest.fixture
def plugin(control_plane: ControlPlane, namespace: str, tmp_path: Path) -> Iterator[Path]:
    """A kubeconfig whose credentials come from an exec plugin, as those of the large clouds do."""
    binding = f"{namespace}-rescuer"
    control_plane.kubectl("create", "serviceaccount", "rescuer", f"--namespace={namespace}")
    account = f"--serviceaccount={namespace}:rescuer"
    control_plane.kubectl("create", "clusterrolebinding", binding, "--clusterrole=cluster-admin", account)
    token = control_plane.kubectl("create", "token", "rescuer", f"--namespace={namespace}").strip()
    credential = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential"}
    answer = tmp_path / "credential.json"
    answer.write_text(json.dumps(credential | {"status": {"token": token}}))
    config = yaml.safe_load(control_plane.kubeconfig.read_text())
    run = {"apiVersion": credential["apiVersion"], "command": "cat", "args": [str(answer)]}
    config["users"][0]["user"] = {"exec": run | {"interactiveMode": "Never"}}
    path = tmp_path / "exec.kubeconfig"
    path.write_text(yaml.safe_dump(config))
    yield path
    control_plane.kubectl("delete", "clusterrolebinding", binding)


def test_the_operator_pauses_and_rescue_restores_with_an_exec_plugin(
    image: Image, fleet: Fleet, control_plane: ControlPlane, plugin: Path, redis_url: str, tmp_path: Path
) -> None:
    environ = {
        "KUBECONFIG": str(control_plane.kubeconfig),
        "REDIS_URL": redis_url,
        "OPENROUTER_GUARD_NAMESPACES": fleet.namespace,
        "OPENROUTER_GUARD_LEASE_NAMESPACE": fleet.namespace,
        "OPENROUTER_GUARD_OPERATOR_PORT": str(free_port()),
    }
    fleet.deploy(web=3)
    with image.running(tmp_path / "operate.log", "operate", **environ):
        fleet.watch()
        fleet.force("forced_open")
        fleet.until_replicas(web=0)
    environ["KUBECONFIG"] = str(plugin)
    shown = image.command("status", "--namespace", fleet.namespace, **environ)
    assert (shown.returncode, "1/1" in shown.stdout) == (0, True), shown.stderr
    done = image.command("rescue", "--namespace", fleet.namespace, **environ)
    assert done.returncode == 0, done.stderr
    assert fleet.replicas() == {"web": 3}
