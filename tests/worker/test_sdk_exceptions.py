"""Classification of the real SDKs' exceptions whose status alone would mislead."""

from __future__ import annotations

import json
from collections.abc import Callable

import httpx
import httpx2
import openai
import openrouter
import pytest
from openrouter.utils import BackoffStrategy, RetryConfig

from openrouter_guard.rules.signals import Effect, ErrorType, Signal
from openrouter_guard.testing import SimulatedOpenRouter
from openrouter_guard.worker.classification.classify import classify_answer, classify_exception

MODEL = "simulated/model"
NO_RETRIES = RetryConfig("none", BackoffStrategy(1, 1, 1, 1), retry_connection_errors=False)

pytestmark = pytest.mark.filterwarnings("ignore:.*DEPRECATED:DeprecationWarning")


def openai_chat(base_url: str, *, stream: bool = False) -> None:
    with openai.OpenAI(base_url=base_url, api_key="sk-or-any", max_retries=0, timeout=5) as client:
        answer = client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "Hi"}], stream=stream
        )
        list(answer)


def openai_stream(base_url: str) -> None:
    openai_chat(base_url, stream=True)


def openrouter_chat(base_url: str) -> None:
    with openrouter.OpenRouter("sk", server_url=base_url, retry_config=NO_RETRIES, timeout_ms=5000) as client:
        client.chat.send(messages=[{"role": "user", "content": "Hi"}], model=MODEL)


UNKNOWN = (Effect.FAILURE, ErrorType.UNKNOWN_ERROR)


@pytest.mark.parametrize(
    ("chat", "mode", "seen"),
    [
        pytest.param(
            openai_stream,
            "error_in_stream",
            (Effect.FAILURE, ErrorType.SERVICE_UNAVAILABLE),
            id="openai raises an error in a stream without a status",
        ),
        pytest.param(
            openrouter_chat,
            "error_in_body",
            (Effect.FAILURE, ErrorType.SERVICE_UNAVAILABLE),
            id="openrouter cannot read the error in a 200",
        ),
        pytest.param(openrouter_chat, "bad_json", UNKNOWN, id="openrouter gets half a body"),
        pytest.param(
            openrouter_chat, "wrong_types", (Effect.NEUTRAL, None), id="openrouter gets what it does not know"
        ),
        pytest.param(
            openrouter_chat, "redirect", (Effect.NEUTRAL, None), id="openrouter follows a redirect to no such page"
        ),
        pytest.param(openai_chat, "redirect", (Effect.NEUTRAL, None), id="openai follows a redirect to no such page"),
        pytest.param(openai_chat, "bad_json", UNKNOWN, id="openai gets half a body"),
    ],
)
def test_of_a_real_sdk(
    simulated: SimulatedOpenRouter,
    base_url: str,
    chat: Callable[[str], None],
    mode: str,
    seen: tuple[Effect, ErrorType | None],
) -> None:
    simulated.switch(mode)
    signal = _raised(lambda: chat(base_url))
    assert (signal.effect, signal.error_type) == seen


def _raised(call: Callable[[], None]) -> Signal:
    with pytest.raises(Exception) as caught:  # noqa: PT011  which one is the SDK's affair
        call()
    return classify_exception(caught.value)


def test_an_error_in_a_stream_that_is_the_callers_own_is_neutral() -> None:
    request = httpx.Request("POST", "https://openrouter.ai/api/v1/chat/completions")
    error = openai.APIError("too long", request, body={"code": 400, "message": "too long"})  # type: ignore[arg-type]
    assert classify_exception(error).effect is Effect.NEUTRAL


class AnotherError(Exception):
    """Of a library that has nothing to do with the upstream."""

    body = {"code": 502, "message": "my database is away"}  # noqa: RUF012


def test_a_body_like_an_error_in_somebody_elses_exception_says_nothing() -> None:
    assert classify_exception(AnotherError()).effect is Effect.NEUTRAL


class StatusError(Exception):
    """As SDKs raise it."""

    def __init__(self, status_code: int, body: str) -> None:
        super().__init__()
        self.status_code = status_code
        self.body = body


@pytest.mark.parametrize("status_code", [200, 204, 301, 302, 307])
@pytest.mark.parametrize("body", ["", "{}", "<html>", json.dumps({"error": "no"})])
def test_no_exception_is_ever_a_success(status_code: int, body: str) -> None:
    assert classify_exception(StatusError(status_code, body)).effect is not Effect.SUCCESS


def test_a_redirect_that_may_still_be_followed_says_nothing() -> None:
    assert classify_answer(308).effect is Effect.NEUTRAL


def test_an_error_may_be_a_text() -> None:
    assert classify_answer(200, body={"error": "overloaded"}).error_type is ErrorType.SERVICE_UNAVAILABLE


@pytest.mark.parametrize("error", [{"type": "server_error", "message": "x"}, {"message": "overloaded"}, "overloaded"])
def test_an_error_in_a_stream_counts_in_each_form(error: object) -> None:
    raised = openai.APIError("x", httpx2.Request("POST", "https://openrouter.ai/api/v1/chat/completions"), body=error)
    assert classify_exception(raised).effect is Effect.FAILURE
