"""ServiceAccount tokens on a real API server: who may report with one, and which are never reviewed."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import httpx
import pytest

from openrouter_guard.api.http import token_review
from openrouter_guard.errors import ConfigurationError
from openrouter_guard.settings import FurtherScope, Settings, Tokens
from openrouter_guard.tokens import Reporters
from tests.chart.helm import MINIMAL, Helm, Release, installed
from tests.controlplane import ControlPlane
from tests.service.apps import READ_TOKEN, FakeUpstream, bearer, running

PREFIX = "/api/v1/openrouter"
REPORT = {"worker_id": "go-1", "results": [{"success": True}]}
AUDIENCE = "openrouter-guard"


@pytest.fixture
def release(helm: Helm, control_plane: ControlPlane, namespace: str) -> Iterator[Release]:
    """The chart, whose service may ask whose a token is."""
    service: dict[str, Any] = {"reporters": {"namespaces": {namespace: []}}}
    values = {**MINIMAL, "crds": {"install": False}, "healthService": service, "operator": {"enabled": False}}
    with installed(helm, control_plane, namespace, values) as release:
        yield release


def token(control_plane: ControlPlane, namespace: str, account: str = "default", audience: str = AUDIENCE) -> str:
    for_whom = [f"--audience={audience}"] if audience else []
    return control_plane.kubectl("create", "token", account, f"--namespace={namespace}", *for_whom).strip()


@pytest.fixture
def own(control_plane: ControlPlane, release: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the kubelet would put into the service's pod."""
    kubeconfig = json.loads(control_plane.kubeconfig.read_text())
    authority = kubeconfig["clusters"][0]["cluster"]["certificate-authority-data"]
    (tmp_path / "ca.crt").write_bytes(base64.b64decode(authority))
    (tmp_path / "token").write_text(token(control_plane, release.namespace, release.health_service, audience=""))
    monkeypatch.setattr(token_review, "SECRETS", tmp_path)
    return tmp_path


@pytest.fixture
def guarded(settings: Settings, control_plane: ControlPlane, release: Release, own: Path) -> Settings:
    namespaces = ((release.namespace, frozenset({"team-a"})),)
    tokens = Tokens(read=READ_TOKEN, reporters=Reporters(namespaces, server=control_plane.url))
    return replace(settings, tokens=tokens, further=(FurtherScope("team-a"),))


async def report(service: httpx.AsyncClient, token: str, scope: str = "team-a") -> int:
    answer = await service.post(f"{PREFIX}/reports?scope={scope}", json=REPORT, headers=bearer(token))
    return answer.status_code


def asked(control_plane: ControlPlane) -> int:
    events = control_plane.audit_events()
    return len([each for each in events if (each.get("objectRef") or {}).get("resource") == "tokenreviews"])


@contextmanager
def another_namespace(control_plane: ControlPlane, name: str) -> Iterator[str]:
    control_plane.kubectl("create", "namespace", name)
    control_plane.kubectl("wait", "--for=create", "serviceaccount/default", f"--namespace={name}", "--timeout=10s")
    yield name
    control_plane.kubectl("delete", "namespace", name, "--wait=false")


