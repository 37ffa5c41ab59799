"""The cause of an exception decides: libraries wrap failures, and the caller's own mistakes too."""

from __future__ import annotations

import asyncio
import errno
import http.client
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import aiohttp
import httpx
import openai
import pytest
import redis
import requests
import starlette.exceptions
import urllib3
from hypothesis import given
from hypothesis import strategies as st
from requests.adapters import HTTPAdapter

from openrouter_guard import CallNotPermitted, refusal_in
from openrouter_guard.rules.signals import Effect, ErrorType, Signal
from openrouter_guard.worker.classification.causes import LEVELS, MOST, branches
from openrouter_guard.worker.classification.classify import classify_exception

REQUEST: Any = httpx.Request("POST", "https://openrouter.ai/api/v1/chat/completions")
NEUTRAL = (Effect.NEUTRAL, None)
NETWORK = (Effect.FAILURE, ErrorType.NETWORK_ERROR)
TIMEOUT = (Effect.FAILURE, ErrorType.TIMEOUT)
UNAVAILABLE = (Effect.FAILURE, ErrorType.SERVICE_UNAVAILABLE)

WRAPPERS = [
    ("pydantic_ai.exceptions", "ModelAPIError"),
    ("pydantic_ai.exceptions", "UnexpectedModelBehavior"),
    ("instructor.v2.core.errors", "InstructorRetryException"),
    ("tenacity", "RetryError"),
    ("langchain_core.exceptions", "ModelConnectionError"),
    ("worker.errors", "AnswerFailed"),
]
"""Classes without a status that wrap by ``raise … from``, as their libraries name them."""


def made(module: str, name: str, base: type[Exception] = Exception, **attributes: Any) -> Exception:
    error: Exception = type(name, (base,), {"__module__": module})("it failed")
    for attribute, value in attributes.items():
        setattr(error, attribute, value)
    return error


def caused(outer: BaseException, *inner: BaseException) -> BaseException:
    """The outer exception, raised from the next one, and so on."""
    for error, cause in zip((outer, *inner), inner, strict=False):
        error.__cause__ = cause
    return outer


def seen(signal: Signal) -> tuple[Effect, ErrorType | None]:
    return signal.effect, signal.error_type


def refused(status_code: int, headers: dict[str, str] | None = None, **error: Any) -> openai.APIStatusError:
    response: Any = httpx.Response(status_code, headers=headers, json={"error": error}, request=REQUEST)
    return openai.APIStatusError("no", response=response, body=error)


BEHIND = [
    pytest.param(openai.APIConnectionError(request=REQUEST), NETWORK, id="no connection"),
    pytest.param(openai.APITimeoutError(REQUEST), TIMEOUT, id="no answer in time"),
    pytest.param(httpx.RemoteProtocolError("cut"), NETWORK, id="a connection that was cut"),
    pytest.param(refused(503, message="down"), UNAVAILABLE, id="an answer"),
    pytest.param(refused(400, message="bad"), NEUTRAL, id="the caller's own"),
    pytest.param(ValueError("mine"), NEUTRAL, id="nothing of the upstream's"),
    pytest.param(asyncio.CancelledError(), NEUTRAL, id="a cancelled call"),
]


@pytest.mark.parametrize(("module", "name"), WRAPPERS)
@pytest.mark.parametrize(("behind", "expected"), BEHIND)
def test_a_wrapper_says_what_it_wraps(
    module: str, name: str, behind: BaseException, expected: tuple[Effect, ErrorType | None]
) -> None:
    assert seen(classify_exception(caused(made(module, name), behind))) == expected
    assert seen(classify_exception(caused(made(module, name), RuntimeError("again"), behind))) == expected


@pytest.mark.parametrize(("behind", "expected"), BEHIND)
def test_so_does_a_group(behind: BaseException, expected: tuple[Effect, ErrorType | None]) -> None:
    inner = BaseExceptionGroup("inner", [ValueError("mine"), behind])
    assert seen(classify_exception(BaseExceptionGroup("tasks", [KeyError("mine"), inner]))) == expected
    assert seen(classify_exception(caused(RuntimeError("agent"), inner))) == expected


