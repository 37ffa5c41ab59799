"""An unknown query parameter is rejected, because it would silently have no effect."""

from __future__ import annotations

from dataclasses import replace

import pytest
import redis.asyncio as aioredis

from openrouter_guard.settings import FurtherScope, Settings, Tokens
from tests.service.apps import STATUS, WRITE_TOKEN, FakeUpstream, bearer, running

pytestmark = pytest.mark.slow

PREFIX = "/api/v1/openrouter"
READ = ["status", "metrics", "gate", "badge", "history", "workers", "models", "paused", "events"]
BESIDE = ["status", "metrics", "badge"]
"""Where clients have always sent foreign parameters along, such as what keeps a proxy from answering."""


@pytest.mark.parametrize("name", READ)
async def test_a_typo_is_refused_with_what_was_meant(settings: Settings, upstream: FakeUpstream, name: str) -> None:
    async with running(settings, upstream) as service:
        answer = await service.get(f"{PREFIX}/{name}?scop=team-a")
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    problem = answer.json()
    assert problem["detail"] == "There is no parameter 'scop': did you mean 'scope'?"
    told = {"in": "query", "name": "scop", "detail": "There is no such parameter: did you mean 'scope'?"}
    assert problem["errors"] == [told]


@pytest.mark.parametrize(
    ("query", "meant"),
    [
        ("status?force=true", "force_refresh"),
        ("status?force-refresh=true", "force_refresh"),
        ("metrics?day=3", "days"),
        ("history?Limit=3", "limit"),
        ("gate?modell=a/b", "model"),
    ],
)
async def test_the_nearest_one_is_named(settings: Settings, upstream: FakeUpstream, query: str, meant: str) -> None:
    async with running(settings, upstream) as service:
        answer = await service.get(f"{PREFIX}/{query}")
    assert (answer.status_code, answer.json()["detail"].partition(": ")[2]) == (422, f"did you mean {meant!r}?")


async def test_a_report_for_a_mistyped_scope_counts_for_no_other(
    settings: Settings, upstream: FakeUpstream, client: aioredis.Redis
) -> None:
    report = {"worker_id": "w1", "results": [{"success": False, "status_code": 503}]}
    async with running(replace(settings, tokens=Tokens(write=WRITE_TOKEN)), upstream) as service:
        answer = await service.post(f"{PREFIX}/reports?scop=team-a", json=report, headers=bearer(WRITE_TOKEN))
        without_token = await service.post(f"{PREFIX}/reports?scop=team-a", json=report)
    assert (answer.status_code, without_token.status_code) == (422, 401)
    assert not await client.exists("openrouter:workers")


@pytest.mark.parametrize("name", [name for name in READ if name not in {*BESIDE, "events"}])
async def test_what_is_like_none_is_told_too(settings: Settings, upstream: FakeUpstream, name: str) -> None:
    async with running(settings, upstream) as service:
        answer = await service.get(f"{PREFIX}/{name}?verbose=yes")
    assert (answer.status_code, answer.json()["detail"]) == (422, "There is no parameter 'verbose'")


@pytest.mark.parametrize("name", BESIDE)
async def test_foreign_ones_pass_where_they_always_did(settings: Settings, upstream: FakeUpstream, name: str) -> None:
    async with running(settings, upstream) as service:
        answer = await service.get(f"{PREFIX}/{name}?_=1772366400&verbose=yes")
    assert answer.status_code == 200


async def test_a_name_that_might_be_a_key_is_not_repeated(settings: Settings, upstream: FakeUpstream) -> None:
    async with running(settings, upstream) as service:
        answer = await service.get(f"{PREFIX}/gate?sk-or-v1-0123456789abcdef=1")
    assert answer.status_code == 422
    assert "0123" not in answer.text


class TestThePage:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return replace(settings, further=(FurtherScope("team-a"),))

    @pytest.mark.parametrize(
        ("query", "status", "words"),
        [
            ("scope=nosuch", 404, "This service does not handle that scope: choose one of default, team-a"),
            (f"scope={'x' * 300}", 404, "choose one of default, team-a"),
            ("scope=<script>", 404, "choose one of default, team-a"),
            ("scop=team-a", 422, "There is no parameter &#39;scop&#39;: did you mean &#39;scope&#39;?"),
        ],
    )
    async def test_what_is_wrong_is_a_page_that_leads_to_those_that_there_are(
        self, settings: Settings, upstream: FakeUpstream, query: str, status: int, words: str
    ) -> None:
        async with running(settings, upstream) as service:
            answer = await service.get(f"/?{query}", headers={"Accept": "text/html"})
        assert (answer.status_code, answer.headers["content-type"]) == (status, "text/html; charset=utf-8")
        assert words in answer.text
        assert '<a href="?scope=team-a">team-a</a>' in answer.text
        assert "<script" not in answer.text

    @pytest.mark.parametrize("query", ["", "?scope=team-a", "?utm_source=mail"])
    async def test_what_is_right_is_the_page(self, settings: Settings, upstream: FakeUpstream, query: str) -> None:
        async with running(settings, upstream) as service:
            answer = await service.get(f"/{query}")
        assert (answer.status_code, 'id="headline"' in answer.text) == (200, True)


async def test_the_probes_and_prometheus_are_asked_as_their_clients_please(
    settings: Settings, upstream: FakeUpstream
) -> None:
    async with running(settings, upstream) as service:
        found = [(await service.get(f"{path}?scop=x")).status_code for path in ("/livez", "/readyz", "/metrics")]
        plain = (await service.get(STATUS)).status_code
    assert (found, plain) == ([200, 200, 200], 200)
