"""Tokens: who may read, who may write, and the limits of browsers on other sites."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from fastapi.routing import APIRoute

from openrouter_guard.api.http import auth
from openrouter_guard.api.routes import ROUTERS
from openrouter_guard.errors import ConfigurationError
from openrouter_guard.settings import FurtherScope, Settings
from openrouter_guard.tokens import ReportToken, Tokens
from tests.service.apps import READ_TOKEN, STATUS, WRITE_TOKEN, FakeUpstream, bearer, running

pytestmark = pytest.mark.slow

PREFIX = "/api/v1/openrouter"
REPORTS = [
    ("POST", f"{PREFIX}/reports"),
    ("POST", f"{PREFIX}/permits"),
    ("PUT", f"{PREFIX}/permits/x"),
    ("DELETE", f"{PREFIX}/permits/x"),
]
DECIDES = [("POST", f"{PREFIX}/override"), ("DELETE", f"{PREFIX}/override?who=ops")]
WRITES = REPORTS + DECIDES
WRITING = pytest.mark.parametrize(("method", "path"), WRITES)
READS = [
    STATUS,
    f"{PREFIX}/gate",
    f"{PREFIX}/badge",
    f"{PREFIX}/events",
    "/metrics",
    "/openapi.json",
    "/docs",
    "/nowhere",
]


REPORT_TOKEN = "report-00112233445566778899aabbcc"
BOUND_TOKEN = "bound-ffeeddccbbaa99887766554433"


def basic(password: str) -> Mapping[str, str]:
    return {"Authorization": f"Basic {base64.b64encode(f'me:{password}'.encode()).decode()}"}


@pytest.fixture
def guarded(settings: Settings) -> Settings:
    return replace(settings, tokens=Tokens(READ_TOKEN, WRITE_TOKEN))


def test_every_route_that_writes_is_tried_here() -> None:
    """A new one is open to everybody if its router lacks the class that checks the token."""
    routes = [route for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)]
    writing = {
        (method, route.path_format) for route in routes for method in (route.methods or set()) - {"GET", "HEAD"}
    }
    assert writing == {(method, path.partition("?")[0].replace("/x", "/{permit}")) for method, path in WRITES}


class TestWriting:
    @WRITING
    async def test_is_off_until_there_is_a_token_and_says_how_to_turn_it_on(
        self, settings: Settings, upstream: FakeUpstream, method: str, path: str
    ) -> None:
        async with running(settings, upstream) as service:
            answers = [
                await service.request(method, path, headers=headers)
                for headers in ({}, bearer(""), bearer(WRITE_TOKEN))
            ]
        assert {answer.status_code for answer in answers} == {403}
        variable = "REPORT" if (method, path) in REPORTS else "WRITE"
        assert f"set OPENROUTER_GUARD_{variable}_TOKEN" in answers[0].json()["detail"]

    @WRITING
    @pytest.mark.parametrize(
        ("headers", "status_code"),
        [
            pytest.param({}, 401, id="no token"),
            pytest.param(bearer(WRITE_TOKEN[:-1]), 401, id="nearly the token"),
            pytest.param(bearer(WRITE_TOKEN + "x"), 401, id="more than the token"),
            pytest.param(bearer("ü"), 401, id="not ASCII"),
            pytest.param(bearer(""), 401, id="an empty token"),
            pytest.param({"Authorization": f"Token {WRITE_TOKEN}"}, 401, id="another scheme"),
            pytest.param(basic(WRITE_TOKEN), 401, id="what a browser sends by itself"),
            pytest.param(bearer(READ_TOKEN), 401, id="a token that is none"),
        ],
    )
    async def test_needs_the_token(
        self,
        settings: Settings,
        upstream: FakeUpstream,
        method: str,
        path: str,
        headers: Mapping[str, str],
        status_code: int,
    ) -> None:
        writable = replace(settings, tokens=Tokens(write=WRITE_TOKEN))
        async with running(writable, upstream) as service:
            raw = [(name.encode(), value.encode()) for name, value in headers.items()]
            answer = await service.request(method, path, headers=raw)
        assert answer.status_code == status_code
        assert answer.headers["www-authenticate"].startswith('Bearer realm="openrouter-guard"')

    @WRITING
    async def test_is_not_for_those_who_may_read(
        self, guarded: Settings, upstream: FakeUpstream, method: str, path: str
    ) -> None:
        async with running(guarded, upstream) as service:
            answer = await service.request(method, path, headers=bearer(READ_TOKEN))
        assert (answer.status_code, answer.json()["detail"][:24]) == (403, "This token may only read")

    async def test_nothing_is_read_of_a_body_before_the_token_is_right(
        self, settings: Settings, upstream: FakeUpstream
    ) -> None:
        writable = replace(settings, tokens=Tokens(write=WRITE_TOKEN))
        async with running(writable, upstream) as service:
            answer = await service.post(f"{PREFIX}/reports", content=b"not JSON")
        assert answer.status_code == 401


class TestReading:
    @pytest.mark.parametrize("path", READS)
    async def test_everybody_may_unless_there_is_a_token(
        self, guarded: Settings, upstream: FakeUpstream, path: str
    ) -> None:
        async with running(guarded, upstream) as service:
            refused = await service.get(path)
            wrong = await service.get(path, headers=bearer("x" * 32))
            allowed = [await service.head(path, headers=each) for each in (bearer(READ_TOKEN), bearer(WRITE_TOKEN))]
        assert (refused.status_code, wrong.status_code) == (401, 401)
        assert refused.headers["content-type"] == "application/problem+json"
        assert refused.headers["x-content-type-options"] == "nosniff"
        assert refused.headers["www-authenticate"] == 'Bearer realm="openrouter-guard"'
        assert {answer.status_code for answer in allowed} == {404 if path == "/nowhere" else 200}

    @pytest.mark.parametrize("path", [STATUS, f"{PREFIX}/history", f"{PREFIX}/workers"])
    async def test_what_one_was_told_is_not_told_to_another(
        self, guarded: Settings, upstream: FakeUpstream, path: str
    ) -> None:
        async with running(guarded, upstream) as service:
            for _ in range(3):
                assert (await service.get(path, headers=bearer(READ_TOKEN))).status_code == 200
                assert (await service.get(path)).status_code == 401

    @pytest.mark.parametrize("path", ["/livez", "/readyz"])
    async def test_the_probes_need_none(self, guarded: Settings, upstream: FakeUpstream, path: str) -> None:
        async with running(guarded, upstream) as service:
            assert (await service.get(path)).status_code == 200

    async def test_a_browser_asks_the_person_for_it(self, guarded: Settings, upstream: FakeUpstream) -> None:
        async with running(guarded, upstream) as service:
            page = await service.get("/docs", headers={"Accept": "text/html,*/*"})
            shown = await service.get("/docs", headers=basic(READ_TOKEN))
            wrong = await service.get("/docs", headers=basic("x" * 32))
            odd = await service.get("/docs", headers={"Authorization": "Basic ???"})
        assert page.headers["www-authenticate"] == 'Basic realm="openrouter-guard"'
        assert (shown.status_code, wrong.status_code, odd.status_code) == (200, 401, 401)

    async def test_the_document_says_what_to_send(self, guarded: Settings, upstream: FakeUpstream) -> None:
        async with running(guarded, upstream) as service:
            document = (await service.get("/openapi.json", headers=bearer(READ_TOKEN))).json()
        assert document["paths"][STATUS]["get"]["security"] == [{"readToken": []}]
        assert document["paths"][f"{PREFIX}/reports"]["post"]["security"] == [
            {"reportToken": []},
            {"writeToken": []},
        ]
        assert document["paths"][f"{PREFIX}/override"]["post"]["security"] == [{"writeToken": []}]
        assert set(document["components"]["securitySchemes"]) == {"readToken", "reportToken", "writeToken"}
        assert "401" in document["paths"][STATUS]["get"]["responses"]
        assert "security" not in document["paths"]["/livez"]["get"]


class TestReporting:
    """A token that may report, take permits and ask the gate, and nothing else."""

    @pytest.fixture
    def guarded(self, settings: Settings) -> Settings:
        bound = ReportToken(BOUND_TOKEN, frozenset({"team-a"}))
        report = (ReportToken(REPORT_TOKEN), bound)
        further = (FurtherScope("team-a"),)
        return replace(settings, tokens=Tokens(READ_TOKEN, WRITE_TOKEN, report), further=further)

    @pytest.mark.parametrize(("method", "path"), REPORTS)
    @pytest.mark.parametrize("token", [REPORT_TOKEN, WRITE_TOKEN])
    async def test_it_may_report_and_take_permits_and_so_may_who_writes(
        self, guarded: Settings, upstream: FakeUpstream, method: str, path: str, token: str
    ) -> None:
        body = {"worker_id": "go-1", "results": [{"success": True}]} if method == "POST" else None
        async with running(guarded, upstream) as service:
            answer = await service.request(method, path, json=body, headers=bearer(token))
        assert answer.status_code == (200 if body else 410)

    @pytest.mark.parametrize(
        ("method", "path"), [*DECIDES, *(("GET", path) for path in READS if not path.endswith("/gate"))]
    )
    async def test_it_may_do_nothing_else(
        self, guarded: Settings, upstream: FakeUpstream, method: str, path: str
    ) -> None:
        async with running(guarded, upstream) as service:
            answer = await service.request(method, path, headers=bearer(REPORT_TOKEN))
        assert (answer.status_code, answer.json()["detail"][:21]) == (403, "This token may only r")

    @pytest.mark.parametrize(("method", "path"), REPORTS)
    async def test_nor_may_it_without_a_token_to_read_with(
        self, settings: Settings, upstream: FakeUpstream, method: str, path: str
    ) -> None:
        only = replace(settings, tokens=Tokens(report=(ReportToken(REPORT_TOKEN),)))
        async with running(only, upstream) as service:
            refused = await service.request(method, path)
            taken = await service.request(method, path, headers=bearer(REPORT_TOKEN))
            stops = await service.post(f"{PREFIX}/override", headers=bearer(REPORT_TOKEN))
            reads = await service.get(STATUS, headers=bearer(REPORT_TOKEN))
        assert refused.status_code == 401
        assert taken.status_code in (410, 415)
        assert (stops.status_code, reads.status_code) == (403, 200)

    @pytest.mark.parametrize(
        ("token", "scope", "status_code"),
        [
            (BOUND_TOKEN, "?scope=team-a", 410),
            (BOUND_TOKEN, "", 403),
            (BOUND_TOKEN, "?scope=default", 403),
            (BOUND_TOKEN, "?scope=team-b", 403),
            (REPORT_TOKEN, "?scope=team-a", 410),
            (REPORT_TOKEN, "?scope=team-b", 404),
        ],
    )
    async def test_one_that_is_for_a_scope_may_neither_report_nor_ask_of_another(
        self, guarded: Settings, upstream: FakeUpstream, token: str, scope: str, status_code: int
    ) -> None:
        async with running(guarded, upstream) as service:
            answer = await service.put(f"{PREFIX}/permits/x{scope}", headers=bearer(token))
            asked = await service.get(f"{PREFIX}/gate{scope}", headers=bearer(token))
        assert answer.status_code == status_code
        assert asked.status_code == (200 if status_code == 410 else status_code)


async def test_a_token_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[int, int]] = []
    compare = hmac.compare_digest

    def spy(given: bytes, known: bytes) -> bool:
        compared.append((len(given), len(known)))
        return compare(given, known)

    monkeypatch.setattr(hmac, "compare_digest", spy)
    access = auth.Access(Tokens(READ_TOKEN, WRITE_TOKEN))
    tried = ("", "x", READ_TOKEN, WRITE_TOKEN)
    found = [access.of_bearer(f"Bearer {token}") for token in tried]
    assert found == [auth.Right.NOTHING, auth.Right.NOTHING, auth.Right.READ, auth.Right.WRITE]
    # Both are compared each time, and always the same number of bytes.
    assert compared == [(32, 32)] * 2 * len(tried)


class TestSettings:
    def read(self, **environ: str) -> Settings:
        return Settings.from_env({"REDIS_URL": "redis://redis", **environ})

    def test_tokens_are_read_and_never_shown(self) -> None:
        settings = self.read(OPENROUTER_GUARD_READ_TOKEN=READ_TOKEN, OPENROUTER_GUARD_WRITE_TOKEN=f" {WRITE_TOKEN}\n")
        assert (settings.tokens.read, settings.tokens.write) == (READ_TOKEN, WRITE_TOKEN)
        assert READ_TOKEN not in repr(settings)
        assert WRITE_TOKEN not in repr(settings)

    @pytest.mark.parametrize("token", ["short", "with a space in it", "ünter-der-brücke"])
    def test_a_token_that_can_be_guessed_or_not_be_sent_is_refused_without_being_shown(self, token: str) -> None:
        with pytest.raises(ConfigurationError, match="OPENROUTER_GUARD_WRITE_TOKEN cannot be used") as caught:
            self.read(OPENROUTER_GUARD_WRITE_TOKEN=token)
        assert token not in str(caught.value)

    def test_tokens_to_report_with_may_be_for_some_scopes_alone(self) -> None:
        text = f"{REPORT_TOKEN}\n default+team-a={BOUND_TOKEN}  {'a' * 20}==\n"
        settings = self.read(
            OPENROUTER_GUARD_REPORT_TOKEN=text,
            OPENROUTER_GUARD_FURTHER_SCOPES="team-a",
            OPENROUTER_API_KEY_TEAM_A="sk-or-v1-team-a-0123456789",
        )
        assert [(each.token, set(each.scopes)) for each in settings.tokens.report] == [
            (REPORT_TOKEN, set()),
            (BOUND_TOKEN, {"default", "team-a"}),
            ("a" * 20 + "==", set()),
        ]
        assert REPORT_TOKEN not in repr(settings)
        assert BOUND_TOKEN not in repr(settings)

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ("short", "cannot be used"),
            ("team-a=short", "cannot be used"),
            (f"team-b={REPORT_TOKEN}", "names the scope 'team-b'"),
            (f"{REPORT_TOKEN} default={REPORT_TOKEN}", "has a token twice"),
            (WRITE_TOKEN, "is that of"),
        ],
    )
    def test_those_that_cannot_be_used_are_refused_without_being_shown(self, text: str, why: str) -> None:
        with pytest.raises(ConfigurationError, match=f"OPENROUTER_GUARD_REPORT_TOKEN.*{why}") as caught:
            self.read(OPENROUTER_GUARD_REPORT_TOKEN=text, OPENROUTER_GUARD_WRITE_TOKEN=WRITE_TOKEN)
        assert not any(token in str(caught.value) for token in (REPORT_TOKEN, WRITE_TOKEN, "short"))

    def test_one_token_for_both_is_refused(self) -> None:
        with pytest.raises(ConfigurationError, match="are the same"):
            self.read(OPENROUTER_GUARD_READ_TOKEN=READ_TOKEN, OPENROUTER_GUARD_WRITE_TOKEN=READ_TOKEN)

    @pytest.mark.parametrize("text", ["grafana.example", "https://grafana.example/", "https://a b", "ftp://x"])
    def test_a_site_that_is_none_is_refused(self, text: str) -> None:
        with pytest.raises(ConfigurationError, match="OPENROUTER_GUARD_CORS_ORIGINS"):
            self.read(OPENROUTER_GUARD_CORS_ORIGINS=f"https://fine.example, {text}")


class TestOtherSites:
    ORIGIN: Mapping[str, Any] = {"Origin": "https://grafana.example"}
    ASKS: Mapping[str, Any] = {**ORIGIN, "Access-Control-Request-Method": "GET"}

    async def test_may_read_nothing(self, settings: Settings, upstream: FakeUpstream) -> None:
        async with running(settings, upstream) as service:
            answer = await service.get(STATUS, headers=self.ORIGIN)
            asked = await service.options(STATUS, headers=self.ASKS)
        assert "access-control-allow-origin" not in answer.headers
        assert asked.status_code == 405

    async def test_may_read_if_they_are_named(self, settings: Settings, upstream: FakeUpstream) -> None:
        opened = replace(settings, cors_origins=("https://grafana.example",), tokens=Tokens(READ_TOKEN))
        async with running(opened, upstream) as service:
            asked = await service.options(STATUS, headers=self.ASKS)
            answer = await service.get(STATUS, headers={**self.ORIGIN, **bearer(READ_TOKEN)})
            other = await service.get(STATUS, headers={"Origin": "https://evil.example", **bearer(READ_TOKEN)})
            writing = await service.options(STATUS, headers={**self.ASKS, "Access-Control-Request-Method": "POST"})
        assert (asked.status_code, writing.status_code) == (200, 400)
        assert answer.headers["access-control-allow-origin"] == "https://grafana.example"
        assert "X-Cache" in answer.headers["access-control-expose-headers"]
        assert "access-control-allow-origin" not in other.headers
        assert "access-control-allow-credentials" not in answer.headers
