"""How Prometheus finds both parts, by Services or by pods."""

from __future__ import annotations

from typing import Any

import pytest

from tests.chart.helm import MINIMAL, Helm, Manifest, Manifests
from tests.chart.test_manifests import HEALTH_SERVICE, OPERATOR

pytestmark = pytest.mark.slow

KINDS = {"ServiceMonitor": "endpoints", "PodMonitor": "podMetricsEndpoints"}
BOTH_KINDS = pytest.mark.parametrize("kind", KINDS)
READ_TOKEN = {"readToken": {"existingSecret": {"name": "tokens", "key": "reader"}}}


def rendered(helm: Helm, kind: str, **values: Any) -> Manifests:
    name = kind[0].lower() + kind[1:]
    return helm.render({**MINIMAL, "healthService": READ_TOKEN, name: {"enabled": True, **values}})


def endpoint(manifests: Manifests, kind: str, name: str) -> Manifest:
    found: Manifest
    (found,) = manifests.one(kind, name)["spec"][KINDS[kind]]
    return found


@BOTH_KINDS
@pytest.mark.parametrize("name", [HEALTH_SERVICE, OPERATOR])
def test_both_parts_are_found_at_their_port(helm: Helm, kind: str, name: str) -> None:
    manifests = rendered(helm, kind, labels={"release": "prometheus"}, annotations={"team": "a"})
    monitor = manifests.one(kind, name)
    labels = manifests.one("Deployment", name)["spec"]["template"]["metadata"]["labels"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    assert monitor["metadata"]["annotations"] == {"team": "a"}
    found = endpoint(manifests, kind, name)
    assert (found["port"], found["path"], found["scheme"]) == ("http", "/metrics", "http")


@BOTH_KINDS
def test_the_token_goes_to_the_part_that_asks_for_one(helm: Helm, kind: str) -> None:
    manifests = rendered(helm, kind)
    credentials = {"name": "tokens", "key": "reader"}
    assert endpoint(manifests, kind, HEALTH_SERVICE)["authorization"]["credentials"] == credentials
    assert "authorization" not in endpoint(manifests, kind, OPERATOR)


@BOTH_KINDS
def test_what_an_endpoint_can_be_told(helm: Helm, kind: str) -> None:
    values: dict[str, Any] = {
        "scheme": "https",
        "scrapeTimeout": "5s",
        "tlsConfig": {"insecureSkipVerify": True},
        "honorLabels": True,
        "relabelings": [{"action": "labeldrop", "regex": "pod"}],
        "metricRelabelings": [{"action": "drop", "regex": "python_.*"}],
    }
    found = endpoint(rendered(helm, kind, **values), kind, OPERATOR)
    assert {key: found[key] for key in values} == values


@BOTH_KINDS
def test_from_another_namespace_it_looks_into_the_release_s(helm: Helm, kind: str) -> None:
    monitor = rendered(helm, kind, namespace="monitoring").one(kind, HEALTH_SERVICE)
    assert monitor["metadata"]["namespace"] == "monitoring"
    assert monitor["spec"]["namespaceSelector"] == {"matchNames": ["guard"]}


def test_pods_need_no_service_of_the_operator(helm: Helm) -> None:
    names = rendered(helm, "PodMonitor").names
    assert f"Service/{OPERATOR}" not in names
    assert f"Service/{OPERATOR}" in rendered(helm, "ServiceMonitor").names
