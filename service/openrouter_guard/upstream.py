"""Asks OpenRouter about the key, and says in our words what came back. Nothing else of the service calls it.

Every answer and the lack of one ends in a :class:`Finding`: no exception of the network leaves this file, and no
message holds the key.

Source: https://openrouter.ai/docs/api-reference/limits
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import httpx
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import from_json

from openrouter_guard.errors import ConfigurationError
from openrouter_guard.rules.hiding import HIDDEN, without_keys
from openrouter_guard.rules.record import Upstream
from openrouter_guard.rules.signals import (
    Effect,
    ErrorType,
    OpenRouterState,
    Signal,
    of_error_type,
    of_status,
)
from openrouter_guard.rules.wire import iso
from openrouter_guard.settings import DEFAULT_BASE_URL

__all__ = ["NO_KEY", "Finding", "OpenRouter", "Transport"]

Transport: TypeAlias = httpx.AsyncBaseTransport
"""What may carry the calls instead of the network."""

MAX_BODY_BYTES = 65_536


class KeyData(BaseModel):
    """What ``GET /key`` says of the key. Amounts are US dollars, days and months UTC.

    Attributes:
        limit_remaining: What is left of the key's own cap; None means it has none.

    Raises:
        pydantic.ValidationError: If the answer lacks a field or has another type.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, allow_inf_nan=False)

    limit_remaining: float | None
    usage_daily: float
    usage_monthly: float


