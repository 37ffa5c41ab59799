"""The words for errors that come inside an answer that had begun well, and the statuses that they stand for.

Source: ``APIErrorType`` and the errors of the Responses API in OpenRouter's Python SDK; ``…_error`` are Anthropic's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

__all__ = ["known_status", "status_of"]

_UNKNOWN = 500
_CODE = re.compile(r"[45][0-9]{2}")
_STATUSES: Mapping[str, int] = {
    "authentication": 401,
    "authentication_error": 401,
    "payment_required": 402,
    "billing_error": 402,
    "permission_denied": 403,
    "permission_error": 403,
    "rate_limit_exceeded": 429,
    "rate_limit_error": 429,
    "server": 500,
    "server_error": 500,
    "api_error": 500,
    "unmapped": 500,
    "provider_unavailable": 503,
    "timeout": 504,
    "timeout_error": 504,
    "vector_store_timeout": 504,
    "provider_overloaded": 529,
    "overloaded_error": 529,
}
_OF_THE_REQUEST = frozenset(
    {
        "bio_policy",
        "content_policy_violation",
        "context_length_exceeded",
        "cyber_policy",
        "data_residency_mismatch",
        "empty_image_file",
        "failed_to_download_image",
        "image_content_policy_violation",
        "image_download_failed",
        "image_file_not_found",
        "image_file_too_large",
        "image_not_found",
        "image_parse_error",
        "image_too_large",
        "image_too_small",
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
        "not_found",
        "not_found_error",
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
    """The HTTP status that an error inside a 200 stands for; one that cannot be told is the upstream's own, 500."""
    return known_status(error) or _UNKNOWN


def known_status(error: Mapping[str, Any]) -> int | None:
    """The HTTP status that an error names, by number or by a word of ours; None if it names none."""
    code = error.get("code")
    if isinstance(code, int | float) and 400 <= code < 600:
        return int(code)
    metadata = error.get("metadata")
    canonical = metadata.get("error_type") if isinstance(metadata, Mapping) else None
    words = [word for word in (canonical, code, error.get("type")) if isinstance(word, str)]
    return next((status for word in words if (status := _status(word))), None)


def _status(word: str) -> int | None:
    if _CODE.fullmatch(word):
        return int(word)
    return 400 if word in _OF_THE_REQUEST else _STATUSES.get(word)