def test_of_several_the_one_that_says_most_counts() -> None:
    limited = refused(429, {"Retry-After": "30"}, message="slow down")
    group = ExceptionGroup("tasks", [refused(400), httpx.ReadTimeout("slow"), limited])
    signal = classify_exception(group)
    assert (signal.effect, signal.wait_s) == (Effect.RATE_LIMIT, 30)


async def test_a_real_task_group() -> None:
    async def ask() -> None:
        raise openai.APIConnectionError(request=REQUEST) from httpx.ConnectError("no route")

    with pytest.raises(ExceptionGroup) as caught:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(ask())
    assert seen(classify_exception(caught.value)) == NETWORK


def test_what_was_merely_handled_before_is_no_cause() -> None:
    def work() -> None:
        try:
            httpx.get("http://127.0.0.1:1")
        except httpx.ConnectError:
            raise KeyError("mine")  # noqa: B904  which is the point

    with pytest.raises(KeyError) as caught:
        work()
    assert seen(classify_exception(caught.value)) == NEUTRAL


@pytest.mark.parametrize(
    "own",
    [
        httpx.PoolTimeout("full"),
        httpx.LocalProtocolError("Illegal header value b'Bearer '"),
        httpx.UnsupportedProtocol("no http://"),
        httpx.InvalidURL("no host"),
        httpx.CookieConflict("two"),
        httpx.StreamConsumed(),
        requests.exceptions.InvalidURL("no host"),
        requests.exceptions.MissingSchema("no http://"),
        requests.exceptions.InvalidHeader("no text"),
        urllib3.exceptions.EmptyPoolError(None, "full"),  # type: ignore[arg-type]
        urllib3.exceptions.ClosedPoolError(None, "closed"),  # type: ignore[arg-type]
        urllib3.exceptions.LocationParseError("no host"),
        aiohttp.InvalidURL("no host"),
        http.client.CannotSendRequest(),
        redis.ConnectionError("away"),
        CallNotPermitted(5.0, "timeout"),
        OSError(errno.EMFILE, "Too many open files"),
        aiohttp.ClientOSError(errno.EADDRNOTAVAIL, "Cannot assign requested address"),
    ],
    ids=lambda error: f"{type(error).__module__}.{type(error).__name__}",
)
@pytest.mark.parametrize(
    "wrapper",
    [
        None,
        pytest.param(lambda: openai.APITimeoutError(REQUEST), id="as a timeout"),
        pytest.param(lambda: openai.APIConnectionError(request=REQUEST), id="as no connection"),
        pytest.param(lambda: RuntimeError("agent"), id="as anything"),
    ],
)
def test_the_callers_own_mistakes_are_none_of_the_upstreams(
    own: Exception, wrapper: Callable[[], Exception] | None
) -> None:
    assert classify_exception(own if wrapper is None else caused(wrapper(), own)).effect is Effect.NEUTRAL


