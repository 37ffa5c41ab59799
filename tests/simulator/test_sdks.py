"""The common SDKs cannot tell the simulated OpenRouter from the real one."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import openai
import openrouter
import pytest
from openai.types.chat import ChatCompletionUserMessageParam
from openrouter import components, errors
from openrouter.utils import BackoffStrategy, RetryConfig

from openrouter_guard.rules.signals import Effect, ErrorType
from openrouter_guard.testing import SimulatedOpenRouter
from openrouter_guard.worker.classification.classify import classify_exception

pytestmark = pytest.mark.slow

ANSWER = "This is a simulated answer."
MODEL = "simulated/model"
NO_RETRIES = RetryConfig("none", BackoffStrategy(1, 1, 1, 1), retry_connection_errors=False)
QUESTION: ChatCompletionUserMessageParam = {"role": "user", "content": "Say something."}


@pytest.fixture(scope="module")
def openrouter_client(base_url: str) -> Iterator[openrouter.OpenRouter]:
    key = "sk-or-management"
    with openrouter.OpenRouter(key, server_url=base_url, retry_config=NO_RETRIES, timeout_ms=5000) as client:
        yield client


@pytest.fixture(scope="module")
def openai_client(base_url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=base_url, api_key="sk-or-any", max_retries=0, timeout=5) as client:
        yield client


# The SDK's own models warn about fields that OpenRouter still sends.
@pytest.mark.filterwarnings("ignore:.*DEPRECATED:DeprecationWarning")
class TestOfOpenRouter:
    @pytest.fixture
    def question(self) -> list[components.ChatMessages]:
        return [components.ChatUserMessage(role="user", content="Say something.")]

    def test_reads_the_key(self, simulated: SimulatedOpenRouter, openrouter_client: openrouter.OpenRouter) -> None:
        data = openrouter_client.api_keys.get_current_key_metadata().data
        assert (data.limit, data.limit_remaining, data.usage_daily) == (100, 87.5, 12.5)
        assert data.free_model_daily_requests.remaining == 997
        assert data.effective_budget
        assert data.effective_budget.remaining_usd == 87.5

    def test_reads_a_key_that_has_nothing_left(
        self, simulated: SimulatedOpenRouter, openrouter_client: openrouter.OpenRouter
    ) -> None:
        simulated.switch("credits_empty")
        assert openrouter_client.api_keys.get_current_key_metadata().data.limit_remaining == 0
        account = openrouter_client.credits.get_credits().data
        assert account.total_credits == account.total_usage

    def test_reads_the_credits(
        self, simulated: SimulatedOpenRouter, openrouter_client: openrouter.OpenRouter
    ) -> None:
        account = openrouter_client.credits.get_credits().data
        assert (account.total_credits, account.total_usage) == (250, 40)

    def test_lists_models(self, simulated: SimulatedOpenRouter, openrouter_client: openrouter.OpenRouter) -> None:
        models = openrouter_client.models.list()
        assert models
        assert [model.id for model in models.result.data] == [MODEL, f"{MODEL}:free"]

    def test_chats(
        self,
        simulated: SimulatedOpenRouter,
        openrouter_client: openrouter.OpenRouter,
        question: list[components.ChatMessages],
    ) -> None:
        result = openrouter_client.chat.send(messages=question, model=MODEL)
        assert isinstance(result, components.ChatResult)
        assert result.choices[0].message.content == ANSWER
        assert result.usage
        assert result.usage.total_tokens > 5

    def test_chats_in_a_stream(
        self,
        simulated: SimulatedOpenRouter,
        openrouter_client: openrouter.OpenRouter,
        question: list[components.ChatMessages],
    ) -> None:
        with openrouter_client.chat.send(messages=question, model=MODEL, stream=True) as stream:
            chunks = list(stream)
        assert "".join(str(chunk.choices[0].delta.content) for chunk in chunks if chunk.choices) == ANSWER
        assert chunks[-1].usage

    def test_sees_the_error_in_a_stream(
        self,
        simulated: SimulatedOpenRouter,
        openrouter_client: openrouter.OpenRouter,
        question: list[components.ChatMessages],
    ) -> None:
        simulated.switch("error_in_stream")
        with openrouter_client.chat.send(messages=question, model=MODEL, stream=True) as stream:
            last = list(stream)[-1]
        assert last.error
        assert (last.error.code, last.choices[0].finish_reason) == (502, "error")

    @pytest.mark.parametrize(
        ("mode", "error"),
        [
            ("bad_request", errors.BadRequestResponseError),
            ("user_not_found", errors.UnauthorizedResponseError),
            ("credits_exhausted", errors.PaymentRequiredResponseError),
            ("moderation", errors.ForbiddenResponseError),
            ("not_found", errors.NotFoundResponseError),
            ("request_timeout", errors.RequestTimeoutResponseError),
            ("payload_too_large", errors.PayloadTooLargeResponseError),
            ("unprocessable", errors.UnprocessableEntityResponseError),
            ("rate_limited", errors.TooManyRequestsResponseError),
            ("server_error", errors.InternalServerResponseError),
            ("bad_gateway", errors.BadGatewayResponseError),
            ("outage", errors.ServiceUnavailableResponseError),
            ("edge_timeout", errors.EdgeNetworkTimeoutResponseError),
            ("overloaded", errors.ProviderOverloadedResponseError),
            ("gateway_timeout", errors.OpenRouterDefaultError),
            ("redirect", errors.OpenRouterDefaultError),
            ("bad_json", errors.ResponseValidationError),
            ("wrong_types", errors.ResponseValidationError),
            ("error_in_body", errors.ResponseValidationError),
            ("dropped", httpx.RemoteProtocolError),
        ],
    )
    def test_raises_its_own_error(
        self,
        simulated: SimulatedOpenRouter,
        openrouter_client: openrouter.OpenRouter,
        question: list[components.ChatMessages],
        mode: str,
        error: type[Exception],
    ) -> None:
        simulated.switch(mode)
        with pytest.raises(error) as caught:
            openrouter_client.chat.send(messages=question, model=MODEL)
        assert type(caught.value) is error

    @pytest.mark.parametrize(
        ("mode", "seen"),
        [
            ("user_not_found", (Effect.FAILURE, ErrorType.API_KEY_INVALID)),
            ("credits_exhausted", (Effect.FAILURE, ErrorType.CREDITS_EXHAUSTED)),
            ("in_flight_budget", (Effect.NEUTRAL, None)),
            ("moderation", (Effect.NEUTRAL, None)),
            ("key_limit_exceeded", (Effect.FAILURE, ErrorType.CREDITS_EXHAUSTED)),
            ("rate_limited", (Effect.RATE_LIMIT, ErrorType.RATE_LIMITED)),
            ("outage", (Effect.FAILURE, ErrorType.SERVICE_UNAVAILABLE)),
            ("error_in_body", (Effect.FAILURE, ErrorType.SERVICE_UNAVAILABLE)),
            ("dropped", (Effect.FAILURE, ErrorType.NETWORK_ERROR)),
        ],
    )
    def test_raises_what_the_guard_understands(
        self,
        simulated: SimulatedOpenRouter,
        openrouter_client: openrouter.OpenRouter,
        question: list[components.ChatMessages],
        mode: str,
        seen: tuple[Effect, ErrorType | None],
    ) -> None:
        simulated.switch(mode)
        with pytest.raises(Exception) as caught:  # noqa: PT011  which one is the other test's
            openrouter_client.chat.send(messages=question, model=MODEL)
        signal = classify_exception(caught.value)
        assert (signal.effect, signal.error_type) == seen


class TestOfOpenAI:
    def test_lists_models(self, simulated: SimulatedOpenRouter, openai_client: openai.OpenAI) -> None:
        assert [model.id for model in openai_client.models.list()] == [MODEL, f"{MODEL}:free"]

    def test_chats(self, simulated: SimulatedOpenRouter, openai_client: openai.OpenAI) -> None:
        result = openai_client.chat.completions.create(model=MODEL, messages=[QUESTION])
        assert result.choices[0].message.content == ANSWER

    def test_chats_in_a_stream(self, simulated: SimulatedOpenRouter, openai_client: openai.OpenAI) -> None:
        with openai_client.chat.completions.create(model=MODEL, messages=[QUESTION], stream=True) as stream:
            pieces = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
        assert "".join(pieces) == ANSWER

    def test_raises_the_error_in_a_stream(self, simulated: SimulatedOpenRouter, openai_client: openai.OpenAI) -> None:
        simulated.switch("error_in_stream")
        with (
            openai_client.chat.completions.create(model=MODEL, messages=[QUESTION], stream=True) as stream,
            pytest.raises(openai.APIError, match="Provider disconnected"),
        ):
            list(stream)

    @pytest.mark.parametrize(
        ("mode", "error", "seen"),
        [
            ("bad_request", openai.BadRequestError, (Effect.NEUTRAL, None)),
            ("user_not_found", openai.AuthenticationError, (Effect.FAILURE, ErrorType.API_KEY_INVALID)),
            ("credits_exhausted", openai.APIStatusError, (Effect.FAILURE, ErrorType.CREDITS_EXHAUSTED)),
            ("in_flight_budget", openai.APIStatusError, (Effect.NEUTRAL, None)),
            ("oversized_request", openai.APIStatusError, (Effect.NEUTRAL, None)),
            ("moderation", openai.PermissionDeniedError, (Effect.NEUTRAL, None)),
            ("key_limit_exceeded", openai.PermissionDeniedError, (Effect.FAILURE, ErrorType.CREDITS_EXHAUSTED)),
            ("not_found", openai.NotFoundError, (Effect.NEUTRAL, None)),
            ("unprocessable", openai.UnprocessableEntityError, (Effect.NEUTRAL, None)),
            ("rate_limited", openai.RateLimitError, (Effect.RATE_LIMIT, ErrorType.RATE_LIMITED)),
            ("provider_rate_limited", openai.RateLimitError, (Effect.NEUTRAL, ErrorType.RATE_LIMITED)),
            ("outage", openai.InternalServerError, (Effect.FAILURE, ErrorType.SERVICE_UNAVAILABLE)),
            ("overloaded", openai.InternalServerError, (Effect.FAILURE, ErrorType.SERVICE_UNAVAILABLE)),
            ("dropped", openai.APIConnectionError, (Effect.FAILURE, ErrorType.NETWORK_ERROR)),
        ],
    )
    def test_raises_its_own_error_and_the_guard_knows_what_it_means(
        self,
        simulated: SimulatedOpenRouter,
        openai_client: openai.OpenAI,
        mode: str,
        error: type[Exception],
        seen: tuple[Effect, ErrorType | None],
    ) -> None:
        simulated.switch(mode)
        with pytest.raises(error) as caught:
            openai_client.chat.completions.create(model=MODEL, messages=[QUESTION])
        signal = classify_exception(caught.value)
        assert (signal.effect, signal.error_type) == seen

    def test_gives_up_waiting(self, simulated: SimulatedOpenRouter, openai_client: openai.OpenAI) -> None:
        simulated.switch("timeout")
        with pytest.raises(openai.APITimeoutError) as caught:
            openai_client.chat.completions.create(model=MODEL, messages=[QUESTION], timeout=0.1)
        assert classify_exception(caught.value).error_type is ErrorType.TIMEOUT
