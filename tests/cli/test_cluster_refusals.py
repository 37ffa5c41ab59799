"""The commands that need a kubeconfig, without what they need: one line says why, and the exit status is 1 or 2."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from openrouter_guard.cli.cluster.plan import in_file
from openrouter_guard.cli.cluster.where import connected, namespace_of
from openrouter_guard.errors import ConfigurationError
from tests.cli.commands import run
from tests.controlplane import ControlPlane
from tests.controlplane.kubeconfig import write_kubeconfig
from tests.operator.conftest import (  # noqa: F401  pytest looks fixtures up by their names here
    Fleet,
    crd,
    fleet,
    proxy,
)
from tests.operator.proxy import Answer, Proxy

pytestmark = pytest.mark.slow

COMMANDS = (("status",), ("why", "deploy/chat"), ("plan",), ("suspend",), ("resume",))
FAILED, MISUSED = 1, 2
TOKEN = "a-token-that-nobody-may-see"
BOTH = pytest.mark.parametrize("words", COMMANDS, ids=[each[0] for each in COMMANDS])


def refused(*words: str, status: int = FAILED, **environ: str) -> str:
    """The line on stderr, and nothing else."""
    done = run(*words, **environ)
    assert (done.returncode, done.stdout) == (status, ""), done
    if status == FAILED:
        assert done.stderr.count("\n") == 1, done.stderr
        assert done.stderr.startswith("openrouter-guard: ")
    return done.stderr


@BOTH
def test_without_a_kubeconfig(words: tuple[str, ...]) -> None:
    line = refused(*words, "--namespace=a", KUBECONFIG="/nonexistent/config")
    assert "no Kubernetes cluster: /nonexistent/config cannot be used (there is no such file)" in line


@BOTH
def test_without_an_api_server(words: tuple[str, ...], tmp_path: Path) -> None:
    file = write_kubeconfig(tmp_path / "config", url="http://127.0.0.1:1", authority=b"", credentials={})
    assert "the API server at http://127.0.0.1:1 does not answer" in refused(*words, "-n=a", KUBECONFIG=str(file))


def test_a_token_in_the_wrong_place_is_not_shown(tmp_path: Path) -> None:
    file = write_kubeconfig(tmp_path / "config", url="http://127.0.0.1:1", authority=b"", credentials={})
    config = json.loads(file.read_text())
    del config["users"][0]["user"]
    config["users"][0]["token"] = TOKEN
    file.write_text(json.dumps(config))
    line = refused("status", "-A", KUBECONFIG=str(file))
    assert "Expected key user in" in line
    assert TOKEN not in line


def test_a_damaged_manifest_shows_nothing_of_itself() -> None:
    with pytest.raises(ConfigurationError, match="the file is not YAML: see line 2") as error:
        in_file(f"kind: Secret\nstringData: {{key: {TOKEN}", "a")
    assert TOKEN not in str(error.value)


@pytest.mark.parametrize(
    "words",
    [
        ("status", "--namespace=Team_A"),
        ("status", "-A", "--namespace=a"),
        ("why", "deploy"),
        ("why", "deploy/a/b"),
        ("why", "deploy/.."),
        ("plan", "../secrets"),
        ("suspend", "a?b"),
        ("resume", "--namespace="),
    ],
)
def test_names_that_cannot_be(words: tuple[str, ...]) -> None:
    assert "usage: openrouter-guard " in refused(*words, status=MISUSED, KUBECONFIG="/nonexistent/config")


def test_the_setting_for_old_authorities_is_read() -> None:
    line = refused("status", "-A", OPENROUTER_GUARD_STRICT_X509="perhaps", KUBECONFIG="/nonexistent/config")
    assert "OPENROUTER_GUARD_STRICT_X509 is 'perhaps': write true or false" in line


@pytest.mark.parametrize("is_strict", [True, False])
async def test_the_setting_for_old_authorities_holds(
    is_strict: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_kubeconfig(tmp_path / "config", url="http://127.0.0.1:1", authority=b"", credentials={})
    monkeypatch.setattr("kubernetes.aio.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(file))
    monkeypatch.setenv("OPENROUTER_GUARD_STRICT_X509", str(is_strict).lower())
    async with await connected() as cluster:
        assert cluster.strict_x509 is is_strict


def test_the_namespace_is_that_of_the_chosen_context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_text(json.dumps({"contexts": [_context("a", namespace="team-a"), _context("b")]}))
    second.write_text(json.dumps({"contexts": [_context("a", namespace="other")], "current-context": "a"}))
    monkeypatch.setenv("KUBECONFIG", f"{first}:/nonexistent/config:{second}")
    assert namespace_of(None) == "team-a"
    assert namespace_of("given") == "given"
    second.write_text(json.dumps({"current-context": "b"}))
    assert namespace_of(None) == "default"
    second.write_text("[")
    assert namespace_of(None) == "default"


def _context(name: str, **context: str) -> dict[str, Any]:
    return {"name": name, "context": context}


@pytest.mark.cluster
@BOTH
def test_without_rights(words: tuple[str, ...], control_plane: ControlPlane, fleet: Fleet) -> None:  # noqa: F811
    fleet.deploy(chat=1)
    kubeconfig = str(control_plane.kubeconfig_for("nobody"))
    line = refused(*words, f"--namespace={fleet.namespace}", KUBECONFIG=kubeconfig)
    assert 'is forbidden: User "nobody" cannot ' in line


@pytest.mark.cluster
@BOTH
def test_with_a_token_that_has_expired(
    words: tuple[str, ...],
    proxy: Proxy,  # noqa: F811
    fleet: Fleet,  # noqa: F811
) -> None:
    proxy.use_token(TOKEN)
    line = refused(*words, f"--namespace={fleet.namespace}", KUBECONFIG=str(proxy.kubeconfig))
    assert "Unauthorized: the API server does not accept these credentials" in line
    assert TOKEN not in line


@pytest.mark.cluster
@BOTH
def test_without_the_crd(
    words: tuple[str, ...],
    proxy: Proxy,  # noqa: F811
    fleet: Fleet,  # noqa: F811
) -> None:
    fleet.deploy(chat=1)
    is_ours = "/apis/openrouter-guard.io/"
    proxy.rule = lambda seen: Answer(404, message="404 page not found") if seen.path.startswith(is_ours) else None
    line = refused(*words, f"--namespace={fleet.namespace}", KUBECONFIG=str(proxy.kubeconfig))
    assert "OpenRouterStatus is not installed in this cluster: install the chart" in line


@pytest.mark.cluster
@BOTH
def test_in_a_namespace_that_is_not_there(words: tuple[str, ...], control_plane: ControlPlane, crd: None) -> None:  # noqa: F811
    line = refused(*words, "--namespace=nowhere", KUBECONFIG=str(control_plane.kubeconfig))
    assert (
        "there is no namespace nowhere" in line or "there is no OpenRouterStatus default in namespace nowhere" in line
    )