@pytest.mark.parametrize(
    "mistake",
    [
        RuntimeError("Cannot send a request, as the client has been closed."),
        UnicodeEncodeError("ascii", "Bearer é", 7, 8, "ordinal not in range(128)"),
        TypeError("an event hook took the wrong arguments"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_sdk_takes_mistakes_in_code_for_a_lost_connection(mistake: Exception) -> None:
    assert classify_exception(caused(openai.APIConnectionError(request=REQUEST), mistake)).effect is Effect.NEUTRAL
    lost = caused(RuntimeError("retried"), httpx.ReadError("cut"))
    assert classify_exception(caused(openai.APIConnectionError(request=REQUEST), lost)).effect is Effect.FAILURE


def test_what_a_database_lost_its_connection_for_is_its_own_affair() -> None:
    assert (
        classify_exception(caused(redis.ConnectionError("away"), ConnectionRefusedError())).effect is Effect.NEUTRAL
    )
    cluster = made("kubernetes.client.exceptions", "ApiException", status=503, headers={"a": "b"}, body="{}")
    assert classify_exception(cluster).effect is Effect.NEUTRAL


@pytest.mark.parametrize("status", [1045, 503, 28000, -1, 0, 10**30])
def test_a_status_of_a_database_is_no_http_status(status: int) -> None:
    assert classify_exception(made("mariadb", "OperationalError", status=status)).effect is Effect.NEUTRAL


@pytest.mark.parametrize("code", [1045, 600, 99, -503, True, 503.0, "5034", "five", "٥٠٣", None, object()])
def test_only_an_http_status_is_one(code: object) -> None:
    assert classify_exception(made("client", "Failed", status_code=code, headers={})).effect is Effect.NEUTRAL


@pytest.mark.parametrize("code", [503, "503", http.HTTPStatus.SERVICE_UNAVAILABLE])
def test_in_each_form_that_libraries_give_it(code: object) -> None:
    assert seen(classify_exception(made("client", "Failed", status_code=code))) == UNAVAILABLE
    assert seen(classify_exception(made("client", "Failed", status=code, headers={}))) == UNAVAILABLE


def test_a_status_that_the_worker_answers_with_is_not_the_upstreams() -> None:
    answer = starlette.exceptions.HTTPException(502, "the model did not answer")
    assert classify_exception(answer).effect is Effect.NEUTRAL
    limited = refused(429, {"Retry-After": "7"}, message="slow")
    assert classify_exception(caused(answer, limited)).wait_s == 7


def test_the_answer_nearest_to_the_wire_is_believed_and_completed() -> None:
    # As older wrappers have it: the body here, the headers there.
    outer = made("pydantic_ai.exceptions", "ModelHTTPError", status_code=429, body={"message": "x", "code": 429})
    response: Any = httpx.Response(429, headers={"Retry-After": "12"}, request=REQUEST)
    inner = openai.APIStatusError("no", response=response, body=None)
    assert classify_exception(caused(outer, inner)).wait_s == 12
    mapped = made("gateway", "BadGateway", status_code=500)
    assert classify_exception(caused(mapped, refused(400, message="bad"))).effect is Effect.NEUTRAL
    assert (
        seen(classify_exception(caused(made("gateway", "BadGateway", status_code=502), httpx.ReadTimeout("slow"))))
        == TIMEOUT
    )


class TestOfLibrariesWithoutAnSdk:
    @pytest.mark.parametrize(
        ("error", "expected"),
        [
            (http.client.IncompleteRead(b"{"), NETWORK),
            (http.client.BadStatusLine("x"), NETWORK),
            (http.client.RemoteDisconnected("x"), NETWORK),
            (aiohttp.ClientPayloadError("short"), NETWORK),
            (aiohttp.ServerDisconnectedError(), NETWORK),
            (aiohttp.ServerTimeoutError(), TIMEOUT),
            (aiohttp.SocketTimeoutError(), TIMEOUT),
            (urllib3.exceptions.ReadTimeoutError(None, "", "slow"), TIMEOUT),  # type: ignore[arg-type]
            (urllib3.exceptions.ConnectTimeoutError("slow"), TIMEOUT),
            (urllib3.exceptions.ProtocolError("cut"), NETWORK),
            (urllib3.exceptions.SSLError("no"), NETWORK),
            (urllib3.exceptions.MaxRetryError(None, "/", None), NETWORK),  # type: ignore[arg-type]
            (requests.exceptions.ReadTimeout("slow"), TIMEOUT),
            (requests.exceptions.ConnectTimeout("slow"), TIMEOUT),
            (requests.exceptions.SSLError("no"), NETWORK),
            (requests.exceptions.ChunkedEncodingError("cut"), NETWORK),
            (requests.exceptions.ContentDecodingError("no gzip"), (Effect.FAILURE, ErrorType.UNKNOWN_ERROR)),
            (httpx.DecodingError("no gzip"), (Effect.FAILURE, ErrorType.UNKNOWN_ERROR)),
            (ssl.SSLError("no"), NETWORK),
            (socket.gaierror("no name"), NETWORK),
            (asyncio.IncompleteReadError(b"", 5), NETWORK),
            (OSError(errno.ENETUNREACH, "Network is unreachable"), NETWORK),
            (OSError(errno.EHOSTUNREACH, "No route to host"), NETWORK),
            (made("tornado.httpclient", "HTTPClientError", code=503, response=None), UNAVAILABLE),
            (made("tornado.simple_httpclient", "HTTPTimeoutError", code=599, response=None), UNAVAILABLE),
            (subprocess.TimeoutExpired("x", 1), NEUTRAL),
            (FileNotFoundError("ca.pem"), NEUTRAL),
        ],
        ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
    )
    def test_no_answer_is_told_by_name(self, error: Exception, expected: tuple[Effect, ErrorType | None]) -> None:
        assert seen(classify_exception(error)) == expected

    @pytest.fixture
    def nowhere(self) -> Iterator[str]:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            yield f"http://127.0.0.1:{taken.getsockname()[1]}/api/v1/chat/completions"

    def test_urllib3_tries_again_in_vain(self, nowhere: str) -> None:
        with pytest.raises(urllib3.exceptions.MaxRetryError) as caught:
            urllib3.PoolManager(retries=1).request("POST", nowhere)
        assert seen(classify_exception(caught.value)) == NETWORK

    @pytest.mark.parametrize(
        ("mode", "expected"),
        [("outage", UNAVAILABLE), ("rate_limited", (Effect.FAILURE, ErrorType.RATE_LIMITED))],
    )
    def test_requests_tries_again_in_vain(
        self, simulated: Any, base_url: str, mode: str, expected: tuple[Effect, ErrorType | None]
    ) -> None:
        simulated.switch(mode)
        retry = urllib3.Retry(1, backoff_factor=0, status_forcelist=[429, 503], allowed_methods=None)
        with requests.Session() as session:
            session.mount("http://", HTTPAdapter(max_retries=retry))
            question: Any = {"model": "simulated/model", "messages": [{"role": "user", "content": "Hi"}]}
            session.headers["Authorization"] = "Bearer sk-or-any"
            with pytest.raises(requests.exceptions.RetryError) as caught:
                session.post(f"{base_url}/chat/completions", json=question)
        assert seen(classify_exception(caught.value)) == expected

    def test_urllib3_before_2_0_has_a_reason_and_no_cause(self) -> None:
        refused = urllib3.exceptions.NewConnectionError(None, "refused")  # type: ignore[arg-type]
        again = urllib3.exceptions.MaxRetryError(None, "/", urllib3.exceptions.ReadTimeoutError(None, "", "slow"))  # type: ignore[arg-type]
        assert seen(classify_exception(again)) == TIMEOUT
        assert seen(classify_exception(requests.exceptions.ConnectionError(again))) == TIMEOUT
        full = urllib3.exceptions.MaxRetryError(None, "/", urllib3.exceptions.EmptyPoolError(None, "full"))  # type: ignore[arg-type]
        assert seen(classify_exception(requests.exceptions.ConnectionError(full))) == NEUTRAL
        assert seen(classify_exception(urllib3.exceptions.MaxRetryError(None, "/", refused))) == NETWORK  # type: ignore[arg-type]

    def test_ray_has_a_cause_that_is_none_of_pythons(self) -> None:
        assert seen(classify_exception(made("ray.exceptions", "RayTaskError", cause=refused(503)))) == UNAVAILABLE

    def test_openai_before_1_0(self) -> None:
        down = made("openai.error", "ServiceUnavailableError", http_status=503, json_body=None, headers={})
        assert seen(classify_exception(down)) == UNAVAILABLE
        oversized = {"error": {"message": "no", "metadata": {"reason": "weight_exceeds_budget"}}}
        dear = made("openai.error", "APIError", http_status=402, http_body="{", json_body=oversized)
        assert seen(classify_exception(dear)) == NEUTRAL
        assert seen(classify_exception(made("openai.error", "Timeout"))) == TIMEOUT

    def test_a_redirect_without_end_is_no_network_error(self) -> None:
        reason = urllib3.exceptions.ResponseError("too many redirects")
        loop = caused(urllib3.exceptions.MaxRetryError(None, "/", reason), reason)  # type: ignore[arg-type]
        assert classify_exception(loop).error_type is not ErrorType.NETWORK_ERROR


class TestLitellm:
    """It wraps without ``from``, hides the body in its message, and makes up a status where there was no answer."""

    @staticmethod
    def raised(name: str, status_code: int, text: str, headers: dict[str, str] | None = None) -> Exception:
        error = made("litellm.exceptions", name, status_code=status_code, body=None, response=None)
        error.args = (f"litellm.{name}: {name}: OpenrouterException - {text}",)
        error.litellm_response_headers = httpx.Headers(headers or {})  # type: ignore[attr-defined]
        return error

    @pytest.mark.parametrize(
        ("error", "expected"),
        [
            (
                '{"error":{"code":402,"message":"no","metadata":{"reason":"weight_exceeds_budget"}}}',
                NEUTRAL,
            ),
            (
                '{"error":{"code":402,"message":"Insufficient credits"}}',
                (Effect.FAILURE, ErrorType.CREDITS_EXHAUSTED),
            ),
        ],
    )
    def test_its_message_holds_the_body(self, error: str, expected: tuple[Effect, ErrorType | None]) -> None:
        assert seen(classify_exception(self.raised("APIError", 402, error))) == expected

    def test_its_headers_tell_the_wait(self) -> None:
        limited = self.raised("RateLimitError", 429, '{"error":{"message":"slow"}}', {"Retry-After": "30"})
        assert classify_exception(limited).wait_s == 30

    def test_a_402_without_a_body_calls_no_account_empty(self) -> None:
        signal = classify_exception(self.raised("APIError", 402, "no"))
        assert (signal.effect, signal.doubts_account, signal.refuses_credit) == (Effect.FAILURE, True, False)

    @pytest.mark.parametrize(
        ("behind", "expected"),
        [(httpx.ConnectError("no route"), NETWORK), (httpx.UnsupportedProtocol("foo"), NEUTRAL)],
    )
    def test_what_it_makes_up_is_not_believed(
        self, behind: Exception, expected: tuple[Effect, ErrorType | None]
    ) -> None:
        own = made("litellm.llms.openrouter.common_utils", "OpenRouterException", status_code=500)
        outer = self.raised("APIConnectionError", 500, "no")
        outer.__context__, own.__context__ = own, behind
        assert seen(classify_exception(outer)) == expected


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError({"message": "Provider returned error", "code": 502}), UNAVAILABLE),
        (ValueError({"error": {"message": "Provider returned error", "code": 502}}), UNAVAILABLE),
        (ValueError({"message": "slow", "code": 429}), (Effect.FAILURE, ErrorType.RATE_LIMITED)),
        (ValueError({"message": "bad", "code": 400}), NEUTRAL),
        (ValueError({"message": "mine", "code": 7}), NEUTRAL),
        (ValueError({"message": "mine"}), NEUTRAL),
        (ValueError("code: 502"), NEUTRAL),
        (ValueError({"code": 502, "message": "x"}, 1), NEUTRAL),
        (KeyError({"code": 502, "message": "x"}), NEUTRAL),
    ],
    ids=str,
)
def test_langchains_form_of_an_error_in_a_200(error: Exception, expected: tuple[Effect, ErrorType | None]) -> None:
    assert seen(classify_exception(error)) == expected


