"""Asks OpenRouter about the key and the account, and classifies the answer.

Nothing else in the service calls OpenRouter. A check is one ``GET /key``; with a management key also one ``GET
/credits``, and one request for each further address.

Every answer and the lack of one ends in a :class:`CheckResult`: no exception of the network leaves this file, and no
message holds the key.

Sources: https://openrouter.ai/docs/api-reference/limits, https://openrouter.ai/docs/api-reference/credits
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any, NamedTuple, TypeAlias

import httpx
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import from_json

from openrouter_guard.errors import ConfigurationError
from openrouter_guard.rules.codec import iso
from openrouter_guard.rules.error_codes import status_of
from openrouter_guard.rules.parsing import text_of
from openrouter_guard.rules.redaction import redact, remember
from openrouter_guard.rules.shared_state import Upstream
from openrouter_guard.rules.signals import (
    Effect,
    ErrorType,
    OpenRouterState,
    Signal,
    classify_error_type,
    classify_status,
)
from openrouter_guard.settings import DEFAULT_BASE_URL

__all__ = ["NO_KEY", "CheckResult", "OpenRouter", "Transport", "http_client", "url_of"]

Transport: TypeAlias = httpx.AsyncBaseTransport
"""Carries the calls instead of the network."""

MAX_BODY_BYTES = 65_536


class KeyData(BaseModel):
    """The key part of ``GET /key``. Amounts are US dollars, days and months UTC.

    Attributes:
        limit_remaining: Remaining part of the key's own cap; None means it has none.

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


