"""Whose fault it is: an answer that a client cannot parse is the upstream's, a model's output is the worker's."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import aiohttp
import httpx
import httpx2
import openai
import pytest
import requests

from openrouter_guard import was_upstreams_fault
from openrouter_guard.rules.signals import Effect, ErrorType, Signal
from openrouter_guard.worker.classification.classify import classify_exception
from openrouter_guard.worker.classification.client_frames import read_by

URL = "https://openrouter.ai/api/v1/chat/completions"
PAGE = b"<!DOCTYPE html>\n<html><body>Bad gateway</body></html>"
NEUTRAL = (Effect.NEUTRAL, None)
UNKNOWN = (Effect.FAILURE, ErrorType.UNKNOWN_ERROR)
UNAVAILABLE = (Effect.FAILURE, ErrorType.SERVICE_UNAVAILABLE)
QUESTION: Any = [{"role": "user", "content": "Hi"}]

UNREADABLE = [
    pytest.param(PAGE, id="a page"),
    pytest.param(b"", id="nothing"),
    pytest.param(b" \n" * 50, id="spaces that kept the connection alive"),
    pytest.param(b'{"id": "gen-1", "choi', id="half an answer"),
    pytest.param(b"no healthy upstream", id="words"),
    pytest.param(b"\xff\xfe{", id="no text"),
]


def seen(signal: Signal) -> tuple[Effect, ErrorType | None]:
    return signal.effect, signal.error_type


def raised(call: Callable[[], object]) -> Exception:
    with pytest.raises(Exception) as caught:  # noqa: PT011  which one is the client's affair
        call()
    return caught.value


def with_httpx(status_code: int, body: bytes, headers: dict[str, str]) -> object:
    respond = httpx.MockTransport(lambda _: httpx.Response(status_code, content=body, headers=headers))
    with httpx.Client(transport=respond) as client:
        return client.post(URL).json()["choices"]


def with_httpx2(status_code: int, body: bytes, headers: dict[str, str]) -> object:
    respond = httpx2.MockTransport(lambda _: httpx2.Response(status_code, content=body, headers=headers))
    with httpx2.Client(transport=respond) as client:
        return client.post(URL).json()["choices"]


def with_requests(status_code: int, body: bytes, headers: dict[str, str]) -> object:
    response = requests.Response()
    response.status_code, response._content = status_code, body
    response.headers.update(headers)
    return response.json()["choices"]


def openai_with(http: Any, status_code: int, body: bytes, headers: dict[str, str]) -> openai.OpenAI:
    respond = http.MockTransport(lambda _: http.Response(status_code, content=body, headers=headers))
    return openai.OpenAI(base_url=URL, api_key="sk", max_retries=0, http_client=http.Client(transport=respond))


def with_openai(status_code: int, body: bytes, headers: dict[str, str]) -> object:
    client = openai_with(httpx2, status_code, body, headers)
    return client.chat.completions.create(model="m", messages=QUESTION).choices[0]


CLIENTS = [with_httpx, with_httpx2, with_requests, with_openai]
JSON = {"content-type": "application/json"}


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("body", UNREADABLE)
def test_an_answer_that_no_client_can_read_is_a_failure(client: Callable[..., object], body: bytes) -> None:
    error = raised(lambda: client(200, body, JSON))
    assert seen(classify_exception(error)) == UNKNOWN
    assert was_upstreams_fault(error)
    wrapped = RuntimeError("the agent failed")
    wrapped.__cause__ = error
    assert seen(classify_exception(wrapped)) == UNKNOWN
    assert seen(classify_exception(ExceptionGroup("tasks", [ValueError("mine"), wrapped]))) == UNKNOWN


@pytest.mark.parametrize("client", [with_httpx, with_httpx2, with_requests])
def test_its_status_and_headers_count_where_there_are_any(client: Callable[..., object]) -> None:
    for status_code, headers, expected in (
        (404, {}, NEUTRAL),
        (502, {}, UNAVAILABLE),
        (429, {"Retry-After": "30"}, (Effect.RATE_LIMIT, ErrorType.RATE_LIMITED)),
    ):
        error = raised(lambda code=status_code, told=headers: client(code, PAGE, told))  # type: ignore[misc]
        assert seen(classify_exception(error)) == expected


@pytest.mark.parametrize("load", [json.loads, lambda text: {}[text]])
def test_what_a_worker_reads_itself_is_its_own_affair(load: Callable[[str], object]) -> None:
    def work() -> object:
        response = httpx.Response(200, json={"choices": [{"message": {"content": "no JSON"}}]})
        return load(response.json()["choices"][0]["message"]["content"])

    assert seen(classify_exception(raised(work))) == NEUTRAL


def test_so_is_what_it_gives_a_client_to_call() -> None:
    def refuse(_: object) -> object:
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine") as caught:
        # The end of it, which no client can read, has not been looked at yet.
        httpx.Response(200, content=b'{"a": {"b": 1}, "c').json(object_hook=refuse)
    assert seen(classify_exception(caught.value)) == NEUTRAL


async def test_aiohttp(base_url: str, simulated: Any) -> None:
    simulated.switch("bad_json")
    key = {"Authorization": "Bearer sk-or-any"}
    async with aiohttp.ClientSession(headers=key) as session:
        question = {"model": "simulated/model", "messages": QUESTION}
        with pytest.raises(json.JSONDecodeError) as caught:
            async with session.post(f"{base_url}/chat/completions", json=question) as response:
                await response.json()
    assert seen(classify_exception(caught.value)) == UNKNOWN


class TestTextThatOpenaiHandsOut:
    """What is not labelled as JSON, and is none, comes out of ``create()`` as a text."""

    @pytest.mark.parametrize("kind", ["text/html", "text/plain", ""])
    @pytest.mark.parametrize("body", [PAGE, b"", b"\n\n"])
    def test_a_page_or_nothing_is_a_failure(self, body: bytes, kind: str) -> None:
        error = raised(lambda: with_openai(200, body, {"content-type": kind} if kind else {}))
        assert isinstance(error, AttributeError)
        assert seen(classify_exception(error)) == UNKNOWN

    @pytest.mark.parametrize("text", ["what a model wrote", "<p>a page that it wrote</p>", '{"a": 1}'])
    def test_any_other_text_may_be_the_workers_own(self, text: Any) -> None:
        assert seen(classify_exception(raised(lambda: text.choices))) == NEUTRAL

    def test_so_may_a_page_of_which_something_else_is_wanted(self) -> None:
        page: Any = PAGE.decode()
        assert seen(classify_exception(raised(lambda: page.prettify()))) == NEUTRAL

    def test_half_an_answer_is_a_failure(self) -> None:
        error = raised(lambda: with_openai(200, b'{"id": "gen-1", "choi', {"content-type": "text/plain"}))
        assert seen(classify_exception(error)) == UNKNOWN

    def test_an_error_in_it_is_that_error(self) -> None:
        text: Any = '{"error": {"code": 502, "message": "cut"}}'
        assert seen(classify_exception(raised(lambda: text.choices))) == UNAVAILABLE


def test_a_stream_whose_events_openai_cannot_read() -> None:
    stream = {"content-type": "text/event-stream"}

    def ask(body: bytes) -> object:
        client = openai_with(httpx2, 200, body, stream)
        return list(client.chat.completions.create(model="m", messages=QUESTION, stream=True))

    assert seen(classify_exception(raised(lambda: ask(b"data: {half\n\n")))) == UNKNOWN
    assert seen(classify_exception(raised(lambda: ask(b"data: \xff\n\n")))) == UNKNOWN


def in_library(module: str, source: str, **names: object) -> Exception:
    """What a function of a library raises, where the library is not installed."""
    code = compile(source, f"{module}.py", "exec")
    space: dict[str, Any] = {"__name__": module, **names}
    exec(code, space)
    return raised(space["run"])


LANGCHAIN = """
def run(): _create_chat_result(answer)
def _create_chat_result(response):
    response_dict = response if isinstance(response, dict) else None
    if response_dict is None: raise ValueError("Unexpected response type")
    if response_dict.get("error"): raise ValueError(response_dict["error"])
    raise TypeError("Received response with null value for 'choices'.")
