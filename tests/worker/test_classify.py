"""Classification of client libraries' exceptions, without importing those libraries."""

from __future__ import annotations

import asyncio
import socket
import urllib.error
from typing import Any

import httpx
import openai
import pytest
import redis

from openrouter_guard.errors import CallNotPermitted
from openrouter_guard.rules.signals import Effect, ErrorType
from openrouter_guard.worker.classification.classify import classify_answer, classify_exception

# The openai SDK has an HTTP client of its own; only the form of what it carries matters here.
REQUEST: Any = httpx.Request("POST", "https://openrouter.ai/api/v1/chat/completions")


def answer(status_code: int, headers: dict[str, str] | None = None, **error: Any) -> httpx.Response:
    return httpx.Response(status_code, headers=headers, json={"error": error}, request=REQUEST)


def httpx_error(response: httpx.Response) -> Exception:
    try:
        response.raise_for_status()
    except httpx.HTTPStatusError as error:
        return error
    raise AssertionError("it did not raise")


def openai_error(response: Any) -> Exception:
    return openai.APIStatusError("no", response=response, body=response.json()["error"])


class RequestsHTTPError(OSError):
    """As ``requests`` raises it: the status is on the response alone."""

    def __init__(self, response: httpx.Response) -> None:
        super().__init__("no")
        self.response = response


class AiohttpResponseError(Exception):
    """As ``aiohttp`` raises it: ``status`` and ``headers``, and no body."""

    def __init__(self, response: httpx.Response) -> None:
        super().__init__("no")
        self.status = response.status_code
        self.headers = response.headers


# It is no ConnectionError of Python's.
RequestsConnectionError = type("ConnectionError", (OSError,), {"__module__": "requests.exceptions"})

LIBRARIES = [httpx_error, openai_error, RequestsHTTPError, AiohttpResponseError]


@pytest.mark.parametrize("raised", LIBRARIES)
@pytest.mark.parametrize(
    ("status_code", "effect", "error_type"),
    [
        (401, Effect.FAILURE, ErrorType.API_KEY_INVALID),
        (402, Effect.FAILURE, ErrorType.CREDITS_EXHAUSTED),
        (404, Effect.NEUTRAL, None),
        (503, Effect.FAILURE, ErrorType.SERVICE_UNAVAILABLE),
        (524, Effect.FAILURE, ErrorType.TIMEOUT),
    ],
)
def test_a_status_is_found_wherever_a_library_keeps_it(
    raised: Any, status_code: int, effect: Effect, error_type: ErrorType | None
) -> None:
    signal = classify_exception(raised(answer(status_code, code=status_code, message="no")))
    assert (signal.effect, signal.error_type) == (effect, error_type)


@pytest.mark.parametrize("raised", LIBRARIES)
def test_so_are_the_headers_of_a_rate_limit(raised: Any) -> None:
    signal = classify_exception(raised(answer(429, {"Retry-After": "30"}, code=429, message="slow down")))
    assert (signal.effect, signal.wait_s) == (Effect.RATE_LIMIT, 30)


@pytest.mark.parametrize("raised", [httpx_error, openai_error, RequestsHTTPError])
def test_so_is_the_body(raised: Any) -> None:
    oversized = answer(402, code=402, message="no", metadata={"reason": "weight_exceeds_budget"})
    assert classify_exception(raised(oversized)).effect is Effect.NEUTRAL
    exhausted = answer(403, code=403, message="Key limit exceeded (total limit)")
    assert classify_exception(raised(exhausted)).error_type is ErrorType.CREDITS_EXHAUSTED


def test_what_an_sdk_cuts_out_of_the_body_is_in_its_response() -> None:
    spoken = classify_exception(openai_error(answer(402, message="Insufficient credits")))
    assert spoken.refuses_credit, "openai hands out the error alone, which is no error without its name"


