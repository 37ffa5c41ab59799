"""Several API keys or teams side by side in one process."""

from __future__ import annotations

from dataclasses import replace

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from openrouter_guard.errors import ConfigurationError
from openrouter_guard.settings import FurtherScope, Settings
from openrouter_guard.store import Store
from tests.service.apps import KEY, STATUS, FakeUpstream, ask, healthy, open_breaker, running

TEAM_A, TEAM_B = f"{STATUS}?scope=team-a", f"{STATUS}?scope=team-b"


@pytest.fixture
def three(settings: Settings) -> Settings:
    """The default scope and two teams: one with a key of its own, one without any."""
    return replace(settings, further=(FurtherScope("team-a", f"{KEY}-a"), FurtherScope("team-b")))


class ByKey(FakeUpstream):
    """Answers each key with a balance of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.left: dict[str, float] = {f"Bearer {KEY}": 80.0, f"Bearer {KEY}-a": 7.0}

    async def _handle(self, request: httpx.Request) -> httpx.Response:
        await super()._handle(request)
        return healthy(self.left[request.headers["authorization"]])()


async def test_each_scope_has_its_own_key_state_and_checks(three: Settings) -> None:
    upstream = ByKey()
    async with running(three, upstream) as service:
        answers = [await ask(service, url) for url in (STATUS, TEAM_A, TEAM_B, STATUS, TEAM_A)]
    assert [answer["scope"] for answer in answers[:3]] == ["default", "team-a", "team-b"]
    assert [answer["balance"] for answer in answers] == [80.0, 7.0, None, 80.0, 7.0]
    assert answers[2]["status"] == "api_key_missing"
    assert upstream.calls == 2


async def test_the_outage_of_one_is_not_the_others(three: Settings, upstream: FakeUpstream) -> None:
    store = Store.from_url(three.redis_url, "team-a")
    await open_breaker(store, three)
    await store.close()
    async with running(three, upstream) as service:
        assert (await ask(service, TEAM_A))["circuit_breaker_open"] is True
        assert (await ask(service))["circuit_breaker_open"] is False
        gates = [
            (await service.get(f"/api/v1/openrouter/gate?scope={name}")).status_code for name in ("team-a", "team-b")
        ]
    assert gates == [503, 200]


async def test_one_target_tells_prometheus_of_all(three: Settings, upstream: FakeUpstream) -> None:
    async with running(three, upstream) as service:
        await ask(service, TEAM_A)
        text = (await service.get("/metrics")).text
    families = {family.name: family for family in text_string_to_metric_families(text)}
    for name in ("breaker_state", "store_up", "balance_usd", "upstream_checks", "status_answers"):
        scopes = {sample.labels["scope"] for sample in families[f"openrouter_guard_{name}"].samples}
        assert scopes == {"default", "team-a", "team-b"}
    answered = {
        sample.labels["scope"]: sample.value
        for sample in families["openrouter_guard_status_answers"].samples
        if sample.labels["source"] == "live"
    }
    assert answered == {"default": 0, "team-a": 1, "team-b": 0}


async def test_an_unknown_one_is_told_the_known_ones(three: Settings, upstream: FakeUpstream) -> None:
    async with running(three, upstream) as service:
        answer = await service.get(f"{STATUS}?scope=team-c")
    assert answer.status_code == 404
    assert "default, team-a, team-b" in answer.json()["detail"]


async def test_the_probes_are_about_all_of_them(
    three: Settings, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(three, upstream) as service:
        assert (await service.get("/readyz")).status_code == 200
        monkeypatch.setattr("openrouter_guard.background.STALL_S", -1.0)
        detail = (await service.get("/livez")).json()["detail"]
    assert "cache of team-a" in detail
    assert "cache of team-b" in detail


class TestSettings:
    def of(self, **environ: str) -> Settings:
        return Settings.from_env({"REDIS_URL": "redis://redis", "OPENROUTER_API_KEY": "own", **environ})

    def test_each_scope_has_variables_of_its_own(self) -> None:
        found = self.of(
            OPENROUTER_GUARD_SCOPE="team-a",
            OPENROUTER_GUARD_FURTHER_SCOPES="team-b, c",
            OPENROUTER_API_KEY_TEAM_B="theirs",
            OPENROUTER_MANAGEMENT_KEY_TEAM_B="managing",
        ).for_each_scope()
        assert [(each.scope, each.api_key, each.management_key) for each in found] == [
            ("team-a", "own", ""),
            ("team-b", "theirs", "managing"),
            ("c", "", ""),
        ]

    def test_no_key_is_shown(self) -> None:
        found = self.of(OPENROUTER_GUARD_FURTHER_SCOPES="b", OPENROUTER_API_KEY_B="theirs")
        assert "theirs" not in repr(found)

    @pytest.mark.parametrize("names", ["default", "b,b", "Team B", "b,/"])
    def test_what_cannot_be_used_is_refused(self, names: str) -> None:
        with pytest.raises(ConfigurationError):
            self.of(OPENROUTER_GUARD_FURTHER_SCOPES=names)
