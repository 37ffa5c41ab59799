"""``openrouter-guard config``: every setting of this environment, with its source; no secret is shown."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from openrouter_guard.address import parse_address
from openrouter_guard.cli.console.output import Answer
from openrouter_guard.cli.console.tables import Block, Table, Text
from openrouter_guard.errors import ConfigurationError
from openrouter_guard.rules.redaction import redact, remember, secrets_in
from openrouter_guard.settings import Settings, api_key_variable
from openrouter_guard.variables import unknown

from .settings_table import SETTINGS, Setting

__all__ = ["blocks", "fingerprint", "found_in"]

_FINGERPRINT = 8


def fingerprint(secret: str) -> str:
    """Return text that tells two secrets apart and gives neither away: the first digits of its SHA-256."""
    return f"sha256:{hashlib.sha256(secret.strip().encode()).hexdigest()[:_FINGERPRINT]}"


def found_in(environ: Mapping[str, str]) -> dict[str, Any]:
    """Return all settings, and the problems of those that are set."""
    remember(secrets_in(environ))
    problems = list(unknown(environ))
    further: tuple[str, ...] = ()
    try:
        further = tuple(each.scope for each in Settings.from_env(environ).further)
    except ConfigurationError as error:
        problems.append(str(error))
    return {"settings": [_one(each, environ) for each in _all(further)], "problems": problems}


def _all(further: Sequence[str]) -> Iterator[Setting]:
    yield from SETTINGS
    for scope in further:
        key = api_key_variable(scope, is_further=True)
        yield Setting(key, "", "service", is_secret=True)
        yield Setting(key.replace("API_KEY", "MANAGEMENT_KEY", 1), "", "service", is_secret=True)


def _one(setting: Setting, environ: Mapping[str, str]) -> dict[str, Any]:
    given = environ.get(setting.name, "").strip()
    return {
        "name": setting.name,
        "value": _shown(setting, given) if given else setting.default or None,
        "source": "environment" if given else "default",
        "default": setting.default or None,
        "read_by": setting.readers.split(", "),
        "secret": setting.is_secret,
    }


def _shown(setting: Setting, given: str) -> str:
    if setting.is_secret:
        return fingerprint(given)
    if setting.name != "REDIS_URL":
        return redact(given)
    try:
        return str(parse_address(given))
    except ConfigurationError:
        return "not an address"


def blocks(answer: Answer) -> Sequence[Block]:
    rows = [
        (each["name"], each["value"], each["source"], each["default"], ", ".join(each["read_by"]))
        for each in answer["settings"]
    ]
    table = Table(("variable", "value", "source", "default", "read by"), rows)
    return [table, *(Text(f"problem: {problem}") for problem in answer["problems"])]