class TestBounds:
    def test_a_circle_ends(self) -> None:
        first, second = RuntimeError("a"), RuntimeError("b")
        first.__cause__, second.__cause__ = second, first
        assert [len(branch) for branch in branches(first)] == [2]
        assert seen(classify_exception(first)) == NEUTRAL

    def test_a_long_chain_is_looked_at_so_far(self) -> None:
        chain = [RuntimeError(str(number)) for number in range(LEVELS - 1)]
        assert seen(classify_exception(caused(*chain, httpx.ConnectError("no route")))) == NETWORK
        assert seen(classify_exception(caused(*chain, RuntimeError(), httpx.ConnectError("no route")))) == NEUTRAL

    def test_of_many_only_so_many_are_looked_at(self) -> None:
        group = ExceptionGroup(
            "tasks", [ExceptionGroup("more", [ValueError() for _ in range(100)]) for _ in range(100)]
        )
        assert sum(1 for _ in branches(group)) < MOST

    @given(st.recursive(st.just("x"), lambda inner: st.lists(inner, min_size=1, max_size=4), max_leaves=60))
    def test_whatever_the_nesting(self, shape: Any) -> None:
        def build(part: Any) -> Exception:
            return (
                httpx.ReadTimeout("slow") if part == "x" else ExceptionGroup("tasks", [build(each) for each in part])
            )

        nested = build(shape)
        assert classify_exception(nested).effect in (Effect.FAILURE, Effect.NEUTRAL)
        assert all(len(branch) <= LEVELS for branch in branches(nested))


