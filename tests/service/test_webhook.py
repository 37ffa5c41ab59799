"""The webhook on each change of the breaker: once for the fleet, retried, and without holding up anybody."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from openrouter_guard.api.scope import webhook
from openrouter_guard.errors import ConfigurationError
from openrouter_guard.settings import Settings
from openrouter_guard.store import Store
from tests.service.apps import STATUS, FakeUpstream, ask, eventually, open_breaker, running

SECRET = "T0123-hunter2"


@dataclass(slots=True)
class Hook:
    """Takes what is posted, on a real socket; answers with the codes in turn, the last of them for ever."""

    port: int = 0
    codes: list[int] = field(default_factory=lambda: [200])
    taken: list[dict[str, Any]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/services/{SECRET}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        self.taken.append(json.loads(await reader.readexactly(length)))
        code = self.codes.pop(0) if len(self.codes) > 1 else self.codes[0]
        if code:
            writer.write(b"HTTP/1.1 %d x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n" % code)
        else:
            await reader.read()  # until the other side gives up
        writer.close()
        await writer.wait_closed()


@pytest.fixture
async def hook() -> AsyncIterator[Hook]:
    hook = Hook()
    async with await asyncio.start_server(hook.serve, "127.0.0.1", 0) as server:
        hook.port = server.sockets[0].getsockname()[1]
        yield hook


@pytest.fixture
def telling(settings: Settings, hook: Hook, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(webhook, "FIRST_WAIT_S", 0.01)
    return replace(settings, webhook_url=hook.url)


async def test_a_change_is_told_once_however_many_replicas_there_are(
    telling: Settings, hook: Hook, store: Store
) -> None:
    async with AsyncExitStack() as stack:
        replicas = [await stack.enter_async_context(running(telling, FakeUpstream())) for _ in range(3)]
        await ask(replicas[0])
        record = await open_breaker(store, telling)
        await eventually(lambda: hook.taken)
        await asyncio.sleep(0.3)
    (event,) = hook.taken
    assert (
        event.items()
        >= {
            "event": "transition",
            "scope": "default",
            "from": "closed",
            "to": "open",
            "epoch": record.epoch,
        }.items()
    )
    assert event["text"].startswith("OpenRouter Guard (default): calls to OpenRouter are paused")


async def test_what_happened_before_a_replica_came_is_no_news(
    telling: Settings, hook: Hook, upstream: FakeUpstream, store: Store
) -> None:
    await open_breaker(store, telling)
    async with running(telling, upstream) as service:
        await ask(service)
        await asyncio.sleep(0.3)
    assert hook.taken == []


async def test_slack_gets_what_it_takes(telling: Settings, hook: Hook, upstream: FakeUpstream, store: Store) -> None:
    async with running(replace(telling, webhook_format="slack"), upstream) as service:
        await ask(service)
        await open_breaker(store, telling)
        await eventually(lambda: hook.taken)
    (event,) = hook.taken
    assert event.keys() == {"text"}
    assert "closed → open" in event["text"]


@pytest.mark.parametrize("codes", [[503, 429, 200], [302, 200]], ids=["down, limited", "a redirect"])
async def test_it_is_tried_again(
    telling: Settings, hook: Hook, upstream: FakeUpstream, store: Store, codes: list[int]
) -> None:
    hook.codes = [*codes]
    async with running(telling, upstream) as service:
        await ask(service)
        await open_breaker(store, telling)
        await eventually(lambda: len(hook.taken) == len(codes))
    assert len({event["epoch"] for event in hook.taken}) == 1


@pytest.mark.parametrize(
    ("code", "tries"),
    [pytest.param(404, 1, id="nobody is there"), pytest.param(500, webhook.TRIES, id="it stays down")],
)
async def test_what_is_not_taken_is_dropped_and_logged_without_the_address(
    telling: Settings,
    hook: Hook,
    upstream: FakeUpstream,
    store: Store,
    caplog: pytest.LogCaptureFixture,
    code: int,
    tries: int,
) -> None:
    caplog.set_level("INFO")
    hook.codes = [code]
    async with running(telling, upstream) as service:
        await ask(service)
        await open_breaker(store, telling)
        await eventually(lambda: "the webhook did not accept an event" in caplog.text)
        scraped = (await service.get("/metrics")).text
    assert len(hook.taken) == tries
    assert 'openrouter_guard_webhook_events_total{result="dropped",scope="default"} 1.0' in scraped
    assert f"HTTP {code}" in caplog.text
    assert SECRET not in caplog.text


async def test_one_that_hangs_holds_up_nobody(
    telling: Settings, hook: Hook, upstream: FakeUpstream, store: Store
) -> None:
    hook.codes = [0]
    async with running(telling, upstream) as service:
        await ask(service)
        await open_breaker(store, telling)
        await eventually(lambda: hook.taken)
        began_at = time.monotonic()
        assert (await ask(service))["circuit_breaker_open"] is True
        assert (await service.get("/livez")).status_code == 200
    assert time.monotonic() - began_at < 2.0  # nor does the end wait for it


async def test_the_address_is_in_no_answer(telling: Settings, upstream: FakeUpstream) -> None:
    async with running(telling, upstream) as service:
        answers = [await service.get(path) for path in (STATUS, "/metrics", "/openapi.json", "/")]
    assert SECRET not in "".join(answer.text for answer in answers)
    assert SECRET not in repr(telling)


class TestSettings:
    def of(self, **environ: str) -> Settings:
        prefixed = {f"OPENROUTER_GUARD_WEBHOOK_{name}": value for name, value in environ.items()}
        return Settings.from_env({"REDIS_URL": "redis://redis", **prefixed})

    def test_they_come_from_the_environment(self) -> None:
        found = self.of(URL="https://hooks.slack.com/services/1", FORMAT="slack")
        assert (found.webhook_url, found.webhook_format) == ("https://hooks.slack.com/services/1", "slack")
        assert (self.of().webhook_url, self.of().webhook_format) == ("", "json")

    @pytest.mark.parametrize(
        "environ", [{"URL": f"hooks/{SECRET}"}, {"URL": f"https://a,https://{SECRET}"}, {"FORMAT": "xml"}]
    )
    def test_what_cannot_be_used_is_named_without_it(self, environ: dict[str, str]) -> None:
        with pytest.raises(ConfigurationError, match="OPENROUTER_GUARD_WEBHOOK_") as caught:
            self.of(**environ)
        assert SECRET not in str(caught.value)
