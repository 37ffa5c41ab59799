"""The account's balance with a management key; and further addresses to check."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace

import httpx
import pytest

from openrouter_guard.errors import ConfigurationError
from openrouter_guard.rules.breaker import BreakerState, Policy
from openrouter_guard.rules.signals import Effect, OpenRouterState
from openrouter_guard.settings import Settings, Thresholds
from openrouter_guard.store import Batch, Store
from openrouter_guard.upstream import CheckResult, OpenRouter
from tests.service.apps import (
    FORCED,
    KEY,
    MANAGEMENT_KEY,
    Answer,
    FakeUpstream,
    ask,
    eventually,
    failing,
    healthy,
    running,
)

pytestmark = pytest.mark.slow

HEALTH_URL = "https://status.test/health?token=hunter2"
NOW_S = 1_772_366_400.0
ACTIVE, EXHAUSTED = OpenRouterState.ACTIVE, OpenRouterState.CREDITS_EXHAUSTED


def credits_of(bought: float, used: float) -> Answer:
    return lambda: httpx.Response(200, json={"data": {"total_credits": bought, "total_usage": used}})


class Paths(FakeUpstream):
    """An upstream with an answer for each path; counts what was asked of each, and keeps the tokens sent."""

    def __init__(self, **answers: Answer) -> None:
        super().__init__()
        self.answers: dict[str, Answer] = {"key": healthy(), "credits": credits_of(250, 40), **answers}
        self.asked: list[str] = []
        self.tokens: dict[str, str | None] = {}

    async def _handle(self, request: httpx.Request) -> httpx.Response:
        name = request.url.path.rpartition("/")[2]
        self.asked.append(name)
        self.tokens[name] = request.headers.get("authorization")
        return self.answers[name]()


async def check(
    upstream: Paths, management_key: str = MANAGEMENT_KEY, health_urls: tuple[str, ...] = ()
) -> CheckResult:
    openrouter = OpenRouter(
        "https://openrouter.test/api/v1",
        KEY,
        timeout_s=0.5,
        management_key=management_key,
        health_urls=health_urls,
        transport=upstream.transport,
    )
    try:
        return await openrouter.check(NOW_S)
    finally:
        await openrouter.close()


class TestTheAccount:
    @pytest.mark.parametrize(
        ("key_left", "account", "state", "balance"),
        [
            pytest.param(None, (250, 40), ACTIVE, 210, id="a key without a cap: what is left of the account"),
            pytest.param(87.5, (250, 40), ACTIVE, 87.5, id="the key's cap is less"),
            pytest.param(87.5, (50, 40), ACTIVE, 10, id="the account has less"),
            pytest.param(87.5, (40, 40), EXHAUSTED, 0, id="an empty account, whatever the key's cap"),
            pytest.param(None, (40, 40.5), EXHAUSTED, -0.5, id="overdrawn"),
            pytest.param(0, (250, 40), EXHAUSTED, 0, id="the key's limit is used up, whatever the account has"),
        ],
    )
    async def test_the_balance_is_what_can_really_be_spent(
        self, key_left: float | None, account: tuple[float, float], state: OpenRouterState, balance: float
    ) -> None:
        found = await check(Paths(key=healthy(key_left), credits=credits_of(*account)))
        assert (found.state, found.balance, found.account_error) == (state, balance, "")
        assert (found.signal.effect is Effect.FAILURE) is (state is EXHAUSTED)

    async def test_each_key_goes_only_where_it_is_needed(self) -> None:
        upstream = Paths(health=lambda: httpx.Response(200))
        await check(upstream, health_urls=(HEALTH_URL,))
        assert upstream.tokens == {
            "key": f"Bearer {KEY}",
            "credits": f"Bearer {MANAGEMENT_KEY}",
            "health": None,
        }

    async def test_without_a_management_key_nobody_asks(self) -> None:
        upstream = Paths()
        assert (await check(upstream, management_key="")).balance == 87.5
        assert upstream.asked == ["key"]

    @pytest.mark.parametrize(
        "answer",
        [
            pytest.param(failing(403, f"{MANAGEMENT_KEY} is no management key"), id="not a management key"),
            pytest.param(failing(503), id="down"),
            pytest.param(failing(429, headers={"Retry-After": "90"}), id="limited"),
            pytest.param(lambda: httpx.Response(200, json={"data": {"total_credits": "5"}}), id="wrong types"),
            pytest.param(lambda: httpx.Response(302), id="a redirect"),
        ],
    )
    async def test_credit_that_cannot_be_asked_for_leaves_what_the_key_says(self, answer: Answer) -> None:
        found = await check(Paths(credits=answer))
        assert (found.state, found.balance, found.signal.effect) == (ACTIVE, 87.5, Effect.SUCCESS)
        assert found.account_error
        assert "sk-or" not in found.account_error

    async def test_a_management_key_that_cannot_be_sent_is_not_sent(self) -> None:
        upstream = Paths()
        found = await check(upstream, management_key="sk\nor")
        assert (found.state, upstream.asked) == (ACTIVE, ["key"])
        assert "OPENROUTER_MANAGEMENT_KEY" in found.account_error

    async def test_a_bad_key_is_said_first(self) -> None:
        found = await check(Paths(key=failing(401, "User not found"), credits=credits_of(1, 1)))
        assert found.state is OpenRouterState.API_KEY_INVALID

    async def test_what_goes_wrong_with_it_is_logged_once(
        self, settings: Settings, caplog: pytest.LogCaptureFixture
    ) -> None:
        upstream = Paths(credits=failing(403, "Only management keys can do this"))
        quick = replace(settings, management_key=MANAGEMENT_KEY, thresholds=Thresholds(check_slot_s=0.01))
        async with running(quick, upstream) as service:
            for _ in range(3):
                answer = await ask(service, FORCED)
                await asyncio.sleep(0.02)
        assert (answer["status"], answer["balance"]) == ("active", 87.5)
        assert caplog.text.count("The account's credit is not known (scope default): Only management keys") == 1


class TestAnEmptyAccount:
    @pytest.fixture
    def quick(self, settings: Settings) -> Settings:
        policy = Policy(reset_timeout_s=0.1, trial_wait_s=0.1)
        return replace(
            settings, management_key=MANAGEMENT_KEY, policy=policy, thresholds=Thresholds(check_slot_s=0.05)
        )

    async def empty(self, store: Store) -> None:
        await store.count(Batch(0, "worker1", 1, [("C", 2)], fields={"state": "credits_exhausted"}), at=NOW_S)

    async def phase(self, store: Store) -> BreakerState | None:
        seen = await store.read()
        return seen.record.phase(seen.now) if seen.record else None

    async def test_stays_closed_to_calls_while_the_key_alone_is_good(self, quick: Settings, store: Store) -> None:
        upstream = Paths(credits=credits_of(40, 40))
        await self.empty(store)
        async with running(quick, upstream) as service:
            await eventually(lambda: upstream.asked.count("key") > 3, seconds=20)
            assert await self.phase(store) is not BreakerState.CLOSED
            assert (await ask(service))["balance"] == 0

    async def test_is_filled_again_by_a_positive_balance(self, quick: Settings, store: Store) -> None:
        upstream = Paths(key=healthy(None), credits=credits_of(50, 40))
        await self.empty(store)
        async with running(quick, upstream) as service:

            async def closed() -> bool:
                return await self.phase(store) is BreakerState.CLOSED

            await eventually(closed)
            assert (await ask(service))["balance"] == 10


class TestFurtherAddresses:
    @pytest.mark.parametrize(
        ("answer", "words"),
        [
            pytest.param(lambda: httpx.Response(503), "503", id="down"),
            pytest.param(lambda: httpx.Response(404), "404", id="not there"),
            pytest.param(lambda: httpx.Response(302), "redirects", id="a redirect"),
        ],
    )
    async def test_one_that_fails_is_a_failure_of_the_service(self, answer: Answer, words: str) -> None:
        found = await check(Paths(health=answer), health_urls=(HEALTH_URL,))
        assert (found.state, found.signal.effect) == (OpenRouterState.SERVICE_UNAVAILABLE, Effect.FAILURE)
        assert words in found.signal.message
        assert "https://status.test/health" in found.signal.message
        assert "hunter2" not in repr(found)
        assert found.balance == 87.5

    async def test_any_good_answer_will_do(self) -> None:
        large = Paths(health=lambda: httpx.Response(200, content=b"x" * 200_000))
        assert (await check(large, health_urls=(HEALTH_URL,))).state is ACTIVE

    async def test_all_of_a_check_takes_no_longer_than_one_request_may(self) -> None:
        class Hanging(Paths):
            async def _handle(self, request: httpx.Request) -> httpx.Response:
                await asyncio.sleep(60)
                raise AssertionError

        began_at = asyncio.get_running_loop().time()
        found = await check(Hanging(), health_urls=(HEALTH_URL, HEALTH_URL))
        assert asyncio.get_running_loop().time() - began_at < 1.0
        assert "OpenRouter did not answer within 0.5 s" in found.signal.message


class TestSettings:
    def of(self, environ: Mapping[str, str]) -> Settings:
        return Settings.from_env({"REDIS_URL": "redis://redis", **environ})

    def test_they_come_from_the_environment_and_are_not_shown(self) -> None:
        found = self.of(
            {
                "OPENROUTER_MANAGEMENT_KEY": f" {MANAGEMENT_KEY}\n",
                "OPENROUTER_GUARD_HEALTH_URLS": f"{HEALTH_URL}, http://10.0.0.1:8080",
            }
        )
        assert found.management_key == MANAGEMENT_KEY
        assert found.health_urls == (HEALTH_URL, "http://10.0.0.1:8080")
        assert "sk-or" not in repr(found)
        assert "hunter2" not in repr(found)

    @pytest.mark.parametrize("text", ["status.test/hunter2", "https://a,ftp://hunter2", "https:///hunter2"])
    def test_an_address_that_is_none_is_named_without_it(self, text: str) -> None:
        with pytest.raises(ConfigurationError, match="OPENROUTER_GUARD_HEALTH_URLS") as caught:
            self.of({"OPENROUTER_GUARD_HEALTH_URLS": text})
        assert "hunter2" not in str(caught.value)
