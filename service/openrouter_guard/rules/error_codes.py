"""Error words inside an otherwise successful answer, and the statuses that they stand for.

Source: ``APIErrorType`` and the errors of the Responses API in OpenRouter's Python SDK; ``…_error`` are Anthropic's,
``resource_exhausted`` and the like Google's, ``badrequesterror`` is vLLM's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

__all__ = ["NUMBERS", "known_status", "status_of"]

NUMBERS = ("code", "status", "status_code", "statusCode")
"""Fields with an error's status: the API uses the first one, gateways the others."""

_UNKNOWN = 500
_LENGTH = 64
_CODE = re.compile(r"[45][0-9]{2}")
_STATUSES: Mapping[str, int] = {
    "authentication": 401,
    "unauthenticated": 401,
    "invalid_api_key": 401,
    "authentication_error": 401,
    "payment_required": 402,
    "insufficient_quota": 402,
    "billing_error": 402,
    "permission_denied": 403,
    "permission_error": 403,
    "rate_limit_exceeded": 429,
    "rate_limit_error": 429,
    "resource_exhausted": 429,
    "too_many_requests": 429,
    "server": 500,
    "server_error": 500,
    "api_error": 500,
    "unmapped": 500,
    "provider_unavailable": 503,
    "service_unavailable": 503,
    "unavailable": 503,
    "timeout": 504,
    "timeout_error": 504,
    "deadline_exceeded": 504,
    "vector_store_timeout": 504,
    "provider_overloaded": 529,
    "overloaded_error": 529,
}
_OF_THE_REQUEST = frozenset(
    {
        "bad_request",
        "badrequesterror",
        "bio_policy",
        "content_policy_violation",
        "context_length_exceeded",
        "cyber_policy",
        "data_residency_mismatch",
        "empty_image_file",
        "failed_precondition",
        "failed_to_download_image",
        "image_content_policy_violation",
        "image_download_failed",
        "image_file_not_found",
        "image_file_too_large",
        "image_not_found",
        "image_parse_error",
        "image_too_large",
        "image_too_small",
        "invalid_argument",
        "invalid_base64_image",
        "invalid_image",
        "invalid_image_format",
        "invalid_image_mode",
        "invalid_image_url",
        "invalid_prompt",
        "invalid_request",
        "invalid_request_error",
        "max_tokens_exceeded",
        "misalignment_policy_violation",
        "model_not_found",
        "not_found",
        "not_found_error",
        "notfounderror",
        "out_of_range",
        "payload_too_large",
        "precondition_failed",
        "refusal",
        "request_too_large",
        "string_too_long",
        "token_limit_exceeded",
        "unprocessable",
        "unsupported_image_format",
        "unsupported_image_media_type",
    }
)


def status_of(error: Mapping[str, Any]) -> int:
    """Return the HTTP status that an error inside a 200 stands for.

    An unknown one counts as the upstream's own, 500.
    """
    return known_status(error) or _UNKNOWN


def known_status(error: Mapping[str, Any]) -> int | None:
    """Return the HTTP status that an error names, by number or by a known word; None if it names none."""
    codes = [error.get(name) for name in NUMBERS]
    number = next((each for each in codes if isinstance(each, int | float) and 400 <= each < 600), None)
    if number is not None:
        return int(number)
    metadata = error.get("metadata")
    canonical = metadata.get("error_type") if isinstance(metadata, Mapping) else None
    words = [word for word in (canonical, codes[0], error.get("type"), *codes[1:]) if isinstance(word, str)]
    return next((status for word in words if (status := _status(word))), None)


def _status(word: str) -> int | None:
    if _CODE.fullmatch(word):
        return int(word)
    word = word[:_LENGTH].lower()
    return 400 if word in _OF_THE_REQUEST else _STATUSES.get(word)
