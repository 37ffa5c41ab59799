"""``openrouter-guard operate`` with invalid settings; tests/operator uses valid ones."""

from __future__ import annotations

import pytest

from tests.cli.commands import NOBODY, run

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        pytest.param({}, "REDIS_URL is not set", id="no address of Redis"),
        pytest.param({"REDIS_URL": "localhost:6379"}, "REDIS_URL is not an address", id="not an address"),
        pytest.param(
            {"REDIS_URL": NOBODY, "OPENROUTER_GUARD_LEASE_SECONDS": "soon"},
            "OPENROUTER_GUARD_LEASE_SECONDS is 'soon': write a whole number from 1 to 3600",
            id="not a number",
        ),
        pytest.param(
            {"REDIS_URL": NOBODY, "OPENROUTER_GUARD_OPERATOR_PORT": "99999"},
            "OPENROUTER_GUARD_OPERATOR_PORT is '99999'",
            id="not a port",
        ),
        pytest.param(
            {"REDIS_URL": NOBODY, "KUBECONFIG": "/nonexistent"},
            "no Kubernetes cluster: /nonexistent cannot be used",
            id="no cluster",
        ),
    ],
)
def test_what_cannot_be_used_is_one_line(environ: dict[str, str], words: str) -> None:
    done = run("operate", **environ)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("openrouter-guard: ")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert "hunter2" not in done.stderr


def test_a_variable_that_is_no_setting_is_told_once() -> None:
    done = run("operate", REDIS_URL=NOBODY, KUBECONFIG="/nonexistent", OPENROUTER_GUARD_NAMESPACE="team-a")
    typo, error = done.stderr.splitlines()
    assert typo.endswith(
        "OPENROUTER_GUARD_NAMESPACE is not a setting and has no effect: did you mean OPENROUTER_GUARD_NAMESPACES?"
    )
    assert error.startswith("openrouter-guard: no Kubernetes cluster")
