"""The operator's settings from its environment."""

from __future__ import annotations

import pytest

from openrouter_guard.errors import ConfigurationError
from openrouter_operator.settings import OperatorSettings

REDIS = {"REDIS_URL": "redis://redis"}


def settings(**environ: str) -> OperatorSettings:
    return OperatorSettings.from_env(REDIS | {f"OPENROUTER_GUARD_{name}": value for name, value in environ.items()})


def test_without_any_it_looks_after_the_usual_kinds_everywhere_and_lets_nobody_override() -> None:
    found = settings()
    assert (found.namespaces, found.kinds) == ((), ("Deployment", "StatefulSet", "CronJob", "Job"))
    assert (found.resource_class, found.cluster, found.reads_secrets) == ("default", "kubernetes", False)
    assert not found.access.may_override("jobs", "default")


def test_lists_may_have_spaces() -> None:
    found = settings(NAMESPACES=" a , b,", KINDS="Deployment, rollouts.argoproj.io")
    assert (found.namespaces, found.kinds) == (("a", "b"), ("Deployment", "rollouts.argoproj.io"))


def test_operators_of_different_classes_have_different_leases() -> None:
    assert settings().lease_name == settings(CLASS="default").lease_name == "openrouter-guard-operator"
    assert settings(CLASS="blue").lease_name == "openrouter-guard-operator-blue"
    assert settings(CLASS="blue", LEASE_NAME="mine").lease_name == "mine"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        pytest.param("KINDS", "Deployments", "'Deployments': write Deployment, .* rollouts", id="a kind"),
        pytest.param("READ_SECRETS", "yes", "'yes': write true or false", id="a truth value"),
        pytest.param("STRICT_X509", "0", "'0': write true or false", id="another truth value"),
        pytest.param("CLASS", "Team A", "'Team A': write 1 to 40 of a-z, 0-9 and -", id="a name"),
        pytest.param("LEASE_SECONDS", "0", "'0': write a whole number from 1 to 3600", id="a number"),
    ],
)
def test_a_value_that_cannot_be_used_is_named_with_what_to_write(name: str, value: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=f"OPENROUTER_GUARD_{name} (is|has) {said}"):
        settings(**{name: value})
