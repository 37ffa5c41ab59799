"""Network policies, and the ways into the health service from outside."""

from __future__ import annotations

from typing import Any

import pytest

from openrouter_guard.certificates import Certificate
from openrouter_guard.settings import Settings
from tests.chart.helm import MINIMAL, Helm, HelmFailed, Manifest
from tests.chart.test_manifests import HEALTH_SERVICE, OPERATOR, as_the_process_sees, container, environ, pod

pytestmark = pytest.mark.slow

TOKEN = {"readToken": {"existingSecret": {"name": "tokens"}}}
INGRESS = {"ingress": {"enabled": True, "hosts": ["guard.example"], "className": "nginx"}}
ROUTE = {"httpRoute": {"enabled": True, "parentRefs": [{"name": "gateway"}], "hostnames": ["guard.example"]}}


def ports(rules: list[Manifest]) -> list[set[tuple[str, int]]]:
    return [{(each["protocol"], each["port"]) for each in rule["ports"]} for rule in rules]


def policies(helm: Helm, redis: dict[str, Any], **parts: Any) -> dict[str, Manifest]:
    wanted: dict[str, Any] = {"redis": redis}
    for part in ("healthService", "operator"):
        given = parts.get(part, {})
        wanted[part] = {**given, "networkPolicy": {"enabled": True, **given.get("networkPolicy", {})}}
    return {each["metadata"]["name"]: each["spec"] for each in helm.render(wanted).all("NetworkPolicy")}


DNS = {(protocol, port) for protocol in ("UDP", "TCP") for port in (53, 5353)}
SECRET = MINIMAL["redis"]


