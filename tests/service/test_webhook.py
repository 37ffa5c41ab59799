"""The webhook on each change of the breaker: once for the fleet, retried, and without holding up anybody."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import openai
import pytest
import redis.asyncio as aioredis

from openrouter_guard.api.scope import webhook
from openrouter_guard.api.scope.webhook import Webhook, signed_headers
from openrouter_guard.api.scope.webhook_events import alarm_event, payload
from openrouter_guard.errors import ConfigurationError
from openrouter_guard.replica import Replica
from openrouter_guard.rules import evaluation, shared_state
from openrouter_guard.rules.breaker import Open, Policy
from openrouter_guard.rules.codec import iso
from openrouter_guard.settings import Settings
from openrouter_guard.store import Store
from openrouter_guard.version import package_version
from openrouter_guard.webhook_settings import secret_keys
from tests.service.apps import STATUS, FakeUpstream, ask, eventually, fail, open_breaker, running
from tests.service.webhook_receiver import PATH_SECRET, Posted, Receiver, receiver

pytestmark = pytest.mark.slow

SIGNING = "whsec_" + base64.b64encode(b"0123456789abcdef01234567").decode()
SOON = Policy(first_wait_s=0.5, longest_wait_s=0.5, reset_timeout_s=0.5, jitter=0.0)


@pytest.fixture
def hook() -> Iterator[Receiver]:
    with receiver() as hook:
        yield hook


@pytest.fixture
def telling(settings: Settings, hook: Receiver, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(webhook, "FIRST_WAIT_S", 0.01)
    return replace(settings, webhook_url=hook.url)


async def test_a_change_is_told_once_however_many_replicas_there_are(
    telling: Settings, hook: Receiver, store: Store
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
    telling: Settings, hook: Receiver, upstream: FakeUpstream, store: Store
) -> None:
    await open_breaker(store, telling)
    async with running(telling, upstream) as service:
        await ask(service)
        await asyncio.sleep(0.3)
    assert hook.taken == []


async def test_slack_gets_what_it_takes(
    telling: Settings, hook: Receiver, upstream: FakeUpstream, store: Store
) -> None:
    async with running(replace(telling, webhook_format="slack"), upstream) as service:
        await ask(service)
        await open_breaker(store, telling)
        await eventually(lambda: hook.taken)
    (event,) = hook.taken
    assert event.keys() == {"text", "blocks"}
    assert "closed → open" in event["text"]
    header, section = event["blocks"]
    assert header["text"] == {"type": "plain_text", "text": "Calls to OpenRouter are paused"}
    fields = {
        text.partition("\n")[0]: text.partition("\n")[2] for text in (each["text"] for each in section["fields"])
    }
    assert fields["*Scope*"] == "default"
    assert fields["*Since*"].startswith("<!date^")


@pytest.mark.parametrize("codes", [[503, 429, 200], [302, 200]], ids=["down, limited", "a redirect"])
async def test_it_is_tried_again(
    telling: Settings, hook: Receiver, upstream: FakeUpstream, store: Store, codes: list[int]
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
    hook: Receiver,
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
    assert PATH_SECRET not in caplog.text


async def test_one_that_hangs_holds_up_nobody(
    telling: Settings, hook: Receiver, upstream: FakeUpstream, store: Store
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


async def test_an_answer_without_an_end_is_not_read(
    telling: Settings, hook: Receiver, upstream: FakeUpstream, store: Store
) -> None:
    hook.has_end = False
    async with running(telling, upstream) as service:
        await ask(service)
        await open_breaker(store, telling)
        sent = 'openrouter_guard_webhook_events_total{result="sent",scope="default"} 1.0'

        async def is_sent() -> bool:
            return sent in (await service.get("/metrics")).text

        await eventually(is_sent)
    assert len(hook.taken) == 1


async def test_the_address_is_in_no_answer(telling: Settings, upstream: FakeUpstream) -> None:
    async with running(telling, upstream) as service:
        answers = [await service.get(path) for path in (STATUS, "/metrics", "/openapi.json", "/")]
    assert PATH_SECRET not in "".join(answer.text for answer in answers)
    assert PATH_SECRET not in repr(telling)


class TestMessage:
    async def test_it_says_why_until_when_what_is_paused_and_where_to_look(
        self, telling: Settings, hook: Receiver, upstream: FakeUpstream, store: Store
    ) -> None:
        about = {"resource": "team-a/default", "workloads": ["Deployment/chat"], "paused": 2}
        await store.tell_paused("production", {**about, "last_seen": iso(time.time())})
        async with running(replace(telling, public_url="https://guard.example"), upstream) as service:
            await ask(service)
            record = await open_breaker(store, telling)
            await eventually(lambda: hook.taken)
        (event,) = hook.taken
        assert event["until"] == iso(record.kept_until(0.0))
        assert event["why"] == record.upstream.message
        assert event["paused"] == [{"cluster": "production", **about}]
        assert event["link"] == "https://guard.example/?scope=default"
        for said in (
            event["at"],
            event["until"],
            event["why"],
            event["by"],
            "production: Deployment/chat and 1 more",
        ):
            assert said in event["text"]
        assert event["text"].endswith(event["link"])

    def test_no_words_of_others_mention_anybody_in_slack(self) -> None:
        entry = {"from": "open", "to": "open", "reason": "error_rate_high", "by": "<!channel>&", "at": "2026-03-01"}
        said = payload(alarm_event({**entry, "error_rate": "0.5"}, "default"), "slack")
        assert "<!channel>" not in str(said)
        assert "&lt;!channel&gt;&amp;" in said["text"]
        assert "&lt;!channel&gt;&amp;" in str(said["blocks"])


class TestSigning:
    async def posted(self, hook: Receiver, store: Store, settings: Settings) -> Posted:
        async with running(settings, FakeUpstream()) as service:
            await ask(service)
            await open_breaker(store, settings)
            await eventually(lambda: hook.posts)
        return hook.posts[0]

    async def test_another_library_verifies_it(self, telling: Settings, hook: Receiver, store: Store) -> None:
        other = "whsec_" + base64.b64encode(b"another one of 24 bytes.").decode()
        post = await self.posted(hook, store, replace(telling, webhook_secret=f"{SIGNING} {other}"))
        verifier = openai.OpenAI(api_key="unused").webhooks
        for secret in (SIGNING, other):
            verifier.verify_signature(post.body, post.headers, secret=secret)
        with pytest.raises(openai.InvalidWebhookSignatureError):
            verifier.verify_signature(post.body + b" ", post.headers, secret=SIGNING)
        assert post.headers["user-agent"] == f"openrouter-guard/{package_version()}"
        assert SIGNING not in post.body.decode()

    async def test_without_a_secret_it_has_an_id_and_no_signature(
        self, telling: Settings, hook: Receiver, store: Store
    ) -> None:
        post = await self.posted(hook, store, telling)
        assert post.headers["webhook-id"] == f"default-epoch-{post.event['epoch']}"
        assert "webhook-signature" not in post.headers

    async def test_the_secret_may_be_in_a_file(
        self, telling: Settings, hook: Receiver, store: Store, tmp_path: Path
    ) -> None:
        file = tmp_path / "secret"
        file.write_text(f"{SIGNING}\n")
        post = await self.posted(hook, store, replace(telling, webhook_secret_file=str(file)))
        openai.OpenAI(api_key="unused").webhooks.verify_signature(post.body, post.headers, secret=SIGNING)

    def test_the_published_example(self) -> None:
        # https://docs.svix.com/receiving/verifying-payloads/how-manual
        body = b'{"event_type":"ping","data":{"success":true}}'
        headers = signed_headers(
            "msg_loFOjxBNrRLzqYUf", 1731705121, body, secret_keys("whsec_plJ3nmyCDGBKInavdOK15jsl")
        )
        assert headers["webhook-signature"] == "v1,rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0="


async def test_an_odd_error_of_the_network_drops_the_event_and_nothing_else(
    telling: Settings, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    def odd(_request: httpx.Request) -> httpx.Response:
        raise OverflowError(PATH_SECRET)

    replica = Replica(store, telling.policy, by="me")
    ours = Webhook(telling, store, lambda: replica.stored, httpx.MockTransport(odd))
    await store.change(lambda record, now: record or shared_state.fresh(now))
    await replica.refresh()
    await ours.look()
    await open_breaker(store, telling)
    await replica.refresh()
    await ours.look()
    await ours.send()
    await ours.close()
    assert "the webhook did not accept an event, which is dropped: OverflowError" in caplog.text
    assert PATH_SECRET not in caplog.text


@pytest.mark.parametrize("port", [0, 99_999])
def test_an_address_that_nothing_can_have_is_said_at_the_start(telling: Settings, store: Store, port: int) -> None:
    wrong = replace(telling, webhook_url=f"https://host:{port}/{PATH_SECRET}")
    with pytest.raises(ConfigurationError, match="OPENROUTER_GUARD_WEBHOOK_URL is not an address") as caught:
        Webhook(wrong, store, lambda: Replica(store, telling.policy, by="me").stored)
    assert PATH_SECRET not in str(caught.value)


class TestTakeover:
    """Of several replicas, one of which goes away."""

    @asynccontextmanager
    async def replica(self, settings: Settings, store: Store) -> AsyncIterator[tuple[Replica, Webhook]]:
        replica = Replica(store, settings.policy, by="me")
        webhook = Webhook(settings, store, lambda: replica.stored)
        try:
            await self.look(replica, webhook)
            yield replica, webhook
        finally:
            await webhook.close()

    async def look(self, replica: Replica, webhook: Webhook) -> None:
        await replica.refresh()
        await webhook.look()

    async def test_another_one_sends_what_a_killed_one_took(
        self, telling: Settings, hook: Receiver, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await store.change(lambda record, now: record or shared_state.fresh(now))
        async with self.replica(telling, store) as first, self.replica(telling, store) as second:
            await open_breaker(store, telling)
            monkeypatch.setattr(webhook, "LEASE_S", 0.5)
            await self.look(*first)
            monkeypatch.setattr(first[1], "_waiting", [])  # killed: it neither sends, nor renews, nor gives back
            await self.look(*second)
            assert not second[1]._waiting
            async with self.replica(telling, store) as third:  # one that came later
                await asyncio.sleep(0.6)
                await self.look(*third)
                await self.look(*second)
                await third[1].send()
        assert len(hook.taken) == 1
        assert hook.taken[0]["to"] == "open"

    async def test_one_that_stops_leaves_it_to_another_at_once(
        self, telling: Settings, hook: Receiver, store: Store
    ) -> None:
        await store.change(lambda record, now: record or shared_state.fresh(now))
        async with self.replica(telling, store) as second:
            async with self.replica(telling, store) as first:
                await open_breaker(store, telling)
                await self.look(*first)
            await self.look(*second)
            await second[1].send()
        assert [event["to"] for event in hook.taken] == ["open"]

    async def test_what_nobody_has_committed_is_not_sent_yet(
        self, telling: Settings, hook: Receiver, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await store.change(lambda record, now: record or shared_state.fresh(now))
        async with self.replica(telling, store) as (replica, ours):
            await fail(store, 5)
            with monkeypatch.context() as patched:
                patched.setattr(replica._copy, "commit_due", commits_nothing)
                await self.look(replica, ours)
            assert not ours._waiting
            seen = await store.change(
                lambda record, now: record and evaluation.evaluate(record, now=now, policy=telling.policy, by="other")
            )
            await self.look(replica, ours)
            await ours.send()
        assert [event["epoch"] for event in hook.taken] == [seen.record and seen.record.epoch]

    async def test_what_redis_lost_at_that_moment_is_sent_once_it_is_back(
        self, telling: Settings, hook: Receiver, store: Store, client: aioredis.Redis
    ) -> None:
        await store.change(lambda record, now: record or shared_state.fresh(now))
        async with self.replica(telling, store) as (replica, ours):
            await open_breaker(store, telling)
            await replica.refresh()
            await client.flushall()
            await ours.look()
            assert not ours._waiting
            await self.look(replica, ours)  # its read restores the state
            await ours.send()
        assert [event["to"] for event in hook.taken] == ["open"]

    async def test_one_that_lost_its_lease_does_not_send(
        self, telling: Settings, hook: Receiver, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await store.change(lambda record, now: record or shared_state.fresh(now))
        monkeypatch.setattr(webhook, "LEASE_S", 0.2)
        async with self.replica(telling, store) as first, self.replica(telling, store) as second:
            await open_breaker(store, telling)
            await self.look(*first)
            await asyncio.sleep(0.3)  # as long as a process may be frozen
            monkeypatch.setattr(webhook, "LEASE_S", 30.0)
            await self.look(*second)
            await self.look(*first)
            await first[1].send()
            assert hook.taken == []
            await second[1].send()
        assert [event["to"] for event in hook.taken] == ["open"]


async def commits_nothing() -> bool:
    return False


async def test_half_open_by_time_is_told_once_and_its_first_trial_call_no_more(
    telling: Settings, hook: Receiver, store: Store
) -> None:
    settings = replace(telling, policy=SOON)
    async with AsyncExitStack() as stack:
        replicas = [await stack.enter_async_context(running(settings, FakeUpstream())) for _ in range(2)]
        await ask(replicas[0])
        record = await open_breaker(store, settings)
        await eventually(lambda: len(hook.taken) == 2)
        worker = Replica(store, SOON, by="worker-a")
        await worker.refresh()
        assert await worker.permit("worker-a")
        recorded = (await store.read()).record
        assert recorded is not None
        assert [change.after for change in recorded.transitions] == ["open", "half_open"]
        await asyncio.sleep(1.5)  # both replicas have seen it
    by_time = hook.taken[1]
    assert isinstance(record.breaker, Open)
    assert [event["to"] for event in hook.taken] == ["open", "half_open"]
    assert (by_time["reason"], by_time["epoch"], by_time["at"]) == (
        "reset_timeout",
        record.epoch,
        iso(record.breaker.until),
    )


class TestSettings:
    def of(self, **environ: str) -> Settings:
        prefixed = {f"OPENROUTER_GUARD_WEBHOOK_{name}": value for name, value in environ.items()}
        return Settings.from_env({"REDIS_URL": "redis://redis", **prefixed})

    def test_they_come_from_the_environment(self) -> None:
        found = self.of(URL="https://hooks.slack.com/services/1", FORMAT="slack")
        assert (found.webhook_url, found.webhook_format) == ("https://hooks.slack.com/services/1", "slack")
        assert (self.of().webhook_url, self.of().webhook_format) == ("", "json")

    def test_those_of_the_signature_too(self) -> None:
        found = self.of(SECRET=SIGNING, SECRET_FILE="/run/secret")
        assert (found.webhook_secret, found.webhook_secret_file) == (SIGNING, "/run/secret")
        assert SIGNING not in repr(found)

    @pytest.mark.parametrize("secret", ["hunter2hunter2hunter2", "whsec_hunter2", "whsec_hunter2hunter2!"])
    def test_a_wrong_secret_is_not_quoted(self, secret: str) -> None:
        with pytest.raises(ConfigurationError, match="OPENROUTER_GUARD_WEBHOOK_SECRET: write whsec_") as caught:
            self.of(SECRET=secret)
        assert "hunter2" not in str(caught.value)

    @pytest.mark.parametrize(
        ("text", "message"),
        [(None, "FILE cannot be read: FileNotFoundError"), ("", "an empty file"), ("hunter2", "FILE: write whsec_")],
    )
    def test_a_wrong_file_is_named_without_its_text(
        self, settings: Settings, store: Store, tmp_path: Path, text: str | None, message: str
    ) -> None:
        file = tmp_path / "secret"
        if text is not None:
            file.write_text(text)
        wrong = replace(settings, webhook_url="http://127.0.0.1:1", webhook_secret_file=str(file))
        with pytest.raises(ConfigurationError, match=message) as caught:
            Webhook(wrong, store, lambda: Replica(store, settings.policy, by="me").stored)
        assert "hunter2" not in str(caught.value)

    @pytest.mark.parametrize(
        "environ", [{"URL": f"hooks/{PATH_SECRET}"}, {"URL": f"https://a,https://{PATH_SECRET}"}, {"FORMAT": "xml"}]
    )
    def test_what_cannot_be_used_is_named_without_it(self, environ: dict[str, str]) -> None:
        with pytest.raises(ConfigurationError, match="OPENROUTER_GUARD_WEBHOOK_") as caught:
            self.of(**environ)
        assert PATH_SECRET not in str(caught.value)