@pytest.mark.cluster
class TestOnARealApiServer:
    async def test_those_meant_may_report_of_their_scope_and_do_nothing_else(
        self, guarded: Settings, upstream: FakeUpstream, control_plane: ControlPlane, namespace: str
    ) -> None:
        good = token(control_plane, namespace)
        async with running(guarded, upstream) as service:
            assert await report(service, good) == 200
            assert await report(service, good, scope="default") == 403
            gate = await service.get(f"{PREFIX}/gate?scope=team-a", headers=bearer(good))
            reads = await service.get(f"{PREFIX}/status", headers=bearer(good))
            stops = await service.post(f"{PREFIX}/override", headers=bearer(good))
        assert (gate.status_code, reads.status_code, stops.status_code) == (200, 403, 403)

    async def test_no_other_may(
        self, guarded: Settings, upstream: FakeUpstream, control_plane: ControlPlane, namespace: str
    ) -> None:
        head, claims, signature = token(control_plane, namespace).split(".")
        with another_namespace(control_plane, f"{namespace}-other") as other:
            tokens = {
                "for the API server": token(control_plane, namespace, audience=""),
                "for somebody else": token(control_plane, namespace, audience="vault"),
                "of another namespace": token(control_plane, other),
                "forged": f"{head}.{claims}.{signature[::-1]}",
                "no token at all": "x",
            }
            async with running(guarded, upstream) as service:
                found = {name: await report(service, each) for name, each in tokens.items()}
        assert found == dict.fromkeys(tokens, 401)

    async def test_it_is_asked_once_a_minute_and_of_no_token_that_cannot_be_meant(
        self, guarded: Settings, upstream: FakeUpstream, control_plane: ControlPlane, namespace: str
    ) -> None:
        good, before = token(control_plane, namespace), asked(control_plane)
        async with running(guarded, upstream) as service:
            assert {await report(service, good) for _ in range(20)} == {200}
            assert asked(control_plane) == before + 1
            assert {await report(service, each) for each in ("x", "a.b.c", "ä.ö.ü".encode().hex(), READ_TOKEN)} <= {
                401,
                403,
            }
            assert asked(control_plane) == before + 1

    async def test_what_the_api_server_does_not_say_is_asked_again(
        self, guarded: Settings, upstream: FakeUpstream, control_plane: ControlPlane, namespace: str, own: Path
    ) -> None:
        good, right = token(control_plane, namespace), (own / "token").read_text()
        (own / "token").write_text(token(control_plane, namespace, audience=""))  # may ask for nothing
        async with running(guarded, upstream) as service:
            answer = await service.post(f"{PREFIX}/reports?scope=team-a", json=REPORT, headers=bearer(good))
            (own / "token").write_text(right)
            again = await report(service, good)
        assert (answer.status_code, answer.headers["retry-after"], again) == (503, "5", 200)
        assert "does not check this token" in answer.json()["detail"]


class TestSettings:
    ENVIRON: ClassVar = {
        "REDIS_URL": "redis://redis",
        "KUBERNETES_SERVICE_HOST": "10.0.0.1",
        "KUBERNETES_SERVICE_PORT": "6443",
    }

    def read(self, text: str, **more: str) -> Reporters:
        environ = {**self.ENVIRON, "OPENROUTER_GUARD_REPORTER_NAMESPACES": text, **more}
        return Settings.from_env(environ).tokens.reporters

    def test_namespaces_may_be_for_some_scopes_alone(self) -> None:
        found = self.read("workers chat=default+team-a", OPENROUTER_GUARD_FURTHER_SCOPES="team-a")
        assert dict(found.namespaces) == {"workers": set(), "chat": {"default", "team-a"}}
        assert (found.audience, found.server) == (AUDIENCE, "https://10.0.0.1:6443")

    def test_nobody_is_asked_unless_it_is_set(self) -> None:
        assert self.read("") == Reporters()
        assert Settings.from_env({"REDIS_URL": "redis://redis"}).tokens.reporters == Reporters()

    def test_an_address_of_ipv6_is_one(self) -> None:
        assert self.read("workers", KUBERNETES_SERVICE_HOST="fd00::1").server == "https://[fd00::1]:6443"

    @pytest.mark.parametrize(
        ("text", "more", "why"),
        [
            ("Workers", {}, "write namespaces such as"),
            ("workers=team-b", {}, "names the scope 'team-b'"),
            ("workers workers=default", {}, "has a namespace twice"),
            ("workers", {"KUBERNETES_SERVICE_HOST": ""}, "runs in no cluster"),
            ("workers", {"OPENROUTER_GUARD_REPORTER_AUDIENCE": "two words"}, "write one word"),
        ],
    )
    def test_what_cannot_be_meant_is_refused(self, text: str, more: dict[str, str], why: str) -> None:
        with pytest.raises(ConfigurationError, match=why):
            self.read(text, **more)