class TestPolicies:
    def test_there_are_none_unless_asked_for(self, helm: Helm) -> None:
        assert not helm.render().all("NetworkPolicy")

    def test_each_part_reaches_what_it_needs_and_no_more(self, helm: Helm) -> None:
        found = policies(helm, SECRET)
        assert ports(found[HEALTH_SERVICE]["ingress"]) == [{("TCP", 8080)}]
        assert ports(found[HEALTH_SERVICE]["egress"]) == [DNS, {("TCP", 6379)}, {("TCP", 443)}]
        assert ports(found[OPERATOR]["ingress"]) == [{("TCP", 8081)}]
        assert ports(found[OPERATOR]["egress"]) == [DNS, {("TCP", 6379)}, {("TCP", 443), ("TCP", 6443)}]

    def test_the_service_asks_the_api_server_only_whose_tokens_are_sent(self, helm: Helm) -> None:
        found = policies(helm, SECRET, healthService={"reporters": {"namespaces": {"workers": []}}})
        assert ("TCP", 6443) in ports(found[HEALTH_SERVICE]["egress"])[2]

    @pytest.mark.parametrize(
        ("url", "expected"),
        [
            ("redis://redis:6380/0", {6380}),
            ("redis://redis/0", {6379}),
            ("redis+sentinel://a:26379,b:26380/main/0", {26379, 26380}),
        ],
    )
    def test_the_port_of_redis_is_that_of_the_address(self, helm: Helm, url: str, expected: set[int]) -> None:
        for spec in policies(helm, {"url": url}).values():
            assert {port for _, port in ports(spec["egress"])[1]} == expected

    def test_where_redis_is_can_be_said(self, helm: Helm) -> None:
        peer = {"podSelector": {"matchLabels": {"app": "redis"}}}
        rules = {"networkPolicy": {"redisTo": [peer], "redisPorts": [6390], "extraEgress": [{"ports": []}]}}
        spec = policies(helm, SECRET, operator=rules)[OPERATOR]
        assert spec["egress"][1] == {"ports": [{"port": 6390, "protocol": "TCP"}], "to": [peer]}
        assert spec["egress"][-1] == {"ports": []}

    def test_who_may_ask_can_be_said_and_helm_test_may(self, helm: Helm) -> None:
        peer = {"namespaceSelector": {"matchLabels": {"team": "a"}}}
        spec = policies(helm, SECRET, healthService={"networkPolicy": {"from": [peer]}})[HEALTH_SERVICE]
        first, second = spec["ingress"][0]["from"]
        assert first == peer
        assert second["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "test"

    def test_they_are_of_the_pods_of_one_part_and_of_what_restores_for_it(self, helm: Helm) -> None:
        found = policies(helm, SECRET)
        wanted = found[HEALTH_SERVICE]["podSelector"]["matchLabels"]
        assert wanted["app.kubernetes.io/component"] == "health-service"
        (expression,) = found[OPERATOR]["podSelector"]["matchExpressions"]
        assert expression["values"] == ["operator", "restore"]


class TestPublishing:
    @pytest.mark.parametrize("how", [INGRESS, ROUTE], ids=["Ingress", "HTTPRoute"])
    def test_nothing_leads_there_without_a_token(self, helm: Helm, how: dict[str, Any]) -> None:
        with pytest.raises(HelmFailed, match=r"need healthService\.readToken\.existingSecret\.name"):
            helm.render({**MINIMAL, "healthService": how})

    def test_an_ingress_leads_to_the_service(self, helm: Helm) -> None:
        manifests = helm.render({**MINIMAL, "healthService": {**TOKEN, **INGRESS}})
        (ingress,) = manifests.all("Ingress")
        (rule,) = ingress["spec"]["rules"]
        service = manifests.one("Service", rule["http"]["paths"][0]["backend"]["service"]["name"])
        assert service["metadata"]["name"] == HEALTH_SERVICE
        assert (rule["host"], ingress["spec"]["ingressClassName"]) == ("guard.example", "nginx")

    def test_a_route_leads_to_the_service(self, helm: Helm) -> None:
        manifests = helm.render({**MINIMAL, "healthService": {**TOKEN, **ROUTE}})
        (route,) = manifests.all("HTTPRoute")
        (backend,) = route["spec"]["rules"][0]["backendRefs"]
        service = manifests.one("Service", backend["name"])
        assert backend["port"] == service["spec"]["ports"][0]["port"]
        assert route["spec"]["parentRefs"] == [{"name": "gateway"}]

    @pytest.mark.parametrize(
        ("how", "message"),
        [({"ingress": {"enabled": True}}, "hosts"), ({"httpRoute": {"enabled": True}}, "parentRefs")],
    )
    def test_one_that_leads_from_nowhere_is_refused(self, helm: Helm, how: dict[str, Any], message: str) -> None:
        with pytest.raises(HelmFailed, match=message):
            helm.render({**MINIMAL, "healthService": {**TOKEN, **how}})


WITH_TLS: dict[str, Any] = {**MINIMAL, "tls": {"enabled": True, "secretName": "certificate"}}


class TestTls:
    @pytest.mark.parametrize("name", [HEALTH_SERVICE, OPERATOR])
    def test_both_parts_serve_with_it_and_are_probed_so(self, helm: Helm, name: str) -> None:
        manifests = helm.render(WITH_TLS)
        settings = Settings.from_env(as_the_process_sees(environ(manifests, name)))
        found = container(manifests, name)
        (mount,) = found["volumeMounts"]
        (volume,) = pod(manifests, name)["volumes"]
        assert volume["secret"] == {"secretName": "certificate"}
        assert settings.certificate == Certificate(f"{mount['mountPath']}/tls.crt", f"{mount['mountPath']}/tls.key")
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            assert found[probe]["httpGet"]["scheme"] == "HTTPS"

    def test_cert_manager_makes_the_secret_that_is_mounted(self, helm: Helm) -> None:
        asked = {"enabled": True, "issuerRef": {"name": "internal"}, "dnsNames": ["guard.example"]}
        manifests = helm.render({**MINIMAL, "tls": {"enabled": True, "certManager": asked}})
        (certificate,) = manifests.all("Certificate")
        (volume,) = pod(manifests, OPERATOR)["volumes"]
        assert certificate["spec"]["secretName"] == volume["secret"]["secretName"]
        wanted = {f"{name}.guard.svc" for name in (HEALTH_SERVICE, OPERATOR)} | {HEALTH_SERVICE, "guard.example"}
        assert wanted <= set(certificate["spec"]["dnsNames"])
        assert certificate["spec"]["issuerRef"] == {"name": "internal", "kind": "Issuer", "group": "cert-manager.io"}

    def test_prometheus_knows_whom_it_speaks_to(self, helm: Helm) -> None:
        asked = {"enabled": True, "issuerRef": {"name": "internal"}}
        values = {**MINIMAL, "tls": {"enabled": True, "certManager": asked}, "serviceMonitor": {"enabled": True}}
        (endpoint,) = helm.render(values).one("ServiceMonitor", HEALTH_SERVICE)["spec"]["endpoints"]
        authority = {"secret": {"name": f"{HEALTH_SERVICE}-tls", "key": "ca.crt"}}
        assert endpoint["scheme"] == "https"
        assert endpoint["tlsConfig"] == {"serverName": f"{HEALTH_SERVICE}.guard.svc", "ca": authority}

    @pytest.mark.parametrize(
        ("tls", "message"),
        [
            ({"enabled": True}, "there is no certificate: name a Secret"),
            ({"enabled": True, "certManager": {"enabled": True}}, r"tls\.certManager\.issuerRef\.name is empty"),
        ],
    )
    def test_a_certificate_that_nobody_has_is_refused(self, helm: Helm, tls: dict[str, Any], message: str) -> None:
        with pytest.raises(HelmFailed, match=message):
            helm.render({**MINIMAL, "tls": tls})
