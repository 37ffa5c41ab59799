"""No answer and no log line of any test in this folder holds a secret: the fixture ``nothing_leaks`` checks it.

Here is what makes it worth something: it hears what leaks, and the service is asked for all with every secret set.
"""

from __future__ import annotations

import json
import logging
import time
from dataclasses import replace

import httpx
import pytest
import redis.asyncio as aioredis
from asgi_lifespan import LifespanManager
from fastapi import FastAPI

from openrouter_guard.api import create_app
from openrouter_guard.rules.codec import iso
from openrouter_guard.settings import Settings, Tokens
from tests.service.apps import (
    KEY,
    READ_TOKEN,
    STATUS,
    WRITE_TOKEN,
    FakeUpstream,
    ask,
    bearer,
    failing,
    running,
    write,
)
from tests.service.leaks import PASSWORD, Ears
from tests.service.sockets import listening, watching

SECRETS = pytest.mark.parametrize("secret", [KEY, READ_TOKEN, WRITE_TOKEN, PASSWORD])


class TestTheEars:
    @SECRETS
    async def test_hear_an_answer(self, settings: Settings, nothing_leaks: Ears, secret: str) -> None:
        app: FastAPI = create_app(settings)
        app.add_api_route("/leak", lambda: f"it is {secret}")
        async with LifespanManager(app) as managed:
            transport = httpx.ASGITransport(app=managed.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://service") as service:
                await service.get("/leak")
        assert [secret in said for said in nothing_leaks.leaks()] == [True]

    @SECRETS
    def test_hear_a_log_line_its_fields_and_its_traceback(self, nothing_leaks: Ears, secret: str) -> None:
        logger = logging.getLogger("openrouter_guard.somewhere")
        logger.debug("it is %s", secret)
        logger.info("look", extra={"address": f"redis://:{secret}@redis"})
        try:
            int(secret)
        except ValueError:
            logger.exception("failed")
        assert len(nothing_leaks.leaks()) == 3

    def test_hear_a_key_that_was_cut_short(self, nothing_leaks: Ears) -> None:
        logging.getLogger("openrouter_guard").info("label %s…", KEY[:-4])
        assert len(nothing_leaks.leaks()) == 1


async def test_everything_is_asked_with_all_secrets_set(
    settings: Settings, upstream: FakeUpstream, client: aioredis.Redis, nothing_leaks: Ears
) -> None:
    await client.execute_command("ACL", "SETUSER", "me", "on", f">{PASSWORD}", "~*", "&*", "+@all")  # type: ignore[no-untyped-call]
    url = settings.redis_url.replace("//", f"//me:{PASSWORD}@")
    secretive = replace(settings, redis_url=url, tokens=Tokens(READ_TOKEN, WRITE_TOKEN))
    upstream.answer = failing(401, f"No such key: {KEY}")
    said = {"message": f"{KEY} was refused", "metadata": {"raw": KEY}}
    report = {"worker_id": "go-1", "results": [{"success": False, "status_code": 401, "error": said}]}
    try:
        async with listening(secretive, upstream) as service:
            service.client.headers.update(bearer(WRITE_TOKEN))
            async with watching(service.client) as stream:
                await service.client.post("/api/v1/openrouter/reports", json=report)
                document = (await service.client.get("/openapi.json")).json()
                for path in (*document["paths"], "/", "/docs", "/nowhere", f"{STATUS}?force_refresh=x"):
                    if not path.endswith("/events"):
                        await service.client.get(path)
                        await service.client.get(path, headers=bearer(KEY))
                await anext(stream)
            async with running(secretive, upstream) as other:
                await other.get(STATUS, headers=bearer(READ_TOKEN))
    finally:
        await client.execute_command("ACL", "DELUSER", "me")  # type: ignore[no-untyped-call]
    assert len(nothing_leaks.heard) > 50
    assert any("was refused" in said for said in nothing_leaks.heard)
    kept = str([await client.hgetall("openrouter:state"), await client.xrange("openrouter:history")])
    assert "sk-or" not in kept


async def test_a_key_that_workers_wrote_down_goes_no_further(
    settings: Settings, upstream: FakeUpstream, client: aioredis.Redis, nothing_leaks: Ears
) -> None:
    """Older workers store what the upstream said, and a library of another version may too."""
    said, now = f"No such key: {KEY}", iso(time.time())
    error = {
        "timestamp": now,
        "worker_id": "old",
        "error_type": "api_key_invalid",
        "error_message": said,
    }
    await write(client, age_s=1, state="api_key_invalid", message=said, error_details=json.dumps(error))
    await client.lpush(f"openrouter:worker_errors:{now[:10]}", json.dumps(error))
    async with running(settings, upstream) as service:
        answer = await ask(service)
        (worker,) = (await ask(service, "/api/v1/openrouter/workers"))["workers"]
        await service.get("/")
    assert answer["message"] == worker["last_error"]["error_message"] == "No such key: [key]"
    assert json.loads(answer["error_details"])["error_message"] == "No such key: [key]"
    assert len(nothing_leaks.heard) >= 6