class TestRefusalIn:
    REFUSED = CallNotPermitted(5.0, "timeout")

    @pytest.mark.parametrize(
        "error",
        [
            REFUSED,
            caused(openai.APIConnectionError(request=REQUEST), CallNotPermitted(5.0, "timeout")),
            caused(made("tenacity", "RetryError"), RuntimeError(), CallNotPermitted(5.0, "timeout")),
            ExceptionGroup("tasks", [ValueError(), CallNotPermitted(5.0, "timeout")]),
            caused(RuntimeError(), ExceptionGroup("tasks", [CallNotPermitted(5.0, "timeout")])),
        ],
    )
    def test_it_is_found_behind_a_wrapper(self, error: BaseException) -> None:
        found = refusal_in(error)
        assert found is not None
        assert (found.retry_after_s, found.reason) == (5.0, "timeout")

    @pytest.mark.parametrize("error", [None, ValueError(), KeyboardInterrupt(), caused(RuntimeError(), ValueError())])
    def test_else_there_is_none(self, error: BaseException | None) -> None:
        assert refusal_in(error) is None

    def test_one_that_was_handled_is_none(self) -> None:
        error = KeyError("mine")
        error.__context__ = self.REFUSED
        assert refusal_in(error) is None


class Hostile(Exception):
    """Each of its attributes raises."""

    def __getattribute__(self, name: str) -> Any:
        if name in ("__class__", "__traceback__", "__dict__", "with_traceback"):
            return super().__getattribute__(name)
        raise RecursionError(name)

    def __str__(self) -> str:
        raise ValueError


