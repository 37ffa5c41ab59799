"""Checks the key of a scope by one ``GET /key``; with a management key also the account's credit."""

from __future__ import annotations

import time
from importlib.util import find_spec
from typing import TYPE_CHECKING

from openrouter_guard.cli.fleet.config import fingerprint
from openrouter_guard.errors import ConfigurationError
from openrouter_guard.rules.signals import OpenRouterState
from openrouter_guard.settings import Settings

from .checks import Check, failed, ok, skipped, warning

if TYPE_CHECKING:
    from openrouter_guard.upstream import CheckResult

__all__ = ["checked_key"]

AREA = "openrouter"


async def checked_key(settings: Settings) -> list[Check]:
    """Return the checks of the scope's key; no secret is in them."""
    name = f"key of {settings.scope}"
    if not settings.api_key:
        return [skipped(AREA, name, "no API key is set here; workers do not need one for this product")]
    if find_spec("httpx") is None or find_spec("pydantic") is None:
        return [skipped(AREA, name, "not asked", "install the extra [service]")]
    from openrouter_guard.upstream import OpenRouter

    try:
        upstream = OpenRouter(
            settings.base_url,
            settings.api_key,
            timeout_s=settings.thresholds.check_timeout_s,
            management_key=settings.management_key,
        )
    except ConfigurationError as error:
        return [failed(AREA, name, str(error), "correct the setting")]
    try:
        result = await upstream.check(time.time())
    finally:
        await upstream.close()
    return [_key(name, settings, result.state, result.signal.message), *_credit(settings, result)]


def _key(name: str, settings: Settings, state: OpenRouterState, message: str) -> Check:
    found = f"{fingerprint(settings.api_key)}: {state.value}, {message}"
    match state:
        case OpenRouterState.ACTIVE:
            return ok(AREA, name, found)
        case OpenRouterState.API_KEY_INVALID:
            return failed(
                AREA, name, found, "create a key at https://openrouter.ai/settings/keys, and replace this one"
            )
        case OpenRouterState.CREDITS_EXHAUSTED:
            return failed(AREA, name, found, "buy credit, or raise the limit of the key")
        case _:
            return warning(
                AREA, name, found, "OpenRouter, or the way there, is not well: see https://status.openrouter.ai"
            )


def _credit(settings: Settings, result: CheckResult) -> list[Check]:
    if result.state is not OpenRouterState.ACTIVE:
        return []
    name = f"credit of {settings.scope}"
    if result.account_error:
        return [warning(AREA, name, result.account_error, "check OPENROUTER_MANAGEMENT_KEY")]
    if result.balance is None:
        return [skipped(AREA, name, "the key has no limit, and there is no management key to ask for the account's")]
    return [ok(AREA, name, f"${result.balance:.2f} left")]
