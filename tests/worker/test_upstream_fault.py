"""Who caused a failed call: failures of the upstream go back to the queue, and nothing else."""

from __future__ import annotations

import httpx
import openai
import pytest

from openrouter_guard import CallNotPermitted, was_upstreams_fault

REQUEST = httpx.Request("POST", "https://openrouter.ai/api/v1/chat/completions")


def refused(status_code: int, message: str = "no", **metadata: object) -> Exception:
    body = {"error": {"code": status_code, "message": message, "metadata": metadata}}
    answer = httpx.Response(status_code, json=body, request=REQUEST)
    return httpx.HTTPStatusError(message, request=REQUEST, response=answer)


class Wrapper(Exception):
    """A framework's."""


def wrapped(cause: BaseException) -> Exception:
    error = Wrapper("no answer")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(CallNotPermitted(5, "timeout"), id="the guard's refusal: nothing was sent"),
        pytest.param(wrapped(CallNotPermitted(5, "timeout")), id="wrapped by a framework"),
        pytest.param(refused(503), id="an outage"),
        pytest.param(openai.APITimeoutError(request=REQUEST), id="a timeout"),  # type: ignore[arg-type]
        pytest.param(ConnectionResetError(), id="the network"),
        pytest.param(refused(429), id="a rate limit"),
        pytest.param(refused(429, provider_name="Acme"), id="a provider whose pool is full"),
        pytest.param(refused(502, provider_name="Acme"), id="a provider that fails"),
        pytest.param(refused(401), id="a refused key"),
        pytest.param(refused(402, "Insufficient credits"), id="an empty account"),
        pytest.param(ExceptionGroup("tasks", [KeyError("x"), refused(503)]), id="one of several"),
    ],
)
def test_the_same_request_may_succeed_later(error: BaseException) -> None:
    assert was_upstreams_fault(error)


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(refused(400), id="a request that is wrong"),
        pytest.param(refused(413), id="one that is too large"),
        pytest.param(
            refused(402, "You requested up to 64 tokens, but can only afford 30."), id="one that is too dear"
        ),
        pytest.param(refused(403, "Flagged by moderation"), id="moderation"),
        pytest.param(KeyError("choices"), id="the application's own mistake"),
        pytest.param(KeyboardInterrupt(), id="somebody's interruption"),
        pytest.param(None, id="nothing failed"),
    ],
)
def test_it_may_not(error: BaseException | None) -> None:
    assert not was_upstreams_fault(error)