@pytest.mark.parametrize(
    ("error", "error_type"),
    [
        pytest.param(TimeoutError(), ErrorType.TIMEOUT, id="Python's"),
        pytest.param(httpx.ReadTimeout("slow"), ErrorType.TIMEOUT, id="httpx"),
        pytest.param(openai.APITimeoutError(REQUEST), ErrorType.TIMEOUT, id="openai"),
        pytest.param(RequestsConnectionError(), ErrorType.NETWORK_ERROR, id="requests"),
        pytest.param(urllib.error.URLError("no route"), ErrorType.NETWORK_ERROR, id="urllib"),
        pytest.param(socket.gaierror(), ErrorType.NETWORK_ERROR, id="a name that is not found"),
        pytest.param(ConnectionResetError(), ErrorType.NETWORK_ERROR, id="a reset"),
        pytest.param(httpx.ConnectError("no route"), ErrorType.NETWORK_ERROR, id="httpx, no connection"),
        pytest.param(httpx.RemoteProtocolError("cut"), ErrorType.NETWORK_ERROR, id="httpx, cut off"),
        pytest.param(openai.APIConnectionError(request=REQUEST), ErrorType.NETWORK_ERROR, id="openai, no connection"),
    ],
)
def test_no_answer_is_a_failure(error: Exception, error_type: ErrorType) -> None:
    signal = classify_exception(error)
    assert (signal.effect, signal.error_type) == (Effect.FAILURE, error_type)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("mine"),
        KeyError("mine"),
        asyncio.CancelledError(),
        KeyboardInterrupt(),
        GeneratorExit(),
        pytest.param(httpx.PoolTimeout("full"), id="the caller's own pool is full"),
        pytest.param(redis.ConnectionError("away"), id="the caller's own Redis is away"),
    ],
)
def test_what_is_not_the_upstreams_says_nothing(error: BaseException) -> None:
    assert classify_exception(error).effect is Effect.NEUTRAL


def test_a_stream_that_was_not_read_has_its_status_all_the_same() -> None:
    class Unread(httpx.SyncByteStream):
        def __iter__(self) -> Any:
            raise AssertionError("it was read")

    response = httpx.Response(503, stream=Unread(), request=REQUEST)
    assert classify_exception(httpx_error(response)).error_type is ErrorType.SERVICE_UNAVAILABLE


@pytest.mark.parametrize(
    ("body", "effect"),
    [
        pytest.param({"choices": []}, Effect.SUCCESS, id="an answer"),
        pytest.param({"error": {"code": 502, "message": "cut"}}, Effect.FAILURE, id="an error inside"),
        pytest.param('{"error": {"code": 429, "message": "slow"}}', Effect.FAILURE, id="as text"),
        pytest.param({"error": {"message": "no code"}}, Effect.FAILURE, id="without a code"),
        pytest.param({"error": {"code": 400, "message": "bad"}}, Effect.NEUTRAL, id="the caller's own"),
        pytest.param("not JSON", Effect.SUCCESS, id="not JSON"),
        pytest.param(None, Effect.SUCCESS, id="nothing"),
    ],
)
def test_a_200_is_what_its_body_says(body: object, effect: Effect) -> None:
    assert classify_answer(200, body=body).effect is effect


@pytest.mark.parametrize("raised", LIBRARIES)
@pytest.mark.parametrize("status_code", [429, 500, 503])
def test_a_refusal_by_another_guard_on_the_way_says_nothing_of_the_upstream(raised: Any, status_code: int) -> None:
    headers = CallNotPermitted(12.5, "service_unavailable").headers
    refused = answer(status_code, headers, code=status_code, message="calls to OpenRouter are paused")
    assert classify_exception(raised(refused)).effect is Effect.NEUTRAL
    assert classify_answer(status_code, headers=headers).effect is Effect.NEUTRAL
    assert classify_answer(status_code, headers=list(headers.items())).effect is Effect.NEUTRAL


def test_a_refusal_is_told_in_two_headers_whatever_its_reason_is() -> None:
    assert CallNotPermitted(12.5, "service_unavailable").headers == {
        "Retry-After": "13",
        "OpenRouter-Guard": "refused; reason=service_unavailable",
    }
    assert CallNotPermitted(0.0, "a\r\nb ü").headers == {
        "Retry-After": "1",
        "OpenRouter-Guard": "refused; reason=a__b__",
    }


def test_another_header_of_that_name_makes_no_failure_disappear() -> None:
    assert classify_answer(503, headers={"openrouter-guard": "passed"}).effect is Effect.FAILURE
