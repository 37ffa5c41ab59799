"""The values that the chart accepts and rejects, and that it can be linted and packaged."""

from __future__ import annotations

import json
import shutil
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from openrouter_guard import ConfigurationError, settings
from openrouter_guard.settings import Settings
from openrouter_guard.variables import PREFIX
from tests.chart.helm import CHART, CRD, MINIMAL, Helm, HelmFailed

pytestmark = pytest.mark.slow

SCHEMA = json.loads((CHART / "values.schema.json").read_text())
NOT_THRESHOLDS = {
    "SCOPE",
    "WORKER_ID",
    "READ_TOKEN",
    "REPORT_TOKEN",
    "REPORTER_NAMESPACES",
    "REPORTER_AUDIENCE",
    "WRITE_TOKEN",
    "CORS_ORIGINS",
    "HEALTH_URLS",
    "WEBHOOK_URL",
    "WEBHOOK_FORMAT",
    "WEBHOOK_SECRET",
    "WEBHOOK_SECRET_FILE",
    "PUBLIC_URL",
    "FURTHER_SCOPES",
    "TLS_CERT_FILE",
    "TLS_KEY_FILE",
}
PASSWORD = "hunter2"


class Recorder(Mapping[str, str]):
    """An environment that remembers what was asked for."""

    def __init__(self) -> None:
        self.asked: set[str] = set()

    def __getitem__(self, name: str) -> str:
        self.asked.add(name)
        if name == "REDIS_URL":
            return "redis://redis"
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


class TestHygiene:
    @pytest.mark.parametrize("values", [{}, MINIMAL], ids=["as it is", "with a Secret"])
    def test_lint_finds_nothing(self, helm: Helm, values: Mapping[str, Any]) -> None:
        assert "0 chart(s) failed" in helm.run("lint", "--strict", str(CHART), values=values)

    def test_it_packs_with_the_crd(self, helm: Helm, tmp_path: Path) -> None:
        helm.run("package", str(CHART), f"--destination={tmp_path}")
        (archive,) = tmp_path.iterdir()
        assert archive.name == "openrouter-guard-0.1.0.tgz"
        with tarfile.open(archive) as packed:
            crd = packed.extractfile("openrouter-guard/files/openrouterstatuses.yaml")
            assert crd
            assert crd.read() == CRD.read_bytes()

    def test_its_copy_of_the_crd_is_current(self) -> None:
        copy = CHART / "files" / CRD.name
        assert copy.read_text() == CRD.read_text(), "run `make chart`"

    def test_the_schema_knows_every_threshold(self) -> None:
        environ = Recorder()
        Settings.from_env(environ)
        read = {
            name.removeprefix("OPENROUTER_GUARD_") for name in environ.asked if name.startswith("OPENROUTER_GUARD_")
        }
        assert SCHEMA["properties"]["thresholds"]["properties"].keys() == read - NOT_THRESHOLDS

    @pytest.mark.parametrize("name", sorted(SCHEMA["properties"]["thresholds"]["properties"]))
    def test_the_schema_has_the_bound_of_each_threshold(self, name: str) -> None:
        schema = SCHEMA["properties"]["thresholds"]["properties"][name]
        most = (SCHEMA["definitions"][schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema)["maximum"]
        bound = rf"^{PREFIX}{name} is '\S+': write .*, at most {most}\b"
        with pytest.raises(ConfigurationError, match=bound):
            Settings.from_env({"REDIS_URL": "redis://redis", PREFIX + name: str(2 * most)})

    def test_every_value_is_in_the_schema_and_the_other_way_round(self) -> None:
        values = yaml.safe_load((CHART / "values.yaml").read_text())
        assert differences(values, SCHEMA) == {".enabled"}


class TestRefusals:
    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"operater": {}}, "operater"),
            ({"operator": {"replica": 2}}, "replica"),
            ({"healthService": {"replicas": "two"}}, "/healthService/replicas"),
            ({"healthService": {"writeToken": {"value": "secret"}}}, "/healthService/writeToken"),
            ({"thresholds": {"FAILURE_TRESHOLD": 5}}, "FAILURE_TRESHOLD"),
            ({"thresholds": {"PERMITS": 0}}, "/thresholds/PERMITS"),
            ({"scope": "Team A"}, "/scope"),
            ({"image": {"digest": "latest"}}, "/image/digest"),
            ({"operator": {"namespaces": ["Team_A"]}}, "/operator/namespaces/0"),
            ({"healthService": {"podDisruptionBudget": {"maxUnavailable": 0}}}, "maxUnavailable"),
            ({"logLevel": "LOUD"}, "/logLevel"),
            ({"healthService": {"extraEnv": [{"nmae": "A"}]}}, "nmae"),
        ],
    )
    def test_the_message_names_the_value(self, helm: Helm, values: Mapping[str, Any], message: str) -> None:
        with pytest.raises(HelmFailed, match=message):
            helm.render({**MINIMAL, **values})

    @pytest.mark.parametrize(
        ("redis", "message"),
        [
            ({}, "redis.existingSecret.name and redis.url are empty: name a Secret"),
            ({"url": "redis://redis", "existingSecret": {"name": "redis"}}, "both set"),
            ({"url": "redis:6379"}, "redis.url is no address of Redis: write redis://host:6379/0"),
            ({"url": f"redis://:{PASSWORD}@redis"}, "redis.url holds a password"),
            ({"url": f"redis://user:{PASSWORD}@redis:6379/0"}, "redis.url holds a password"),
            ({"url": f"redis://redis?password={PASSWORD}"}, "redis.url holds a password"),
            ({"url": f"http://:{PASSWORD}@redis"}, "redis.url holds a password"),
            ({"url": f"redis+sentinel://s/main?sentinel_password={PASSWORD}"}, "redis.url holds a password"),
        ],
    )
    def test_redis_is_named_once_and_without_a_password(
        self, helm: Helm, redis: Mapping[str, Any], message: str
    ) -> None:
        with pytest.raises(HelmFailed, match=message) as failure:
            helm.render({"redis": redis})
        assert PASSWORD not in str(failure.value)

    @pytest.mark.parametrize(("low", "high"), [(low, high) for low, high, _ in settings._ORDER])
    def test_two_thresholds_that_contradict_each_other_are_refused_as_a_process_would(
        self, helm: Helm, low: str, high: str
    ) -> None:
        thresholds = {low: 800, high: 400}
        with pytest.raises(ConfigurationError) as refused:
            Settings.from_env({"REDIS_URL": "redis://r"} | {PREFIX + name: str(n) for name, n in thresholds.items()})
        with pytest.raises(HelmFailed) as failure:
            helm.render({**MINIMAL, "thresholds": thresholds})
        assert str(refused.value).replace(PREFIX, "thresholds.") in str(failure.value)

    @pytest.mark.parametrize(
        ("thresholds", "words"),
        [
            ({"STALE_SECONDS": 30}, "FRESH_SECONDS is 60 by default, above thresholds.STALE_SECONDS, which is 30:"),
            (
                {"RESET_TIMEOUT_SECONDS": 960.5},
                "960.5, above thresholds.MAX_RESET_TIMEOUT_SECONDS, which is 960 by",
            ),
        ],
    )
    def test_a_threshold_may_contradict_a_default(
        self, helm: Helm, thresholds: Mapping[str, float], words: str
    ) -> None:
        with pytest.raises(HelmFailed, match=words):
            helm.render({**MINIMAL, "thresholds": thresholds})

    def test_a_default_that_is_out_of_reach_is_none_that_contradicts(self, helm: Helm) -> None:
        helm.render({**MINIMAL, "thresholds": {"RESET_TIMEOUT_SECONDS": 2, "PERMIT_LEASE_SECONDS": 0.5}})

    @pytest.mark.parametrize("scopes", [["default"], ["team-a", "team-a"]])
    def test_a_scope_is_named_once(self, helm: Helm, scopes: list[str]) -> None:
        further = {"furtherScopes": [{"scope": scope} for scope in scopes]}
        with pytest.raises(HelmFailed, match=f"names the scope {scopes[-1]}, which is there already"):
            helm.render({**MINIMAL, "openrouter": further})


