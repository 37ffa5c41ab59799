"""An error inside a 200 counts as the status that it stands for."""

from __future__ import annotations

from typing import Any, get_args

import openrouter.components as sdk
import pytest
from openai.types.responses import ResponseError
from openrouter.components.openresponseserrorfield import CodeEnum

from openrouter_guard.rules.error_codes import status_of


@pytest.mark.parametrize(
    ("error", "status"),
    [
        pytest.param({"code": 502}, 502, id="a status"),
        pytest.param({"code": "429"}, 429, id="a status as a text"),
        pytest.param({"code": "rate_limit_exceeded"}, 429, id="the Responses API"),
        pytest.param({"code": "invalid_prompt"}, 400, id="the caller's own"),
        pytest.param({"type": "overloaded_error"}, 529, id="Anthropic's"),
        pytest.param({"type": "invalid_request_error"}, 400, id="Anthropic's, the caller's own"),
        pytest.param({"code": None, "metadata": {"error_type": "payment_required"}}, 402, id="OpenRouter's own word"),
        pytest.param({"code": "server_error", "metadata": {"error_type": "timeout"}}, 504, id="which is the best"),
        pytest.param({"code": "x", "type": "not_found"}, 400, id="the next where one is unknown"),
        pytest.param({"code": "new_word"}, 500, id="an unknown word"),
        pytest.param({"status": 429, "message": "x"}, 429, id="a gateway's name for it"),
        pytest.param({"statusCode": 404}, 404, id="and another"),
        pytest.param({"code": None, "status": "RESOURCE_EXHAUSTED"}, 429, id="Google's words, in capitals"),
        pytest.param({"code": None, "status": "INVALID_ARGUMENT"}, 400, id="and for the caller's own"),
        pytest.param({"object": "error", "type": "BadRequestError"}, 400, id="vLLM's"),
        pytest.param({"code": 502, "status": 400}, 502, id="the code before all others"),
        pytest.param({"code": 7, "metadata": "x", "type": ["x"]}, 500, id="nothing that could be read"),
        pytest.param({}, 500, id="nothing"),
    ],
)
def test_the_status(error: dict[str, Any], status: int) -> None:
    assert status_of(error) == status


def words(kind: Any) -> set[str]:
    """All the literal texts in a type."""
    return {kind} if isinstance(kind, str) else {word for part in get_args(kind) for word in words(part)}


@pytest.mark.parametrize(
    "word", sorted(words(sdk.APIErrorType) | words(CodeEnum) | words(ResponseError.model_fields["code"].annotation))
)
def test_every_word_of_the_sdks_is_known(word: str) -> None:
    is_the_upstreams_own = word in ("server", "server_error", "unmapped")
    assert (status_of({"code": word}) == 500) is is_the_upstreams_own
