"""The rendered manifests, asserted as the desired state of the cluster."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from openrouter_guard.settings import Settings
from openrouter_operator.settings import OperatorSettings
from openrouter_operator.workloads.kinds import BY_NAME
from tests.chart.helm import CRD, CRD_NAME, MINIMAL, Helm, Manifest, Manifests

pytestmark = pytest.mark.slow

HEALTH_SERVICE, OPERATOR = "openrouter-guard", "openrouter-guard-operator"
BOTH = pytest.mark.parametrize("name", [HEALTH_SERVICE, OPERATOR])
CLUSTER_SCOPED = {"nodes", "namespaces", "customresourcedefinitions", "clusterroles", "persistentvolumes"}
EVERYTHING: dict[str, Any] = {
    "redis": {"existingSecret": {"name": "redis", "key": "address"}},
    "openrouter": {
        "existingSecret": {"name": "openrouter"},
        "managementKey": {"existingSecret": {"name": "openrouter"}},
        "furtherScopes": [
            {"scope": "team-b", "existingSecret": {"name": "team-b", "key": "api-key"}},
            {"scope": "c"},
        ],
        "baseUrl": "https://proxy.example/api/v1",
    },
    "scope": "team-a",
    "thresholds": {
        "FAILURE_THRESHOLD": 7,
        "RESET_TIMEOUT_SECONDS": 80_000,
        "MAX_RESET_TIMEOUT_SECONDS": 80_000,
        "FRESH_SECONDS": 0.5,
    },
    "image": {"repository": "registry.example/guard", "digest": f"sha256:{'a' * 64}"},
    "imagePullSecrets": [{"name": "pull"}],
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "healthService": {
        "reporters": {"namespaces": {"workers": [], "chat": ["team-a", "c"]}},
        "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy.example"}],
        "writeToken": {"existingSecret": {"name": "tokens"}},
        "reportToken": {"existingSecret": {"name": "tokens"}},
        "webhook": {
            "existingSecret": {"name": "chat"},
            "signingSecret": {"existingSecret": {"name": "chat"}},
            "format": "slack",
        },
        "publicUrl": "https://guard.example",
        "readToken": {"existingSecret": {"name": "tokens", "key": "reader"}},
    },
    "operator": {
        "namespaces": ["team-a", "team-b"],
        "nodeSelector": {"pool": "system"},
        "tolerations": [{"key": "system", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "topologySpreadConstraints": [{"maxSkew": 1}],
        "podAnnotations": {"team": "platform"},
    },
}
DEFAULT_KINDS = [("apps", "deployments"), ("apps", "statefulsets"), ("batch", "cronjobs"), ("batch", "jobs")]
RIGHTS = {
    *(("openrouter-guard.io", "openrouterstatuses", verb) for verb in ("get", "list", "watch", "patch")),
    ("openrouter-guard.io", "openrouterstatuses/status", "update"),
    *((group, plural, verb) for group, plural in DEFAULT_KINDS for verb in ("get", "list", "watch", "patch")),
    *(("apps", "replicasets", verb) for verb in ("list", "patch")),
    *(("autoscaling", "horizontalpodautoscalers", verb) for verb in ("list", "watch")),
    ("", "events", "create"),
}


@pytest.fixture(scope="module")
def minimal(helm: Helm) -> Manifests:
    return helm.render()


@pytest.fixture(scope="module")
def everything(helm: Helm) -> Manifests:
    return helm.render(EVERYTHING)


def pod(manifests: Manifests, name: str) -> Manifest:
    found: Manifest = manifests.one("Deployment", name)["spec"]["template"]["spec"]
    return found


def container(manifests: Manifests, name: str) -> Manifest:
    (found,) = pod(manifests, name)["containers"]
    return dict(found)


def environ(manifests: Manifests, name: str) -> dict[str, Any]:
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in container(manifests, name)["env"]}


def as_the_process_sees(environ: dict[str, Any]) -> dict[str, str]:
    """The environment without what only a cluster can fill in, but with some Redis and some API server."""
    written = {name: value for name, value in environ.items() if isinstance(value, str)}
    return {**written, "REDIS_URL": "redis://redis", "KUBERNETES_SERVICE_HOST": "10.0.0.1"}


def operator_settings(manifests: Manifests) -> OperatorSettings:
    return OperatorSettings.from_env(as_the_process_sees(environ(manifests, OPERATOR)))


def rules(role: Manifest) -> set[tuple[str, str, str]]:
    """Each right as (group, resource, verb)."""
    return {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


class TestEveryObject:
    def test_one_namespace_and_a_cluster_role_by_default(self, minimal: Manifests) -> None:
        assert minimal.names == {
            f"CustomResourceDefinition/{CRD_NAME}",
            "ClusterRole/guard-openrouter-guard-edit",
            "ClusterRole/guard-openrouter-guard-operator",
            "ClusterRole/guard-openrouter-guard-view",
            "ClusterRoleBinding/guard-openrouter-guard-operator",
            "Deployment/openrouter-guard",
            "Deployment/openrouter-guard-operator",
            "PodDisruptionBudget/openrouter-guard",
            "Role/openrouter-guard-operator-lease",
            "RoleBinding/openrouter-guard-operator-lease",
            "Service/openrouter-guard",
            "ServiceAccount/openrouter-guard-operator",
            "ValidatingAdmissionPolicy/guard-openrouter-guard-operator",
            "ValidatingAdmissionPolicyBinding/guard-openrouter-guard-operator",
        }

    def test_each_is_marked_as_part_of_the_product(self, everything: Manifests) -> None:
        parts = {each["metadata"]["labels"]["app.kubernetes.io/part-of"] for each in everything.objects}
        assert parts == {"openrouter-guard"}

    def test_each_name_is_there_once(self, everything: Manifests) -> None:
        keys = [
            (each["kind"], each["metadata"].get("namespace"), each["metadata"]["name"]) for each in everything.objects
        ]
        assert len(keys) == len(set(keys))

    @pytest.mark.parametrize("release", ["a", "a" * 53, "prod-openrouter-guard"])
    def test_names_fit_whatever_the_release_is_called(self, helm: Helm, release: str) -> None:
        names = [each["metadata"]["name"] for each in helm.render(release=release).all("Deployment", "Service")]
        assert all(len(name) <= 63 and name.startswith(release[:50]) for name in names)
        assert len(names) == 3

    def test_two_releases_never_meet_but_in_the_crd(self, helm: Helm) -> None:
        one, other = helm.render_all(EVERYTHING), helm.render_all(EVERYTHING, release="other")
        elsewhere = helm.render_all(EVERYTHING, "--namespace=elsewhere")
        crd = {("CustomResourceDefinition", None, CRD_NAME)}

        def keys(manifests: Manifests) -> set[tuple[str, str | None, str]]:
            found = (each["metadata"] | {"kind": each["kind"]} for each in manifests.objects)
            return {(each["kind"], each.get("namespace"), each["name"]) for each in found}

        assert keys(one) & keys(other) == crd
        assert keys(one) & keys(elsewhere) == crd

    @pytest.mark.parametrize("part", ["healthService", "operator"])
    def test_a_part_that_is_off_leaves_nothing(self, helm: Helm, part: str) -> None:
        with_the_crd = {
            f"CustomResourceDefinition/{CRD_NAME}",
            *(f"ClusterRole/guard-openrouter-guard-{role}" for role in ("view", "edit")),
        }
        names = helm.render({**MINIMAL, part: {"enabled": False}}).names - with_the_crd
        assert {"operator" in name for name in names} == {part == "healthService"}


class TestPods:
    @BOTH
    def test_they_may_do_as_little_as_possible(self, minimal: Manifests, name: str) -> None:
        assert pod(minimal, name)["securityContext"] == {
            "runAsNonRoot": True,
            "runAsUser": 65534,
            "runAsGroup": 65534,
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        assert container(minimal, name)["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }

    def test_only_the_operator_has_a_token(self, minimal: Manifests) -> None:
        assert pod(minimal, HEALTH_SERVICE)["automountServiceAccountToken"] is False
        assert pod(minimal, OPERATOR)["automountServiceAccountToken"] is True

    def test_the_health_service_has_one_where_it_asks_whose_tokens_are_sent(self, everything: Manifests) -> None:
        spec = pod(everything, HEALTH_SERVICE)
        assert (spec["serviceAccountName"], spec["automountServiceAccountToken"]) == (HEALTH_SERVICE, True)
        role = everything.one("ClusterRole", "guard-openrouter-guard-reviews")
        assert rules(role) == {("authentication.k8s.io", "tokenreviews", "create")}
        (subject,) = everything.one("ClusterRoleBinding", role["metadata"]["name"])["subjects"]
        assert (subject["kind"], subject["name"]) == ("ServiceAccount", HEALTH_SERVICE)
        reporters = Settings.from_env(as_the_process_sees(environ(everything, HEALTH_SERVICE))).tokens.reporters
        assert dict(reporters.namespaces) == {"workers": set(), "chat": {"team-a", "c"}}
        assert reporters.audience == "openrouter-guard"

    @BOTH
    def test_no_service_sets_a_variable_of_ours(self, minimal: Manifests, name: str) -> None:
        assert pod(minimal, name)["enableServiceLinks"] is False
        assert pod(minimal, OPERATOR)["serviceAccountName"] == OPERATOR

    @pytest.mark.parametrize(
        ("name", "arguments", "port"),
        [
            (HEALTH_SERVICE, ["serve", "--host", "0.0.0.0", "--port", "8080"], 8080),
            (OPERATOR, ["operate"], 8081),
        ],
    )
    def test_they_are_probed_where_they_listen(
        self, minimal: Manifests, name: str, arguments: list[str], port: int
    ) -> None:
        found = container(minimal, name)
        assert found["args"] == arguments
        assert found["ports"] == [{"name": "http", "containerPort": port}]
        assert found["livenessProbe"]["httpGet"] == {"path": "/livez", "port": "http"}
        assert found["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}

    @BOTH
    def test_the_version_of_the_chart_is_the_image_s(self, minimal: Manifests, name: str) -> None:
        assert container(minimal, name)["image"] == "openrouter-guard:0.1.0"

    @BOTH
    def test_a_digest_goes_before_a_tag(self, everything: Manifests, name: str) -> None:
        assert container(everything, name)["image"] == f"registry.example/guard@sha256:{'a' * 64}"
        assert pod(everything, name)["imagePullSecrets"] == [{"name": "pull"}]

    def test_they_go_where_they_are_sent(self, everything: Manifests) -> None:
        wanted = EVERYTHING["operator"]
        for key in ("nodeSelector", "tolerations"):
            assert pod(everything, OPERATOR)[key] == wanted[key]
        assert pod(everything, OPERATOR)["affinity"]["nodeAffinity"] == {}
        (spread,) = pod(everything, OPERATOR)["topologySpreadConstraints"]
        assert spread["maxSkew"] == 1
        template = everything.one("Deployment", OPERATOR)["spec"]["template"]
        assert template["metadata"]["annotations"] == {"team": "platform"}


class TestEnvironment:
    @BOTH
    def test_redis_comes_from_a_secret(self, everything: Manifests, name: str) -> None:
        assert environ(everything, name)["REDIS_URL"] == {"secretKeyRef": {"name": "redis", "key": "address"}}

    @BOTH
    @pytest.mark.parametrize(
        "url",
        [
            "redis://redis:6379/0",
            "rediss://redis?ssl_ca_certs=/etc/openrouter-guard/redis/ca.crt",
            "redis+sentinel://s1,s2/main/0",
            "rediss+cluster://c1:6379,c2:6379",
        ],
    )
    def test_redis_without_a_password_may_be_written_down(self, helm: Helm, name: str, url: str) -> None:
        manifests = helm.render({"redis": {"url": url}})
        assert environ(manifests, name)["REDIS_URL"] == url

    @BOTH
    def test_the_files_for_tls_are_where_the_address_can_name_them(self, helm: Helm, name: str) -> None:
        manifests = helm.render({"redis": {"url": "rediss://redis", "tls": {"secretName": "redis-tls"}}})
        (volume,) = pod(manifests, name)["volumes"]
        assert volume["secret"] == {"secretName": "redis-tls"}
        (mount,) = container(manifests, name)["volumeMounts"]
        assert mount == {"name": volume["name"], "mountPath": "/etc/openrouter-guard/redis", "readOnly": True}

    @BOTH
    def test_without_them_nothing_is_mounted(self, minimal: Manifests, name: str) -> None:
        assert "volumes" not in pod(minimal, name)
        assert "volumeMounts" not in container(minimal, name)

    def test_only_the_health_service_gets_the_api_key(self, everything: Manifests) -> None:
        key = {"secretKeyRef": {"name": "openrouter", "key": "api-key"}}
        assert environ(everything, HEALTH_SERVICE)["OPENROUTER_API_KEY"] == key
        assert "OPENROUTER_API_KEY" not in environ(everything, OPERATOR)

    def test_only_the_health_service_gets_the_management_key(self, everything: Manifests, minimal: Manifests) -> None:
        key = {"secretKeyRef": {"name": "openrouter", "key": "management-key"}}
        assert environ(everything, HEALTH_SERVICE)["OPENROUTER_MANAGEMENT_KEY"] == key
        assert "OPENROUTER_MANAGEMENT_KEY" not in environ(everything, OPERATOR)
        assert "OPENROUTER_MANAGEMENT_KEY" not in environ(minimal, HEALTH_SERVICE)

    def test_further_scopes_have_keys_of_their_own(self, everything: Manifests, minimal: Manifests) -> None:
        found = environ(everything, HEALTH_SERVICE)
        assert found["OPENROUTER_GUARD_FURTHER_SCOPES"] == "team-b,c"
        assert found["OPENROUTER_API_KEY_TEAM_B"] == {"secretKeyRef": {"name": "team-b", "key": "api-key"}}
        assert "OPENROUTER_API_KEY_C" not in found
        assert "OPENROUTER_GUARD_FURTHER_SCOPES" not in environ(minimal, HEALTH_SERVICE)

    def test_the_webhook_is_a_secret_of_the_health_service(self, everything: Manifests, minimal: Manifests) -> None:
        found = environ(everything, HEALTH_SERVICE)
        assert found["OPENROUTER_GUARD_WEBHOOK_URL"] == {"secretKeyRef": {"name": "chat", "key": "webhook-url"}}
        assert found["OPENROUTER_GUARD_WEBHOOK_FORMAT"] == "slack"
        signing = {"secretKeyRef": {"name": "chat", "key": "webhook-secret"}}
        assert found["OPENROUTER_GUARD_WEBHOOK_SECRET"] == signing
        assert found["OPENROUTER_GUARD_PUBLIC_URL"] == "https://guard.example"
        for name in ("WEBHOOK_URL", "WEBHOOK_SECRET", "PUBLIC_URL"):
            assert f"OPENROUTER_GUARD_{name}" not in environ(minimal, HEALTH_SERVICE)

    def test_no_api_key_is_no_empty_one(self, minimal: Manifests) -> None:
        assert "OPENROUTER_API_KEY" not in environ(minimal, HEALTH_SERVICE)

    def test_only_the_health_service_gets_the_tokens(self, everything: Manifests, minimal: Manifests) -> None:
        found = environ(everything, HEALTH_SERVICE)
        assert found["OPENROUTER_GUARD_WRITE_TOKEN"] == {"secretKeyRef": {"name": "tokens", "key": "write-token"}}
        assert found["OPENROUTER_GUARD_REPORT_TOKEN"] == {"secretKeyRef": {"name": "tokens", "key": "report-token"}}
        assert found["OPENROUTER_GUARD_READ_TOKEN"] == {"secretKeyRef": {"name": "tokens", "key": "reader"}}
        others = environ(everything, OPERATOR).keys() | environ(minimal, HEALTH_SERVICE).keys()
        assert not [name for name in others if name.endswith("_TOKEN")]

    @BOTH
    def test_the_product_reads_what_was_meant(self, everything: Manifests, name: str) -> None:
        settings = Settings.from_env(as_the_process_sees(environ(everything, name)))
        assert settings.scope == "team-a"
        assert settings.policy.failure_threshold == 7
        assert settings.policy.reset_timeout_s == 80_000
        assert settings.thresholds.fresh_s == 0.5

    def test_more_variables_can_be_given(self, everything: Manifests) -> None:
        assert environ(everything, HEALTH_SERVICE)["HTTPS_PROXY"] == "http://proxy.example"
        assert environ(everything, HEALTH_SERVICE)["OPENROUTER_BASE_URL"] == "https://proxy.example/api/v1"

    def test_the_operator_keeps_its_lease_beside_itself(self, minimal: Manifests) -> None:
        own_namespace = environ(minimal, OPERATOR)["OPENROUTER_GUARD_LEASE_NAMESPACE"]
        assert own_namespace == {"fieldRef": {"fieldPath": "metadata.namespace"}}
        assert operator_settings(minimal).lease_name == OPERATOR
        assert operator_settings(minimal).lease_s == 15

    def test_the_operator_answers_where_it_is_probed(self, minimal: Manifests) -> None:
        settings = operator_settings(minimal)
        assert settings.host == "0.0.0.0"
        assert settings.port == container(minimal, OPERATOR)["ports"][0]["containerPort"]

    def test_the_operator_knows_its_namespaces(self, minimal: Manifests, everything: Manifests) -> None:
        assert operator_settings(minimal).namespaces == ()
        assert operator_settings(everything).namespaces == ("team-a", "team-b")


class TestRights:
    def test_the_whole_cluster_by_default(self, minimal: Manifests) -> None:
        (binding,) = minimal.all("ClusterRoleBinding")
        role = minimal.one("ClusterRole", f"guard-{OPERATOR}")
        assert rules(role) == RIGHTS
        assert binding["roleRef"]["name"] == role["metadata"]["name"]
        assert binding["subjects"] == [{"kind": "ServiceAccount", "name": OPERATOR, "namespace": "guard"}]

    def test_a_role_in_each_listed_namespace_instead(self, everything: Manifests) -> None:
        roles = {each["metadata"]["namespace"]: rules(each) for each in everything.all("Role")}
        bound = {each["roleRef"]["name"] for each in everything.all("ClusterRoleBinding")}
        roles_of_all = [each for each in everything.all("ClusterRole") if each["metadata"]["name"] in bound]
        assert all(rules(each).isdisjoint(RIGHTS) for each in roles_of_all)
        assert OPERATOR not in str([each["subjects"] for each in everything.all("ClusterRoleBinding")])
        assert roles.keys() == {"guard", "team-a", "team-b"}
        assert roles["team-a"] == roles["team-b"] == RIGHTS

    def test_it_may_change_the_kinds_that_it_is_given_and_no_others(self, helm: Helm) -> None:
        kinds = ["ReplicationController", "ScaledJob", "rollouts.argoproj.io"]
        manifests = helm.render({**MINIMAL, "operator": {"kinds": kinds}})
        held = rules(manifests.one("ClusterRole", f"guard-{OPERATOR}"))
        changed = {(group, resource) for group, resource, verb in held if verb == "patch"}
        assert changed == {
            ("", "replicationcontrollers"), ("keda.sh", "scaledjobs"), ("argoproj.io", "rollouts"),
            ("apps", "replicasets"),  # to which a Rollout hands the annotation down
            ("openrouter-guard.io", "openrouterstatuses"),
        }  # fmt: skip
        assert operator_settings(manifests).kinds == tuple(kinds)

    def test_of_crds_it_may_read_those_of_its_custom_kinds_by_name(self, helm: Helm) -> None:
        values = {"kinds": ["Deployment", "rollouts.argoproj.io"], "namespaces": ["team-a"]}
        manifests = helm.render({**MINIMAL, "operator": values})
        (binding,) = manifests.all("ClusterRoleBinding")
        role = manifests.one("ClusterRole", f"guard-{OPERATOR}-kinds")
        (rule,) = role["rules"]
        assert rules(role) == {("apiextensions.k8s.io", "customresourcedefinitions", "get")}
        assert rule["resourceNames"] == ["rollouts.argoproj.io"]
        assert binding["roleRef"]["name"] == role["metadata"]["name"]

    def test_secrets_are_read_only_where_that_is_asked_for(self, helm: Helm, minimal: Manifests) -> None:
        asking = helm.render({**MINIMAL, "operator": {"readSecrets": True}})
        before, after = (rules(each.one("ClusterRole", f"guard-{OPERATOR}")) for each in (minimal, asking))
        added = after - before
        assert added == {("", "secrets", "get")}
        assert operator_settings(asking).reads_secrets
        assert not operator_settings(minimal).reads_secrets

    def test_a_cluster_with_an_old_authority_is_accepted_where_that_is_asked_for(
        self, helm: Helm, minimal: Manifests
    ) -> None:
        asking = helm.render({**MINIMAL, "strictX509": False})
        assert not operator_settings(asking).strict_x509
        assert operator_settings(minimal).strict_x509
        jobs = helm.render_all({**MINIMAL, "strictX509": False}).all("Job")
        restoring = [each["spec"]["template"]["spec"]["containers"][0]["env"] for each in jobs]
        assert restoring
        assert all(env == [{"name": "OPENROUTER_GUARD_STRICT_X509", "value": "false"}] for env in restoring)

    def test_every_known_kind_is_found_where_the_operator_looks_for_it(self, helm: Helm) -> None:
        manifests = helm.render({**MINIMAL, "operator": {"kinds": list(BY_NAME)}})
        held = rules(manifests.one("ClusterRole", f"guard-{OPERATOR}"))
        assert {(kind.group, kind.plural, "patch") for kind in BY_NAME.values()} <= held

    def test_no_role_holds_what_only_a_cluster_role_can_give(self, everything: Manifests) -> None:
        held = {resource for role in everything.all("Role") for _, resource, _ in rules(role)}
        assert not held & CLUSTER_SCOPED
        assert not any("nonResourceURLs" in rule for role in everything.all("Role") for rule in role["rules"])

    def test_every_binding_is_of_the_operator_and_of_a_role_beside_it(self, everything: Manifests) -> None:
        roles = {(each["metadata"]["namespace"], each["metadata"]["name"]) for each in everything.all("Role")}
        bindings = everything.all("RoleBinding")
        assert {(each["metadata"]["namespace"], each["roleRef"]["name"]) for each in bindings} == roles
        assert all(
            each["subjects"][0] == {"kind": "ServiceAccount", "name": OPERATOR, "namespace": "guard"}
            for each in bindings
        )

    def test_its_own_lease_and_no_other(self, minimal: Manifests) -> None:
        create, use = minimal.one("Role", "openrouter-guard-operator-lease")["rules"]
        assert create == {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create"]}
        assert use == {**create, "verbs": ["get", "update"], "resourceNames": [OPERATOR]}

    def test_an_existing_service_account_gets_them(self, helm: Helm) -> None:
        manifests = helm.render({**MINIMAL, "operator": {"serviceAccount": {"name": "mine"}}})
        bindings = manifests.all("RoleBinding", "ClusterRoleBinding")
        assert {each["subjects"][0]["name"] for each in bindings} == {"mine"}
        assert pod(manifests, OPERATOR)["serviceAccountName"] == "mine"
        assert not manifests.all("ServiceAccount")


class TestServices:
    def test_each_selector_finds_the_pods_of_one_part(self, minimal: Manifests) -> None:
        labels = {
            name: minimal.one("Deployment", name)["spec"]["template"]["metadata"]["labels"]
            for name in (HEALTH_SERVICE, OPERATOR)
        }
        selectors = {
            name: minimal.one("Deployment", name)["spec"]["selector"]["matchLabels"]
            for name in (HEALTH_SERVICE, OPERATOR)
        }
        selectors["service"] = minimal.one("Service", HEALTH_SERVICE)["spec"]["selector"]
        found = {
            name: [pods for pods in labels if each.items() <= labels[pods].items()]
            for name, each in selectors.items()
        }
        assert found == {HEALTH_SERVICE: [HEALTH_SERVICE], OPERATOR: [OPERATOR], "service": [HEALTH_SERVICE]}

    @BOTH
    def test_prometheus_finds_both_parts(self, everything: Manifests, name: str) -> None:
        monitor, service = everything.one("ServiceMonitor", name), everything.one("Service", name)
        assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
        assert monitor["spec"]["endpoints"][0]["port"] == service["spec"]["ports"][0]["name"]
        assert monitor["metadata"]["labels"]["release"] == "prometheus"

    def test_prometheus_sends_the_token_where_one_is_needed(self, everything: Manifests, helm: Helm) -> None:
        monitor = everything.one("ServiceMonitor", HEALTH_SERVICE)
        credentials = {"name": "tokens", "key": "reader"}
        assert monitor["spec"]["endpoints"][0]["authorization"] == {"type": "Bearer", "credentials": credentials}
        without = helm.render({**MINIMAL, "serviceMonitor": {"enabled": True}}).one("ServiceMonitor", HEALTH_SERVICE)
        assert "authorization" not in without["spec"]["endpoints"][0]

    def test_the_operator_s_metrics_are_where_it_is_probed(self, everything: Manifests) -> None:
        service, pods = everything.one("Service", OPERATOR), everything.one("Deployment", OPERATOR)
        labels = pods["spec"]["template"]["metadata"]["labels"]
        assert service["spec"]["selector"].items() <= labels.items()
        assert service["spec"]["ports"][0]["targetPort"] == container(everything, OPERATOR)["ports"][0]["name"]

    def test_a_drain_is_never_blocked(self, helm: Helm) -> None:
        (budget,) = helm.render({**MINIMAL, "healthService": {"replicas": 1}}).all("PodDisruptionBudget")
        assert budget["spec"]["maxUnavailable"] == 1
        assert "minAvailable" not in budget["spec"]

    def test_the_budget_can_be_left_out(self, helm: Helm) -> None:
        values = {**MINIMAL, "healthService": {"podDisruptionBudget": {"enabled": False}}}
        assert not helm.render(values).all("PodDisruptionBudget")


class TestCrd:
    def test_it_is_the_project_s(self, minimal: Manifests) -> None:
        (crd,) = minimal.all("CustomResourceDefinition")
        crd["metadata"].pop("labels")
        assert crd["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
        assert crd == yaml.safe_load(CRD.read_text())

    def test_another_release_leaves_it_out(self, helm: Helm) -> None:
        assert not helm.render({**MINIMAL, "crds": {"install": False}}).all("CustomResourceDefinition")