class TestAsAPart:
    """Of a chart of one's own."""

    @pytest.fixture
    def parent(self, tmp_path: Path) -> Path:
        dependency = {"name": "openrouter-guard", "version": "0.1.0", "condition": "openrouter-guard.enabled"}
        chart = {"apiVersion": "v2", "name": "platform", "version": "1.0.0", "dependencies": [dependency]}
        shutil.copytree(CHART, tmp_path / "charts" / CHART.name)
        (tmp_path / "Chart.yaml").write_text(yaml.safe_dump(chart))
        return tmp_path

    def test_it_bears_what_its_parent_shares(self, helm: Helm, parent: Path) -> None:
        values = {"global": {"region": "eu"}, "openrouter-guard": {**MINIMAL, "enabled": True}}
        assert "name: platform-openrouter-guard-operator" in helm.run(
            "template", "platform", str(parent), values=values
        )

    def test_it_can_be_switched_off(self, helm: Helm, parent: Path) -> None:
        values = {"openrouter-guard": {"enabled": False}}
        assert "kind:" not in helm.run("template", "platform", str(parent), values=values)


class TestNotes:
    def notes(self, helm: Helm, values: Mapping[str, Any]) -> str:
        words = ("--dry-run=client", "--namespace=guard")
        return helm.run("install", "openrouter-guard", str(CHART), *words, values=values).partition("NOTES:")[2]

    def test_they_say_what_to_try(self, helm: Helm) -> None:
        found = self.notes(helm, MINIMAL)
        assert "kubectl --namespace guard port-forward service/openrouter-guard 8080:80" in found
        assert "It has no API key" in found
        assert "The operator acts in all namespaces." in found
        assert "helm --namespace guard test openrouter-guard --logs" in found
        assert "WARNING: image.repository is still openrouter-guard" in found
        assert "openrouter-guard rescue --all-namespaces" in found

    def test_they_say_no_more_than_is_so(self, helm: Helm) -> None:
        named = {"openrouter": {"existingSecret": {"name": "openrouter"}}, "operator": {"namespaces": ["a", "b"]}}
        found = self.notes(helm, {**MINIMAL, **named, "image": {"registry": "registry.example"}})
        assert "WARNING" not in found
        assert "It has no API key" not in found
        assert "The operator acts in a, b." in found


def differences(values: Mapping[str, Any], schema: Mapping[str, Any], where: str = "") -> set[str]:
    """The names that only one of the two has. Thresholds are not written down with their defaults."""
    resolved = SCHEMA["definitions"][schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    known = resolved.get("properties")
    if known is None or where == ".thresholds":
        return set()
    here = {f"{where}.{name}" for name in values.keys() ^ known.keys()}
    return here.union(
        *(differences(values[name], known[name], f"{where}.{name}") for name in values.keys() & known.keys())
    )