class HostileStatus(Exception):
    status_code = 502

    @property
    def body(self) -> str:
        raise MemoryError

    @property
    def response(self) -> str:
        raise OSError

    headers = property(lambda _: 1 / 0)


class HostileHeaders:
    def items(self) -> Any:
        raise RuntimeError


class TestNothingRaises:
    def test_an_exception_that_hides_all(self) -> None:
        assert seen(classify_exception(Hostile())) == NEUTRAL
        assert refusal_in(Hostile()) is None

    def test_one_that_hides_all_but_its_status(self) -> None:
        assert seen(classify_exception(HostileStatus())) == UNAVAILABLE

    @pytest.mark.parametrize(
        "headers",
        [
            HostileHeaders(),
            5,
            "retry-after: 5",
            [1, 2],
            [("retry-after",)],
            {b"\xff": b"\xff", None: None, "retry-after": object()},
            {"retry-after": "9" * 5000},
        ],
    )
    def test_headers_that_are_none(self, headers: object) -> None:
        error = made("client", "Limited", status_code=429, headers=headers)
        assert seen(classify_exception(error)) == (Effect.FAILURE, ErrorType.RATE_LIMITED)

    @pytest.mark.parametrize(
        "headers",
        [
            {"Retry-After": "30"},
            {"RETRY-AFTER": 30},
            {b"retry-after": b"30"},
            [("Retry-After", "30")],
            [(b"Retry-After", b" 30 ")],
            {"retry-after": ["30", "5"]},
            [("Retry-After", "5"), ("retry-after", "30")],
            httpx.Headers({"Retry-After": "30"}),
        ],
    )
    def test_headers_in_each_form(self, headers: object) -> None:
        assert classify_exception(made("client", "Limited", status_code=429, headers=headers)).wait_s == 30
