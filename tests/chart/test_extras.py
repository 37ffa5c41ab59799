"""Optional objects of the chart: roles for people, settings for workers, a Valkey for trials, a release test."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from base64 import b64decode
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from openrouter_guard.settings import Settings
from openrouter_operator.resource.spec import parse
from tests.chart.helm import CHART, CRD, CRD_NAME, MINIMAL, Helm, HelmFailed, Manifest
from tests.chart.readme import README, current
from tests.chart.test_manifests import HEALTH_SERVICE, OPERATOR, environ, pod, rules

pytestmark = pytest.mark.slow

RESOURCE = ("openrouter-guard.io", "openrouterstatuses")
CONFIGURATION = Path(__file__).parents[2] / "docs" / "configuration.md"


class TestRightsOfPeople:
    PREFIX = "rbac.authorization.k8s.io/aggregate-to-"

    def roles(self, helm: Helm, **values: Any) -> dict[str, Manifest]:
        """By the roles that they add to."""
        found = helm.render({**MINIMAL, **values}).all("ClusterRole")
        return {
            label.removeprefix(self.PREFIX): role
            for role in found
            for label in role["metadata"]["labels"]
            if label.startswith(self.PREFIX)
        }

    def test_view_reads_and_edit_writes(self, helm: Helm) -> None:
        found = self.roles(helm)
        assert found.keys() == {"view", "edit", "admin"}
        assert {(*RESOURCE, verb) for verb in ("get", "list", "watch")} <= rules(found["view"])
        assert {verb for *_, verb in rules(found["view"])} == {"get", "list", "watch"}
        written = {(*RESOURCE, verb) for verb in ("create", "update", "patch", "delete", "deletecollection")}
        assert rules(found["edit"]) == rules(found["admin"]) == written

    def test_writing_can_be_left_to_admins(self, helm: Helm) -> None:
        assert self.roles(helm, rbac={"aggregate": {"edit": False}}).keys() == {"view", "admin"}

    @pytest.mark.parametrize(
        ("values", "expected"),
        [
            ({"crds": {"install": False}}, False),
            ({"crds": {"install": False}, "rbac": {"aggregate": {"enabled": "true"}}}, True),
            ({"rbac": {"aggregate": {"enabled": False}}}, False),
        ],
    )
    def test_they_come_with_the_crd(self, helm: Helm, values: dict[str, Any], expected: bool) -> None:
        assert bool(self.roles(helm, **values)) is expected


class TestCrd:
    @pytest.mark.parametrize("keep", [True, False])
    def test_it_is_kept_unless_somebody_says_otherwise(self, helm: Helm, keep: bool) -> None:
        crd = helm.render({**MINIMAL, "crds": {"keep": keep}}).one("CustomResourceDefinition", CRD_NAME)
        assert crd["metadata"].get("annotations", {}) == ({"helm.sh/resource-policy": "keep"} if keep else {})


class TestWorkersConfig:
    THRESHOLDS: Mapping[str, float] = {"FAILURE_THRESHOLD": 7, "STABLE_SECONDS": 500.5, "FRESH_SECONDS": 30}

    def test_workers_read_the_same_scope_and_thresholds(self, helm: Helm) -> None:
        values = {"scope": "team-a", "thresholds": self.THRESHOLDS, "redis": {"url": "redis://redis:6379/0"}}
        (found,) = helm.render({**values, "workersConfig": {"enabled": True}}).all("ConfigMap")
        assert found["metadata"]["name"] == HEALTH_SERVICE
        settings = Settings.from_env(found["data"])
        assert (settings.scope, settings.redis_url) == ("team-a", "redis://redis:6379/0")
        assert (settings.policy.failure_threshold, settings.policy.stable_s) == (7, 500.5)
        assert "OPENROUTER_GUARD_FRESH_SECONDS" not in found["data"], "workers do not read it"

    def test_it_holds_no_address_that_is_a_secret(self, helm: Helm) -> None:
        (found,) = helm.render({**MINIMAL, "workersConfig": {"enabled": True}}).all("ConfigMap")
        assert "REDIS_URL" not in found["data"]

    def test_it_is_put_where_the_workers_are(self, helm: Helm) -> None:
        wanted = {"enabled": True, "name": "guard", "namespaces": ["team-a", "team-b"]}
        found = helm.render({**MINIMAL, "workersConfig": wanted}).all("ConfigMap")
        assert [each["metadata"]["namespace"] for each in found] == ["team-a", "team-b"]
        assert {each["metadata"]["name"] for each in found} == {"guard"}

    def test_it_knows_each_threshold_that_workers_read(self) -> None:
        rows = re.findall(r"^\| (`OPENROUTER_GUARD_.*) \| .* \| all \|", CONFIGURATION.read_text(), re.MULTILINE)
        read = {name for row in rows for name in re.findall(r"OPENROUTER_GUARD_(\w+)", row.split("|")[0])}
        template = (CHART / "templates" / "workers-config.yaml").read_text()
        assert set(re.findall(r'"([A-Z_]+)"', template)) == read - {"SCOPE"}


class TestValkey:
    def test_both_parts_use_it(self, helm: Helm) -> None:
        manifests = helm.render({"valkey": {"enabled": True}})
        service = manifests.one("Service", f"{HEALTH_SERVICE}-valkey")
        expected = f"redis://{service['metadata']['name']}:{service['spec']['ports'][0]['port']}/0"
        assert {environ(manifests, name)["REDIS_URL"] for name in (HEALTH_SERVICE, OPERATOR)} == {expected}
        deployment = manifests.one("Deployment", f"{HEALTH_SERVICE}-valkey")
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        assert service["spec"]["selector"].items() <= labels.items()

    def test_it_runs_as_strictly_as_the_rest(self, helm: Helm) -> None:
        manifests = helm.render({"valkey": {"enabled": True}})
        name = f"{HEALTH_SERVICE}-valkey"
        assert pod(manifests, name)["securityContext"] == pod(manifests, OPERATOR)["securityContext"]

    @pytest.mark.parametrize("redis", [{"url": "redis://redis"}, {"existingSecret": {"name": "redis"}}])
    def test_there_is_one_place_for_the_state(self, helm: Helm, redis: dict[str, Any]) -> None:
        with pytest.raises(HelmFailed, match=r"valkey\.enabled is true, and"):
            helm.render({"valkey": {"enabled": True}, "redis": redis})


class TestHelmTest:
    """The script of ``helm test``; that of the resource is tried on an API server in test_install."""

    def script(self, helm: Helm) -> list[str]:
        (found,) = helm.render_all().all("Pod")
        (container,) = found["spec"]["containers"]
        assert container["command"] == ["python", "-c"]
        return [sys.executable, "-c", *container["args"]]

    def run(self, helm: Helm, **environ: str) -> tuple[int, str]:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        # A proxy of this machine has nothing to do with it.
        done = subprocess.run(
            self.script(helm), env={"PATH": path, "NO_PROXY": "*", **environ}, capture_output=True, text=True
        )
        assert done.stderr == ""
        return done.returncode, done.stdout

    def test_a_redis_that_answers_is_well_though_nobody_has_used_it(self, helm: Helm, redis_url: str) -> None:
        for scope in ("default", "nobody-has-used-this"):
            status, said = self.run(helm, REDIS_URL=redis_url, OPENROUTER_GUARD_SCOPE=scope)
            assert status == 0, said
            assert said.startswith("ok: redis: ")

    def test_one_that_does_not_fails_and_says_what_to_look_at(self, helm: Helm) -> None:
        status, said = self.run(helm, REDIS_URL="redis://127.0.0.1:1/0")
        assert status == 1
        assert said.startswith("FAILED: redis: ")
        assert "is the address in redis.url or the Secret right" in said

    def test_a_service_that_is_not_there_fails(self, helm: Helm, redis_url: str) -> None:
        status, said = self.run(helm, REDIS_URL=redis_url, STATUS_URL="http://127.0.0.1:1/api")
        assert status == 1
        assert "ok: redis" in said
        assert "FAILED: health_service: " in said


class TestReadme:
    def test_its_table_is_that_of_the_values(self) -> None:
        assert README.read_text() == current(), "run `make chart`"

    def test_each_value_is_in_it(self) -> None:
        values = yaml.safe_load((CHART / "values.yaml").read_text())
        told = set(re.findall(r"^\| `([\w.]+)` \|", README.read_text(), re.MULTILINE))
        assert not [leaf for leaf in leaves(values) if not {leaf, leaf.rpartition(".")[0]} & told]


def leaves(values: Mapping[str, Any], where: str = "") -> list[str]:
    found = []
    for name, value in values.items():
        path = f"{where}{name}"
        found += leaves(value, f"{path}.") if isinstance(value, dict) and value else [path]
    return found


class TestChart:
    """What catalogues of charts show."""

    def chart(self) -> dict[str, Any]:
        found: dict[str, Any] = yaml.safe_load((CHART / "Chart.yaml").read_text())
        return found

    def test_its_crd_and_the_example_are_those_of_the_project(self) -> None:
        notes = self.chart()["annotations"]
        (told,) = yaml.safe_load(notes["artifacthub.io/crds"])
        crd = yaml.safe_load(CRD.read_text())
        assert told["name"] == CRD_NAME == crd["metadata"]["name"]
        assert (told["kind"], told["version"]) == (crd["spec"]["names"]["kind"], crd["spec"]["versions"][0]["name"])
        (example,) = yaml.safe_load(notes["artifacthub.io/crdsExamples"])
        assert parse(example["spec"]).targets

    def test_its_icon_is_a_picture_that_needs_no_host(self) -> None:
        head, _, data = self.chart()["icon"].partition(",")
        assert head == "data:image/svg+xml;base64"
        assert ElementTree.fromstring(b64decode(data)).tag == "{http://www.w3.org/2000/svg}svg"