class CreditsData(BaseModel):
    """The account part of ``GET /credits``: bought and used credit. Amounts are US dollars.

    Raises:
        pydantic.ValidationError: If the answer lacks a field or has another type.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, allow_inf_nan=False)

    total_credits: float
    total_usage: float


class CreditsAnswer(BaseModel):
    """The body of a good answer of ``GET /credits``."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    data: CreditsData


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of one health check; amounts in US dollars.

    Attributes:
        signal: Its effect on the breaker, and the message for people.
        balance: Remaining credit: of the key's cap, or of the account if that is known and less; None if neither is
            known.
        account_error: Why the account's credit is unknown despite a management key; else empty.
    """

    state: OpenRouterState
    signal: Signal
    balance: float | None = None
    usage_today: float | None = None
    usage_month: float | None = None
    account_error: str = ""

    def upstream(self, now: float) -> Upstream:
        """Return the finding for the shared state, made at ``now`` (Unix seconds, Redis' clock)."""
        limited = self.signal.effect is Effect.RATE_LIMIT
        return Upstream(
            state=self.state,
            message=self.signal.message,
            balance=self.balance,
            usage_today=self.usage_today,
            usage_month=self.usage_month,
            last_check_at=now,
            checked_at=now,
            amounts_at=now,
            error_details="" if self.state is OpenRouterState.ACTIVE else self._details(now),
            rate_limit_reset_at=now + (self.signal.wait_s or 0.0) if limited else 0.0,
        )

    def _details(self, now: float) -> str:
        fallback = self.state if self.state is OpenRouterState.API_KEY_MISSING else ErrorType.UNKNOWN_ERROR
        return json.dumps(
            {
                "timestamp": iso(now),
                "error_type": self.signal.error_type or fallback,
                "error_message": self.signal.message,
                "status_code": self.signal.status_code,
            }
        )


Read: TypeAlias = Callable[[bytes], CheckResult]
"""Parse a good body.

Raises:
    pydantic.ValidationError: If the body does not match the model.
"""

_GOOD = CheckResult(OpenRouterState.ACTIVE, Signal(Effect.SUCCESS))
NO_KEY = CheckResult(
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
        ConfigurationError: On creation, if an address, or a proxy of the environment cannot be used.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str,
        *,
        timeout_s: float,
        management_key: str = "",
        health_urls: Sequence[str] = (),
        transport: Transport | None = None,
    ) -> None:
        wrong = f"OPENROUTER_BASE_URL is not an address: write one such as {DEFAULT_BASE_URL}"
        # Without a valid address, each check would count as a failure of OpenRouter.
        self._key_url, self._credits_url = (url_of(f"{base_url}{path}", wrong) for path in ("/key", "/credits"))
        remember((api_key, management_key))
        wrong = "OPENROUTER_GUARD_HEALTH_URLS has an entry that is not an address: write https://host/path"
        self._health_urls = [url_of(url, wrong) for url in health_urls]
        self._api_key = api_key
        self._management_key = management_key
        self._timeout_s = timeout_s
        self._client = http_client(
            transport=transport,
            timeout=timeout_s,
            # One call a minute: the other side closes a connection kept that long.
            limits=httpx.Limits(max_keepalive_connections=0),
        )

    @property
    def has_key(self) -> bool:
        return bool(self._api_key)

    async def close(self) -> None:
        await self._client.aclose()

    async def check(self, now: float) -> CheckResult:
        """Ask once; ``now`` (Unix seconds) converts reset times into waits."""
        if not self._api_key:
            return NO_KEY
        if not _is_sendable(self._api_key):
            return _failed(ErrorType.API_KEY_INVALID, "OPENROUTER_API_KEY holds characters that no key has")
        # At the same time, so that all of it takes no longer than one may.
        key, account, others = await asyncio.gather(
            self._asked("OpenRouter", self._key_url, self._api_key, now, _of_key),
            self._account(now),
            asyncio.gather(*(self._asked(_place(url), url, "", now) for url in self._health_urls)),
        )
        found = key if account is None else _with_account(key, account)
        if found.state is not OpenRouterState.ACTIVE:
            return found
        return reduce(_but_for, zip(map(_place, self._health_urls), others, strict=True), found)

    async def _account(self, now: float) -> CheckResult | None:
        """Return the remaining credit of the account, None without a management key."""
        if not self._management_key:
            return None
        if not _is_sendable(self._management_key):
            return _failed(ErrorType.API_KEY_INVALID, "OPENROUTER_MANAGEMENT_KEY holds characters that no key has")
        return await self._asked("OpenRouter", self._credits_url, self._management_key, now, _of_credits)

    async def _asked(self, who: str, url: httpx.URL, key: str, now: float, read: Read | None = None) -> CheckResult:
        """Return the answer of *who*, parsed by *read*; without *read*, any answer is accepted. Never raises."""
        began_at = time.monotonic()
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await self._get(url, key)
        except (TimeoutError, httpx.TimeoutException):
            return _failed(ErrorType.TIMEOUT, f"{who} did not answer within {self._timeout_s:g} s")
        except Exception as error:  # noqa: BLE001  for odd names and ports, the network raises odd errors
            reason = self._cleaned(str(error)) or type(error).__name__
            return _failed(ErrorType.NETWORK_ERROR, f"{who} cannot be reached: {reason}")
        return self._finding(who, answer, now + time.monotonic() - began_at, read)

    async def _get(self, url: httpx.URL, key: str) -> _Answer:
        headers = {"Accept-Encoding": "identity"} | ({"Authorization": f"Bearer {key}"} if key else {})
        async with self._client.stream("GET", url, headers=headers) as answer:
            return _Answer(answer.status_code, dict(answer.headers), await _body(answer))

    def _finding(self, who: str, answer: _Answer, now: float, read: Read | None) -> CheckResult:
        error = self._error(answer.body)
        status_code = status_of(error) if answer.status_code == 200 and error else answer.status_code
        if status_code >= 400:
            return _of_signal(classify_status(status_code, error=error, headers=answer.headers, now=now))
        if 300 <= status_code < 400:
            return _strange(who, answer, "it redirects elsewhere; check the address")
        if read is None:
            return _GOOD
        if _is_compressed(answer.headers):
            return _strange(who, answer, "it is compressed, which was not asked for")
        if len(answer.body) > MAX_BODY_BYTES:
            return _strange(who, answer, f"it is larger than {MAX_BODY_BYTES} bytes")
        try:
            return read(answer.body)
        except ValidationError as invalid:
            return _strange(who, answer, _first(invalid))

    def _error(self, body: bytes) -> dict[str, Any]:
        """The object under ``error``, with a message that can be shown."""
        try:
            found = from_json(body)
        except ValueError:
            return {}
        error = found.get("error") if isinstance(found, dict) else None
        if not isinstance(error, dict):
            error = {"message": error} if error else {}
        return {**error, "message": self._cleaned(text_of(error.get("message")))} if error else {}

    def _cleaned(self, text: str) -> str:
        """Return the text in one line, without the key even if the other side repeats it."""
        return " ".join(redact(text).split())


def http_client(**options: Any) -> httpx.AsyncClient:
    """Create a client that follows no redirects, and does not log whole addresses, which may hold secrets.

    Raises:
        ConfigurationError: If a proxy or a file of the environment cannot be used. The message contains neither.
    """
    client_log = logging.getLogger("httpx")
    client_log.setLevel(max(client_log.level, logging.WARNING))
    try:
        return httpx.AsyncClient(follow_redirects=False, **options)
    except (ImportError, ValueError, OSError, httpx.InvalidURL) as error:
        raise ConfigurationError(
            "the environment's HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, SSL_CERT_FILE or SSL_CERT_DIR cannot be used "
            f"({type(error).__name__}): write http://host:port for a proxy, SOCKS is not supported"
        ) from None


def url_of(text: str, wrong: str) -> httpx.URL:
    """Parse an address; *wrong* is the text of the error, since the address may hold a secret.

    Raises:
        ConfigurationError: If nothing can be reached under it.
    """
    with suppress(httpx.InvalidURL, ValueError):
        url = httpx.URL(text)
        if url.host.encode("idna") and (url.port is None or 0 < url.port < 65_536):
            return url
    raise ConfigurationError(wrong)


async def _body(answer: httpx.Response) -> bytes:
    """Return the body, cut one byte beyond the limit."""
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
    # Characters that a header cannot carry cause an exception that quotes the header.
    return api_key.isascii() and api_key.isprintable() and " " not in api_key


def _of_key(body: bytes) -> CheckResult:
    data = KeyAnswer.model_validate_json(body).data
    left = data.limit_remaining
    if left is not None and left <= 0:
        state = OpenRouterState.CREDITS_EXHAUSTED
        signal = Signal(Effect.FAILURE, ErrorType(state), f"The key's limit is used up: {left:g} USD left", 200)
    else:
        state = OpenRouterState.ACTIVE
        signal = Signal(Effect.SUCCESS, message="Service active", status_code=200)
    return CheckResult(state, signal, left, data.usage_daily, data.usage_monthly)


def _of_credits(body: bytes) -> CheckResult:
    data = CreditsAnswer.model_validate_json(body).data
    return CheckResult(OpenRouterState.ACTIVE, Signal(Effect.SUCCESS), balance=data.total_credits - data.total_usage)


def _with_account(key: CheckResult, account: CheckResult) -> CheckResult:
    """Combine key and account: a key may spend no more than the account has left."""
    left = account.balance
    if left is None:
        return replace(key, account_error=account.signal.message)
    balance = left if key.balance is None else min(key.balance, left)
    if left > 0 or key.state is not OpenRouterState.ACTIVE:
        return replace(key, balance=balance)
    state = OpenRouterState.CREDITS_EXHAUSTED
    signal = Signal(Effect.FAILURE, ErrorType(state), f"The account is out of credit: {left:g} USD left", 200)
    return replace(key, state=state, signal=signal, balance=balance)


def _but_for(found: CheckResult, other: tuple[str, CheckResult]) -> CheckResult:
    """Return the finding, or the failure of a further address in place of its success."""
    place, seen = other
    if seen.state is OpenRouterState.ACTIVE:
        return found
    message = f"{place} is not healthy: {seen.signal.message.removeprefix(place).strip()}"
    failed = _failed(ErrorType.SERVICE_UNAVAILABLE, message, seen.signal.status_code)
    return replace(found, state=failed.state, signal=failed.signal)


def _place(url: httpx.URL) -> str:
    """Return the address without secrets."""
    return f"{url.scheme}://{url.netloc.decode().rpartition('@')[2]}{url.path}"


def _of_signal(signal: Signal) -> CheckResult:
    return CheckResult(signal.error_type.state if signal.error_type else OpenRouterState.ERROR, signal)


def _failed(error_type: ErrorType, message: str, status_code: int | None = None) -> CheckResult:
    return _of_signal(classify_error_type(error_type, message, status_code))


def _strange(who: str, answer: _Answer, why: str) -> CheckResult:
    message = f"The answer of {who} cannot be used (HTTP {answer.status_code}): {why}"
    return _failed(ErrorType.UNKNOWN_ERROR, message, answer.status_code)


def _first(invalid: ValidationError) -> str:
    error = invalid.errors(include_url=False, include_input=False, include_context=False)[0]
    return ": ".join(part for part in (".".join(map(str, error["loc"])), error["msg"]) if part)
