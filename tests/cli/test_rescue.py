"""``openrouter-guard rescue`` with invalid names: it reports them before it contacts a cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.commands import run

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("kind", "advice"),
    [
        ("Deploymnet", "did you mean Deployment?"),
        ("deployments", "did you mean Deployment?"),
        ("statefulset", "did you mean StatefulSet?"),
        ("Widget", "write Deployment, "),
    ],
)
def test_a_kind_that_cannot_be_is_refused_with_what_was_meant(kind: str, advice: str) -> None:
    done = run("rescue", "--all-namespaces", f"--kind={kind}", KUBECONFIG="/nowhere")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"openrouter-guard: --kind {kind} is not a kind of workloads: {advice}")
    assert done.stderr.count("\n") == 1


def test_an_empty_namespace_is_not_all_of_them() -> None:
    done = run("rescue", "--namespace", "", KUBECONFIG="/nowhere")
    assert done.returncode == 2
    assert "argument -n/--namespace: it is empty: write a name, or -A for all namespaces" in done.stderr


@pytest.mark.parametrize("option", ["--take-lease", "--delete-lease"])
def test_a_lease_is_named_with_its_namespace(option: str) -> None:
    done = run("rescue", "--all-namespaces", option, "openrouter-guard-operator", KUBECONFIG="/nowhere")
    assert done.returncode == 2
    assert f"argument {option}: 'openrouter-guard-operator': write a namespace and a name" in done.stderr


@pytest.mark.parametrize(
    "content",
    ["", "- a\n", "}{", "\x00", "current-context: a\n", "current-context: a\ncontexts: [1]\n", "contexts:\n  a: {\n"],
)
def test_a_kubeconfig_without_a_cluster_is_one_line(tmp_path: Path, content: str) -> None:
    config = tmp_path / "config"
    config.write_text(content)
    done = run("rescue", "--all-namespaces", KUBECONFIG=str(config))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"openrouter-guard: no Kubernetes cluster: {config} cannot be used (")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("words", [("rescue", "--all-namespaces"), ("operate",), ("suspend", "default")])
def test_nor_does_a_user_without_a_home_get_more_than_a_line(words: tuple[str, ...]) -> None:
    done = run(*words, KUBECONFIG="~nobody-of-that-name/config", REDIS_URL="redis://127.0.0.1:1")
    assert "Traceback" not in done.stderr
    assert "~nobody-of-that-name/config cannot be used (there is no such file)" in done.stderr