"""
PYDANTIC_AI = """
def run(): _process_response(answer)
def _process_response(response): raise RuntimeError("Invalid response from openai chat completions endpoint")
"""
LITELLM = """
def run(): convert_to_model_response_object(answer)
def convert_to_model_response_object(response_object):
    raised = Exception()
    raised.status_code = 422
    raise raised
"""


@pytest.mark.parametrize(
    ("module", "source"),
    [
        pytest.param("langchain_openai.chat_models.base", LANGCHAIN, id="langchain"),
        pytest.param("pydantic_ai.models.openai", PYDANTIC_AI, id="pydantic-ai"),
        pytest.param("litellm.litellm_core_utils.convert", LITELLM, id="litellm"),
    ],
)
@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"error": {"message": "Provider returned error"}}, UNAVAILABLE),
        ({"error": "overloaded"}, UNAVAILABLE),
        ({"error": {"code": 400, "message": "bad"}}, NEUTRAL),
        (PAGE.decode(), UNKNOWN),
        ("no healthy upstream", UNKNOWN),
        ("", UNKNOWN),
        (None, UNKNOWN),
        ({"choices": None}, NEUTRAL),
    ],
    ids=str,
)
def test_a_library_that_takes_an_answer_apart_has_it(
    module: str, source: str, answer: object, expected: tuple[Effect, ErrorType | None]
) -> None:
    assert seen(classify_exception(in_library(module, source, answer=answer))) == expected
    assert seen(classify_exception(in_library("worker.code", source, answer=answer))) == NEUTRAL


def test_a_stream_of_langchain_that_brought_nothing() -> None:
    source = "def run(): raise ValueError('No generation chunks were returned')"
    assert seen(classify_exception(in_library("langchain_core.language_models.chat_models", source))) == UNKNOWN
    assert seen(classify_exception(in_library("worker.code", source))) == NEUTRAL


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        ({"error": {"message": "Provider returned error"}, "choices": None}, UNAVAILABLE),
        (PAGE.decode(), UNKNOWN),
        ({"choices": [{"message": {"content": "no JSON"}}]}, NEUTRAL),
        ("what a model wrote", NEUTRAL),
    ],
    ids=str,
)
def test_instructor_keeps_the_last_answer(completion: object, expected: tuple[Effect, ErrorType | None]) -> None:
    kind = type("InstructorRetryException", (Exception,), {"__module__": "instructor.v2.core.errors"})
    error = kind("it failed")
    error.last_completion = completion
    assert seen(classify_exception(error)) == expected


def test_a_deep_stack_is_looked_at_so_far() -> None:
    def deep(levels: int) -> object:
        return deep(levels - 1) if levels else with_httpx(200, PAGE, {})

    assert read_by(raised(lambda: deep(500))) is not None
    assert read_by(ValueError("never raised")) is None
