"""Successful answers of the simulated OpenRouter, with the documented fields of the real one.

Source: https://openrouter.ai/docs/api-reference; the models of the official SDK (``openrouter``) accept every body.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["CHAT", "CREDITS", "KEY", "MODELS", "PATHS", "PROVIDER", "Account", "body", "chunk", "error", "stream"]

KEY, CREDITS, MODELS, CHAT = "/key", "/credits", "/models", "/chat/completions"
PATHS = (KEY, CREDITS, MODELS, CHAT)
"""All simulated paths, below ``/api/v1``."""

PROVIDER = "Simulated"
DEFAULT_MODEL = "simulated/model"
FREE_REQUESTS_A_DAY = 1000
_WORDS = ("This ", "is ", "a ", "simulated ", "answer.")
_USD_PER_TOKEN = 1e-6
_CREATED_S = 1_767_225_600
_PARAMETERS = ("max_tokens", "temperature", "top_p", "stop", "seed", "tools", "response_format")
_CONTEXT_LENGTH = 128_000


@dataclass(frozen=True, slots=True)
class Account:
    """The billed account: the key with its own cap, and the account behind it. Amounts are US dollars."""

    key_limit_usd: float = 100.0
    key_usage_usd: float = 12.5
    credits_usd: float = 250.0
    credits_used_usd: float = 40.0
    free_requests_used: int = 3
    is_management_key: bool = False


def body(path: str, request: Mapping[str, Any], account: Account) -> dict[str, Any]:
    """Return the JSON body of a good answer.

    Args:
        path: One of ``PATHS``.
        request: The JSON body of the request; empty for a GET.
        account: The account of the request.
    """
    match path:
        case "/key":
            return {"data": _key(account)}
        case "/credits":
            return {"data": {"total_credits": account.credits_usd, "total_usage": account.credits_used_usd}}
        case "/models":
            models = [_model(DEFAULT_MODEL), _model(f"{DEFAULT_MODEL}:free")]
            return {"data": models, "total_count": len(models), "links": {"next": None}}
        case _:
            return _completion(request)


def error(code: int, message: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON body of an error, which may also come with a 200."""
    return {"error": {"code": code, "message": message, "metadata": dict(metadata)}}


def stream(request: Mapping[str, Any], end: Mapping[str, Any] | None = None) -> Iterator[str]:
    """Yield a chat completion as server-sent events.

    Args:
        request: The JSON body of the request.
        end: A last chunk in place of the second half of the answer.
    """
    yield ": OPENROUTER PROCESSING\n\n"
    if end is not None:
        yield from map(_event, (chunk(request, _WORDS[0], None), end))
    else:
        yield from (_event(chunk(request, word, None)) for word in _WORDS[:-1])
        yield ": OPENROUTER PROCESSING\n\n"
        yield _event(chunk(request, _WORDS[-1], "stop"))
        yield _event({**chunk(request, "", None), "choices": [], "usage": _usage(request)})
    yield "data: [DONE]\n\n"


def chunk(request: Mapping[str, Any], content: str, finish_reason: str | None) -> dict[str, Any]:
    """Return one chunk of a streamed answer."""
    delta = {"role": "assistant", "content": content}
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": None}
    return {**_head(request, "chat.completion.chunk"), "choices": [choice]}


def _event(data: Mapping[str, Any]) -> str:
    return f"data: {json.dumps(data)}\n\n"


def _head(request: Mapping[str, Any], kind: str) -> dict[str, Any]:
    return {
        "id": "gen-simulated",
        "object": kind,
        "created": int(time.time()),
        "model": request.get("model", DEFAULT_MODEL),
        "provider": PROVIDER,
        "system_fingerprint": "simulated",
    }


def _completion(request: Mapping[str, Any]) -> dict[str, Any]:
    message = {"role": "assistant", "content": "".join(_WORDS), "refusal": None, "reasoning": None}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
    return {**_head(request, "chat.completion"), "choices": [choice], "usage": _usage(request)}


def _usage(request: Mapping[str, Any]) -> dict[str, Any]:
    # A token is a word here, because nothing is billed.
    prompt, completion = len(str(request.get("messages", "")).split()), len(_WORDS)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "cost": (prompt + completion) * _USD_PER_TOKEN,
        "is_byok": False,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


def _key(account: Account) -> dict[str, Any]:
    budget = _budget(account)
    usage = account.key_usage_usd
    periods = ("", "_daily", "_weekly", "_monthly")
    return {
        "label": "sk-or-v1-sim...ted",
        "limit": account.key_limit_usd,
        "limit_remaining": account.key_limit_usd - usage,
        "limit_reset": None,
        **{f"usage{period}": usage for period in periods},
        **{f"byok_usage{period}": 0 for period in periods},
        "include_byok_in_limit": False,
        "is_free_tier": False,
        "is_management_key": account.is_management_key,
        "is_provisioning_key": account.is_management_key,
        "expires_at": None,
        "creator_user_id": "user_simulated",
        "organization_id": None,
        "workspace_id": None,
        "allowed_data_regions": ["global"],
        "free_model_daily_requests": {
            "limit": FREE_REQUESTS_A_DAY,
            "used": account.free_requests_used,
            "remaining": FREE_REQUESTS_A_DAY - account.free_requests_used,
        },
        "budgets": [budget],
        "effective_budget": budget,
        "rate_limit": {"requests": -1, "interval": "10s", "note": "This field is deprecated and safe to ignore."},
    }


def _budget(account: Account) -> dict[str, Any]:
    return {
        "scope": "key_limit",
        "budget_id": None,
        "guardrail_id": None,
        "include_byok": False,
        "limit_usd": account.key_limit_usd,
        "spend_usd": account.key_usage_usd,
        "remaining_usd": account.key_limit_usd - account.key_usage_usd,
        "reset_interval": None,
        "resets_at": None,
    }


def _model(name: str) -> dict[str, Any]:
    price = "0" if name.endswith(":free") else f"{_USD_PER_TOKEN:.6f}"
    return {
        "id": name,
        "canonical_slug": name,
        "name": name,
        "description": "Answers every question with the same sentence.",
        "created": _CREATED_S,
        "context_length": _CONTEXT_LENGTH,
        "architecture": {
            "modality": "text->text",
            "input_modalities": ["text"],
            "output_modalities": ["text"],
            "tokenizer": "Other",
            "instruct_type": None,
        },
        "pricing": {"prompt": price, "completion": price, "request": "0"},
        "top_provider": {
            "is_moderated": False,
            "context_length": _CONTEXT_LENGTH,
            "max_completion_tokens": 4096,
        },
        "per_request_limits": None,
        "supported_parameters": list(_PARAMETERS),
        "supported_voices": None,
        "default_parameters": None,
        "links": {"details": f"/api/v1/models/{name}/endpoints"},
    }
