"""The connection to the API server, and how its answers are interpreted."""

from __future__ import annotations

import json

import pytest

from openrouter_operator.kubernetes.errors import Refused, Unavailable, error_of
from tests.controlplane import ControlPlane
from tests.operator.crashes import connected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(json.dumps({"message": "no\x1b[31m\n\u202e way"}).encode(), "no [31m way", id="of a webhook"),
        pytest.param(json.dumps({"message": ["a", "list"]}).encode(), "HTTP 403", id="that are none"),
        pytest.param(b"<html>\x1b[2J\n\n  stop", "<html> [2J stop", id="of a gateway"),
        pytest.param(b"", "HTTP 403", id="that are missing"),
    ],
)
def test_the_words_of_a_refusal_are_one_line(text: bytes, expected: str) -> None:
    error = error_of(403, text, {})
    assert (type(error), str(error)) == (Refused, expected)


def test_the_words_of_a_refusal_are_as_short_as_an_event_may_be() -> None:
    error = error_of(503, json.dumps({"message": "a" * 100_000}).encode(), {"Retry-After": "7"})
    assert isinstance(error, Unavailable)
    assert (len(str(error)) <= 1024, error.after_s) == (True, 7.0)


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.usefixtures("crd")
async def test_a_proxy_that_is_there_for_openrouter_is_not_asked_for_the_api_server(
    control_plane: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    async with connected(control_plane) as cluster:
        assert await cluster.is_installed()
