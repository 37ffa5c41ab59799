"""The pods of both parts: placement, security context, environment, and probes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from tests.chart.helm import MINIMAL, Helm, HelmFailed, Manifest, Manifests
from tests.chart.test_manifests import HEALTH_SERVICE, OPERATOR, container, environ, pod

pytestmark = pytest.mark.slow

PARTS = {"healthService": HEALTH_SERVICE, "operator": OPERATOR}
EACH = pytest.mark.parametrize("part", PARTS)
COMPONENTS = {"healthService": "health-service", "operator": "operator"}
HOSTNAME = "kubernetes.io/hostname"


def rendered(helm: Helm, part: str, values: Mapping[str, Any]) -> Manifests:
    return helm.render({**MINIMAL, part: values})


def own_labels(manifests: Manifests, part: str) -> Manifest:
    selector: Manifest = manifests.one("Deployment", PARTS[part])["spec"]["selector"]
    return selector


class TestPlaces:
    @EACH
    def test_its_pods_keep_apart_where_that_can_be(self, helm: Helm, part: str) -> None:
        manifests = helm.render()
        (term,) = pod(manifests, PARTS[part])["affinity"]["podAntiAffinity"][
            "preferredDuringSchedulingIgnoredDuringExecution"
        ]
        assert term["podAffinityTerm"] == {"topologyKey": HOSTNAME, "labelSelector": own_labels(manifests, part)}

    @EACH
    def test_or_always_or_not_at_all(self, helm: Helm, part: str) -> None:
        hard = rendered(helm, part, {"podAntiAffinity": "hard"})
        (term,) = pod(hard, PARTS[part])["affinity"]["podAntiAffinity"][
            "requiredDuringSchedulingIgnoredDuringExecution"
        ]
        assert term == {"topologyKey": HOSTNAME, "labelSelector": own_labels(hard, part)}
        assert "affinity" not in pod(rendered(helm, part, {"podAntiAffinity": "none"}), PARTS[part])

    @EACH
    def test_a_wish_of_the_user_s_own_goes_before(self, helm: Helm, part: str) -> None:
        affinity: dict[str, Any] = {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}}
        assert pod(rendered(helm, part, {"affinity": affinity}), PARTS[part])["affinity"] == affinity

    @EACH
    def test_a_spread_without_a_selector_is_over_its_own_pods(self, helm: Helm, part: str) -> None:
        bare = {"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "ScheduleAnyway"}
        chosen = {**bare, "labelSelector": {"matchLabels": {"team": "a"}}}
        manifests = rendered(helm, part, {"topologySpreadConstraints": [bare, chosen]})
        filled = {**bare, "labelSelector": own_labels(manifests, part)}
        assert pod(manifests, PARTS[part])["topologySpreadConstraints"] == [filled, chosen]


class TestSecurityContexts:
    @EACH
    def test_null_takes_a_field_out(self, helm: Helm, part: str) -> None:
        values = {**MINIMAL, "podSecurityContext": {"runAsUser": None, "runAsGroup": None}}
        found = pod(helm.render(values), PARTS[part])["securityContext"]
        assert found == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}

    @EACH
    def test_those_of_a_part_go_before_those_of_all(self, helm: Helm, part: str) -> None:
        own = {"podSecurityContext": {"runAsUser": 7, "runAsGroup": None, "fsGroup": 7}}
        manifests = rendered(helm, part, {**own, "containerSecurityContext": {"readOnlyRootFilesystem": False}})
        found = pod(manifests, PARTS[part])["securityContext"]
        assert (found["runAsUser"], found["fsGroup"], "runAsGroup" in found) == (7, 7, False)
        assert container(manifests, PARTS[part])["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": False,
            "capabilities": {"drop": ["ALL"]},
        }
        (other,) = (name for name in PARTS.values() if name != PARTS[part])
        assert pod(manifests, other)["securityContext"]["runAsUser"] == 65534

    def test_the_jobs_of_helm_have_them_too(self, helm: Helm) -> None:
        values = {**MINIMAL, "podSecurityContext": {"runAsUser": None}}
        hooks = helm.render_all(values).all("Job", "Pod")
        specs = [each["spec"]["template"]["spec"] if each["kind"] == "Job" else each["spec"] for each in hooks]
        assert len(specs) == 3
        assert all("runAsUser" not in spec["securityContext"] for spec in specs)


class TestProbes:
    @EACH
    def test_a_slow_start_has_five_minutes_and_a_slow_answer_one(self, helm: Helm, part: str) -> None:
        found = container(helm.render(), PARTS[part])
        start, alive = found["startupProbe"], found["livenessProbe"]
        assert start["httpGet"] == alive["httpGet"]
        assert start["periodSeconds"] * start["failureThreshold"] >= 300
        assert alive["periodSeconds"] * alive["failureThreshold"] >= 60
        assert alive["timeoutSeconds"] >= 10

    @EACH
    @pytest.mark.parametrize("name", ["startupProbe", "livenessProbe", "readinessProbe"])
    def test_each_can_be_changed_field_by_field(self, helm: Helm, part: str, name: str) -> None:
        before = container(helm.render(), PARTS[part])[name]
        after = container(rendered(helm, part, {name: {"failureThreshold": 7}}), PARTS[part])[name]
        assert after == {**before, "failureThreshold": 7}

    @EACH
    def test_no_cpu_limit_by_default(self, helm: Helm, part: str) -> None:
        assert container(helm.render(), PARTS[part])["resources"]["limits"].keys() == {"memory"}


class TestEnvironment:
    @EACH
    def test_what_the_user_sets_goes_before_what_the_chart_sets(self, helm: Helm, part: str) -> None:
        extra = [{"name": "OPENROUTER_GUARD_LOG_LEVEL", "value": "DEBUG"}, {"name": "HTTPS_PROXY", "value": "p"}]
        manifests = rendered(helm, part, {"extraEnv": extra})
        names = [each["name"] for each in container(manifests, PARTS[part])["env"]]
        assert sorted(names) == sorted(set(names))
        assert environ(manifests, PARTS[part])["OPENROUTER_GUARD_LOG_LEVEL"] == "DEBUG"
        assert names[-1] == "HTTPS_PROXY"

    @EACH
    def test_nothing_is_set_twice(self, helm: Helm, part: str) -> None:
        twice = [{"name": "HTTPS_PROXY", "value": "a"}, {"name": "HTTPS_PROXY", "value": "b"}]
        with pytest.raises(HelmFailed, match=rf"{part}\.extraEnv has HTTPS_PROXY twice"):
            rendered(helm, part, {"extraEnv": twice})

    @pytest.mark.parametrize("name", ["NAMESPACES", "KINDS", "CLASS", "LEASE_NAME", "OPERATOR_PORT"])
    def test_what_has_to_agree_with_rights_and_probes_is_refused(self, helm: Helm, name: str) -> None:
        extra = [{"name": f"OPENROUTER_GUARD_{name}", "value": "x"}]
        with pytest.raises(HelmFailed, match=f"operator.extraEnv has OPENROUTER_GUARD_{name}, which has to agree"):
            rendered(helm, "operator", {"extraEnv": extra})


class TestMore:
    @EACH
    def test_what_else_a_pod_can_be_given(self, helm: Helm, part: str) -> None:
        values: dict[str, Any] = {
            "priorityClassName": "system-cluster-critical",
            "dnsPolicy": "None",
            "dnsConfig": {"nameservers": ["10.0.0.10"]},
            "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["redis"]}],
            "initContainers": [{"name": "wait", "image": "busybox"}],
        }
        found = pod(rendered(helm, part, values), PARTS[part])
        assert {key: found[key] for key in values} == values

    @EACH
    def test_on_the_host_s_network_services_are_still_found_by_name(self, helm: Helm, part: str) -> None:
        found = pod(rendered(helm, part, {"hostNetwork": True}), PARTS[part])
        assert (found["hostNetwork"], found["dnsPolicy"]) == (True, "ClusterFirstWithHostNet")
        chosen = pod(rendered(helm, part, {"hostNetwork": True, "dnsPolicy": "Default"}), PARTS[part])
        assert chosen["dnsPolicy"] == "Default"

    @EACH
    def test_what_else_a_container_can_be_given(self, helm: Helm, part: str) -> None:
        volume, mount = {"name": "ca", "configMap": {"name": "ca"}}, {"name": "ca", "mountPath": "/etc/ca"}
        sidecar = {"name": "sidecar", "image": "busybox"}
        manifests = helm.render(
            {
                "redis": {"url": "rediss://redis", "tls": {"secretName": "redis-tls"}},
                part: {
                    "extraVolumes": [volume],
                    "extraVolumeMounts": [mount],
                    "envFrom": [{"secretRef": {"name": "proxy"}}],
                    "extraArgs": ["--more"],
                    "extraContainers": [sidecar],
                },
            }
        )
        spec = pod(manifests, PARTS[part])
        ours, other = spec["containers"]
        assert [each["name"] for each in spec["volumes"]] == ["redis-tls", "ca"]
        assert [each["name"] for each in ours["volumeMounts"]] == ["redis-tls", "ca"]
        assert ours["envFrom"] == [{"secretRef": {"name": "proxy"}}]
        assert ours["args"][-1] == "--more"
        assert other == sidecar

    @EACH
    def test_the_deployment_can_be_rolled_out_otherwise(self, helm: Helm, part: str) -> None:
        values = {"strategy": {"type": "Recreate"}, "revisionHistoryLimit": 2}
        spec = rendered(helm, part, values).one("Deployment", PARTS[part])["spec"]
        assert (spec["strategy"], spec["revisionHistoryLimit"]) == ({"type": "Recreate"}, 2)


class TestBudgets:
    def test_pods_that_are_not_ready_block_no_drain(self, helm: Helm) -> None:
        (budget,) = helm.render().all("PodDisruptionBudget")
        assert budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"

    def test_the_operator_has_one_where_it_has_replicas(self, helm: Helm) -> None:
        budget = rendered(helm, "operator", {"replicas": 2}).one("PodDisruptionBudget", OPERATOR)
        assert budget["spec"]["maxUnavailable"] == 1
        assert budget["spec"]["selector"]["matchLabels"]["app.kubernetes.io/component"] == "operator"


class TestAutoscaling:
    def test_whoever_scales_says_how_many_there_are(self, helm: Helm) -> None:
        manifests = rendered(helm, "healthService", {"autoscaling": {"enabled": True, "memoryPercent": 70}})
        (scaler,) = manifests.all("HorizontalPodAutoscaler")
        assert scaler["spec"]["scaleTargetRef"]["name"] == HEALTH_SERVICE
        targets = {
            each["resource"]["name"]: each["resource"]["target"]["averageUtilization"]
            for each in scaler["spec"]["metrics"]
        }
        assert targets == {"cpu": 80, "memory": 70}
        assert "replicas" not in manifests.one("Deployment", HEALTH_SERVICE)["spec"]
