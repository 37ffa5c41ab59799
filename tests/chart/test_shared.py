"""Global values of a parent chart, and the labels that all objects share."""

from __future__ import annotations

from typing import Any

import pytest

from tests.chart.helm import MINIMAL, Helm
from tests.chart.test_manifests import EVERYTHING, HEALTH_SERVICE, OPERATOR, container, pod

pytestmark = pytest.mark.slow

NAMES = [HEALTH_SERVICE, OPERATOR]


class TestImages:
    @pytest.mark.parametrize(
        ("shared", "image", "expected"),
        [
            ("", {}, "openrouter-guard:0.1.0"),
            ("", {"registry": "registry.example"}, "registry.example/openrouter-guard:0.1.0"),
            ("", {"repository": "registry.example/a/guard"}, "registry.example/a/guard:0.1.0"),
            ("mirror.example/", {}, "mirror.example/openrouter-guard:0.1.0"),
            ("mirror.example", {"registry": "registry.example", "tag": "2"}, "mirror.example/openrouter-guard:2"),
            ("mirror.example:5000", {"repository": "registry.example/a/guard"}, "mirror.example:5000/a/guard:0.1.0"),
            ("mirror.example", {"repository": "localhost/guard"}, "mirror.example/guard:0.1.0"),
            ("mirror.example", {"repository": "team/guard"}, "mirror.example/team/guard:0.1.0"),
        ],
    )
    def test_the_registry_of_all_charts_goes_before_the_image_s(
        self, helm: Helm, shared: str, image: dict[str, str], expected: str
    ) -> None:
        manifests = helm.render_all({**MINIMAL, "global": {"imageRegistry": shared}, "image": image})
        assert [container(manifests, name)["image"] for name in NAMES] == [expected] * 2
        jobs, (test,) = manifests.all("Job"), manifests.all("Pod")
        assert [job["spec"]["template"]["spec"]["containers"][0]["image"] for job in jobs] == [expected] * 2
        assert test["spec"]["containers"][0]["image"] == expected

    @pytest.mark.parametrize("name", NAMES)
    def test_pull_secrets_are_names_or_objects_of_all_charts_and_of_this_one(self, helm: Helm, name: str) -> None:
        shared = {"imagePullSecrets": ["a", {"name": "b"}]}
        values = {**MINIMAL, "global": shared, "imagePullSecrets": [{"name": "b"}, "c"]}
        assert pod(helm.render(values), name)["imagePullSecrets"] == [{"name": each} for each in "abc"]


LABELS = {"team": "platform", "app.kubernetes.io/part-of": "theirs", "app.kubernetes.io/component": "theirs"}


class TestMarks:
    def test_every_object_and_pod_has_them_and_ours_stay(self, helm: Helm) -> None:
        marks: dict[str, Any] = {
            "global": {"commonLabels": {"stage": "test"}},
            "commonLabels": LABELS,
            "commonAnnotations": {"owner": "team-a"},
        }
        manifests = helm.render_all({**EVERYTHING, **marks})
        templates = [each["spec"]["template"] for each in manifests.all("Deployment", "Job")]
        for metadata in [each["metadata"] for each in (*manifests.objects, *templates)]:
            labels = metadata["labels"]
            assert (labels["team"], labels["stage"]) == ("platform", "test"), metadata
            assert labels["app.kubernetes.io/part-of"] == "openrouter-guard"
            assert labels["app.kubernetes.io/component"] != "theirs"
        assert all(each["metadata"]["annotations"]["owner"] == "team-a" for each in manifests.objects)

    def test_a_deployment_s_selector_has_none_of_them(self, helm: Helm) -> None:
        """It can never change: an upgrade that adds a label would be refused."""
        before, after = helm.render(), helm.render({**MINIMAL, "commonLabels": LABELS})
        for name in NAMES:
            selectors = [each.one("Deployment", name)["spec"]["selector"] for each in (before, after)]
            assert selectors[0] == selectors[1]


class TestMoreObjects:
    def test_they_are_templates(self, helm: Helm) -> None:
        written = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "{{ .Release.Name }}-more"}}
        text = "apiVersion: v1\nkind: Secret\nmetadata:\n  name: {{ .Release.Name }}-text\n"
        names = helm.render({**MINIMAL, "extraObjects": [written, text]}).names
        assert {"ConfigMap/openrouter-guard-more", "Secret/openrouter-guard-text"} <= names
