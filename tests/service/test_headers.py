"""Response headers: caching, age, source, and security."""

from __future__ import annotations

import time
from dataclasses import replace

import httpx
import pytest
import redis.asyncio as aioredis

from openrouter_guard.api.http.conditional import etag, without
from openrouter_guard.rules.codec import iso
from openrouter_guard.settings import Settings
from openrouter_guard.store import Store
from tests.service.apps import STATUS, FakeUpstream, eventually, open_breaker, running, write

pytestmark = pytest.mark.slow

PREFIX = "/api/v1/openrouter"
READING = [f"{PREFIX}/{name}" for name in ("status", "metrics", "history", "workers", "models", "paused", "badge")]
ALL = [*READING, f"{PREFIX}/gate", "/livez", "/readyz", "/metrics", "/openapi.json", "/docs", "/nowhere"]


class TestWhatAClientHas:
    @pytest.mark.parametrize("path", READING)
    async def test_is_not_sent_again(self, settings: Settings, upstream: FakeUpstream, path: str) -> None:
        async with running(settings, upstream) as service:
            await service.get(STATUS)
            first = await service.get(path)
            again = await service.get(path, headers={"If-None-Match": first.headers["etag"]})
            other = await service.get(path, headers={"If-None-Match": 'W/"something else"'})
        assert (first.status_code, again.status_code, other.status_code) == (200, 304, 200)
        assert again.content == b""
        assert again.headers["etag"] == first.headers["etag"]
        assert again.headers["cache-control"] == first.headers["cache-control"]
        assert "content-type" not in again.headers

    @pytest.mark.parametrize(
        "sent", [pytest.param("*", id="anything"), pytest.param('"a", W/"{tag}"', id="in a list"), '"{tag}"']
    )
    async def test_is_recognised_however_it_is_written(
        self, settings: Settings, upstream: FakeUpstream, sent: str
    ) -> None:
        async with running(settings, upstream) as service:
            await service.get(STATUS)
            tag = (await service.get(STATUS)).headers["etag"].removeprefix('W/"').removesuffix('"')
            answer = await service.get(STATUS, headers={"If-None-Match": sent.format(tag=tag)})
        assert answer.status_code == 304

    async def test_is_sent_again_once_it_says_something_else(
        self, settings: Settings, upstream: FakeUpstream, store: Store
    ) -> None:
        async with running(settings, upstream) as service:
            await service.get(STATUS)
            tag = (await service.get(STATUS)).headers["etag"]
            await open_breaker(store, settings)

            async def news() -> httpx.Response | None:
                answer = await service.get(STATUS, headers={"If-None-Match": tag})
                return answer if answer.status_code == 200 else None

            answer = await eventually(news)
        assert answer.json()["circuit_breaker_open"] is True

    async def test_two_replicas_agree_on_it(
        self, settings: Settings, upstream: FakeUpstream, client: aioredis.Redis
    ) -> None:
        await write(client, age_s=5)
        async with running(settings, upstream) as one, running(settings, upstream) as other:
            tags = {(await service.get(STATUS)).headers["etag"] for service in (one, other)}
        assert len(tags) == 1

    def test_an_age_that_grows_is_no_news(self) -> None:
        told = r'{"a":"\"age_seconds\":1,",*"models":{"age_seconds":{}}}'
        bodies = [told.replace("*", f'"age_seconds":{age},') for age in ("1.5", "null")]
        assert without(bodies[0], "age_seconds") == without(bodies[1], "age_seconds")
        assert without(bodies[0], "age_seconds") == told.replace("*", "")
        assert etag(b"a") != etag(b"b")


class TestWhereItCameFrom:
    async def test_live_then_from_the_cache(self, settings: Settings, upstream: FakeUpstream) -> None:
        async with running(settings, upstream) as service:
            first, second = await service.get(STATUS), await service.get(STATUS)
        assert (first.headers["x-cache"], second.headers["x-cache"]) == ("MISS", "HIT")
        assert (first.headers["age"], second.headers["cache-control"]) == ("0", "no-cache")

    async def test_what_is_no_longer_fresh_says_so_with_its_age(
        self, settings: Settings, upstream: FakeUpstream, client: aioredis.Redis
    ) -> None:
        await write(client, age_s=120)
        upstream.gate.clear()
        async with running(settings, upstream) as service:
            answer = await service.get(STATUS)
            upstream.gate.set()
        assert answer.headers["x-cache"] == "STALE"
        assert 120 <= int(answer.headers["age"]) <= 122
        assert int(answer.headers["age"]) == int(answer.json()["age_seconds"])

    async def test_what_was_never_checked_has_no_age(self, settings: Settings, upstream: FakeUpstream) -> None:
        away = replace(settings, redis_url="redis://127.0.0.1:1/0")
        async with running(away, upstream) as service:
            answer = await service.get(STATUS)
        assert "age" not in answer.headers
        assert answer.headers["x-cache"] == "STALE"

    @pytest.mark.parametrize("name", ["metrics", "history", "workers", "paused"])
    async def test_what_is_read_for_each_request_is_new(
        self, settings: Settings, upstream: FakeUpstream, name: str
    ) -> None:
        async with running(settings, upstream) as service:
            answer = await service.get(f"{PREFIX}/{name}")
        assert (answer.headers["x-cache"], answer.headers["age"]) == ("MISS", "0")

    async def test_the_status_says_when_calls_may_go_again(
        self, settings: Settings, upstream: FakeUpstream, client: aioredis.Redis
    ) -> None:
        await write(client, age_s=1, state="rate_limited", rate_limit_reset=iso(time.time() + 90))
        async with running(settings, upstream) as service:
            limited = await service.get(STATUS)
        assert 88 <= int(limited.headers["retry-after"]) <= 90

    async def test_it_says_nothing_of_waiting_while_calls_go(
        self, settings: Settings, upstream: FakeUpstream
    ) -> None:
        async with running(settings, upstream) as service:
            assert "retry-after" not in (await service.get(STATUS)).headers


class TestEveryAnswer:
    @pytest.mark.parametrize("path", ALL)
    async def test_forbids_what_it_does_not_need(self, settings: Settings, upstream: FakeUpstream, path: str) -> None:
        async with running(settings, upstream) as service:
            headers = (await service.get(path)).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "no-referrer"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["cache-control"]
        assert "access-control-allow-origin" not in headers

    @pytest.mark.parametrize("path", ALL)
    async def test_head_is_the_same_without_the_body(
        self, settings: Settings, upstream: FakeUpstream, path: str
    ) -> None:
        async with running(settings, upstream) as service:
            await service.get(STATUS)
            get, head = await service.get(path), await service.head(path)
        assert (head.status_code, head.content) == (get.status_code, b"")
        assert _stable(head) == _stable(get)


def _stable(answer: httpx.Response) -> dict[str, str]:
    moving = {"age", "content-length", "etag", "x-cache"}
    return {name: value for name, value in answer.headers.items() if name not in moving}
