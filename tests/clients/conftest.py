"""The answers that generated clients must parse, and the document that they are generated from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio as aioredis

from openrouter_guard.api import create_app
from openrouter_guard.settings import Settings, Tokens
from openrouter_guard.store import Store
from tests.clients.tour import Answer, tour
from tests.service.apps import KEY, READ_TOKEN, WRITE_TOKEN


@pytest.fixture
async def answers(
    redis_url: str, store: Store, client: aioredis.Redis, monkeypatch: pytest.MonkeyPatch
) -> list[Answer]:
    return await tour(Settings(redis_url=redis_url, api_key=KEY), store, client, monkeypatch)


@pytest.fixture(scope="session")
def document() -> dict[str, Any]:
    """Of a service that has both tokens."""
    tokens = Tokens(read=READ_TOKEN, write=WRITE_TOKEN)
    return create_app(Settings("redis://redis", tokens=tokens)).openapi()


@pytest.fixture(scope="session")
def document_file(document: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("openapi") / "openapi.json"
    file.write_text(json.dumps(document))
    return file