class KeyAnswer(BaseModel):
    """The body of a good answer of ``GET /key``."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    data: KeyData


@dataclass(frozen=True, slots=True)
class Finding:
    """What one health check came to; amounts in US dollars.

    Attributes:
        signal: What it does to the breaker, and the message for people.
    """

    state: OpenRouterState
    signal: Signal
    balance: float | None = None
    usage_today: float | None = None
    usage_month: float | None = None

    def upstream(self, now_s: float) -> Upstream:
        """The finding as the fleet shares it, made at ``now_s`` (Unix seconds, Redis' clock)."""
        limited = self.signal.effect is Effect.RATE_LIMIT
        return Upstream(
            state=self.state,
            message=self.signal.message,
            balance=self.balance,
            usage_today=self.usage_today,
            usage_month=self.usage_month,
            last_check_s=now_s,
            error_details="" if self.state is OpenRouterState.ACTIVE else self._details(now_s),
            rate_limit_reset_s=now_s + (self.signal.wait_s or 0.0) if limited else 0.0,
        )

    def _details(self, now_s: float) -> str:
        fallback = self.state if self.state is OpenRouterState.API_KEY_MISSING else ErrorType.UNKNOWN_ERROR
        return json.dumps(
            {
                "timestamp": iso(now_s),
                "error_type": self.signal.error_type or fallback,
                "error_message": self.signal.message,
                "status_code": self.signal.status_code,
            }
        )


NO_KEY = Finding(
    OpenRouterState.API_KEY_MISSING,
    Signal(Effect.NEUTRAL, message="No API key: set OPENROUTER_API_KEY for the health service"),
)


class _Answer(NamedTuple):
    status_code: int
    headers: dict[str, str]
    body: bytes


class OpenRouter:
    """OpenRouter's API, as far as a health check needs it.

    Raises:
        ConfigurationError: On creation, if the base address cannot be used.
    """

    def __init__(self, base_url: str, api_key: str, *, timeout_s: float, transport: Transport | None = None) -> None:
        try:
            self._url = httpx.URL(f"{base_url}/key")
        except httpx.InvalidURL:
            # Its message may quote a password.
            raise ConfigurationError(
                f"OPENROUTER_BASE_URL is not an address: write one such as {DEFAULT_BASE_URL}"
            ) from None
        self._api_key = api_key
        self._timeout_s = timeout_s
        self._client = httpx.AsyncClient(
            transport=transport,
            timeout=timeout_s,
            follow_redirects=False,
            # One call a minute: a connection kept that long is one that the other side has closed.
            limits=httpx.Limits(max_keepalive_connections=0),
        )

    async def close(self) -> None:
        await self._client.aclose()

    async def check(self, now_s: float) -> Finding:
        """Ask once; ``now_s`` (Unix seconds) turns reset times into waits."""
        if not self._api_key:
            return NO_KEY
        if not _is_sendable(self._api_key):
            return _failed(ErrorType.API_KEY_INVALID, "OPENROUTER_API_KEY holds characters that no key has")
        began_s = time.monotonic()
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await self._get()
        except (TimeoutError, httpx.TimeoutException):
            return _failed(ErrorType.TIMEOUT, f"OpenRouter did not answer within {self._timeout_s:g} s")
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            reason = self._cleaned(str(error)) or type(error).__name__
            return _failed(ErrorType.NETWORK_ERROR, f"OpenRouter cannot be reached: {reason}")
        return self._finding(answer, now_s + time.monotonic() - began_s)

    async def _get(self) -> _Answer:
        headers = {"Authorization": f"Bearer {self._api_key}", "Accept-Encoding": "identity"}
        async with self._client.stream("GET", self._url, headers=headers) as answer:
            return _Answer(answer.status_code, dict(answer.headers), await _body(answer))

    def _finding(self, answer: _Answer, now_s: float) -> Finding:
        error = self._error(answer.body)
        status_code = _code(error) if answer.status_code == 200 and error else answer.status_code
        if status_code >= 400:
            return _of_signal(of_status(status_code, error=error, headers=answer.headers, now_s=now_s))
        if 300 <= status_code < 400:
            return _strange(answer, "it redirects elsewhere; check OPENROUTER_BASE_URL")
        if _is_compressed(answer.headers):
            return _strange(answer, "it is compressed, which was not asked for")
        if len(answer.body) > MAX_BODY_BYTES:
            return _strange(answer, f"it is larger than {MAX_BODY_BYTES} bytes")
        try:
            return _of_data(KeyAnswer.model_validate_json(answer.body).data)
        except ValidationError as invalid:
            return _strange(answer, _first(invalid))

    def _error(self, body: bytes) -> dict[str, Any]:
        """The object under ``error``, with a message that can be shown."""
        try:
            found = from_json(body)
        except ValueError:
            return {}
        error = found.get("error") if isinstance(found, dict) else None
        if isinstance(error, str):
            error = {"message": error}
        if not isinstance(error, dict):
            return {}
        return {**error, "message": self._cleaned(str(error.get("message") or ""))}

    def _cleaned(self, text: str) -> str:
        """The text in one line, without the key even where the other side repeats it."""
        hidden = without_keys(text.replace(self._api_key, HIDDEN))
        return " ".join(hidden.split())


async def _body(answer: httpx.Response) -> bytes:
    """The body, cut off after a byte more than is allowed."""
    body = b""
    if _is_compressed(answer.headers):
        return body  # unpacked, a small body can be a huge one
    async for part in answer.aiter_bytes():
        body += part
        if len(body) > MAX_BODY_BYTES:
            break
    return body[: MAX_BODY_BYTES + 1]


def _is_compressed(headers: Mapping[str, str]) -> bool:
    return headers.get("content-encoding", "identity") != "identity"


def _is_sendable(api_key: str) -> bool:
    # What a header cannot carry ends in an exception that quotes the header.
    return api_key.isascii() and api_key.isprintable() and " " not in api_key


def _code(error: dict[str, Any]) -> int:
    """The status in an error that came with a 200."""
    code = error.get("code")
    return code if isinstance(code, int) and 400 <= code < 600 else 500


def _of_data(data: KeyData) -> Finding:
    left = data.limit_remaining
    if left is not None and left <= 0:
        state = OpenRouterState.CREDITS_EXHAUSTED
        signal = Signal(Effect.FAILURE, ErrorType(state), f"The key's limit is used up: {left:g} USD left", 200)
    else:
        state = OpenRouterState.ACTIVE
        signal = Signal(Effect.SUCCESS, message="Service active", status_code=200)
    return Finding(state, signal, left, data.usage_daily, data.usage_monthly)


def _of_signal(signal: Signal) -> Finding:
    return Finding(signal.error_type.state if signal.error_type else OpenRouterState.ERROR, signal)


def _failed(error_type: ErrorType, message: str, status_code: int | None = None) -> Finding:
    return _of_signal(of_error_type(error_type, message, status_code))


def _strange(answer: _Answer, why: str) -> Finding:
    message = f"OpenRouter's answer cannot be used (HTTP {answer.status_code}): {why}"
    return _failed(ErrorType.UNKNOWN_ERROR, message, answer.status_code)


def _first(invalid: ValidationError) -> str:
    error = invalid.errors(include_url=False, include_input=False, include_context=False)[0]
    return ": ".join(part for part in (".".join(map(str, error["loc"])), error["msg"]) if part)
