"""``openrouter-guard report``: all that helps with a bug report, as one JSON document without secrets."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from openrouter_guard.errors import ConfigurationError, OpenRouterGuardError
from openrouter_guard.rules.redaction import redact, remember, secrets_in

from .doctor.run import checked
from .fleet import about, config, history, models, status, workers
from .fleet.scopes import OpenScope, each, opened

__all__ = ["run_report"]

LIMIT = 200
_PARTS: Mapping[str, Callable[[OpenScope], Awaitable[Any]]] = {
    "status": status.of_scope,
    "history": partial(history.of_scope, limit=LIMIT),
    "workers": partial(workers.of_scope, limit=LIMIT),
    "models": partial(models.of_scope, limit=LIMIT),
}


def run_report(arguments: argparse.Namespace) -> int:
    """Write the report to a file, or to stdout.

    Raises:
        ConfigurationError: If the file cannot be written.
    """
    remember(secrets_in(os.environ))
    text = json.dumps(_clean(asyncio.run(_report(os.environ, arguments))), indent=2)
    if arguments.file in (None, "-"):
        print(text)
        return 0
    try:
        Path(arguments.file).write_text(text + "\n")
    except OSError as error:
        raise ConfigurationError(f"{arguments.file} cannot be written: {error}") from None
    print(f"{arguments.file}: read it before you attach it; names of hosts and workloads are in it", file=sys.stderr)
    return 0


async def _report(environ: Mapping[str, str], arguments: argparse.Namespace) -> dict[str, Any]:
    return {
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "version": about.versions(),
        "config": config.found_in(environ),
        "fleet": await _fleet(environ, arguments),
        "doctor": await checked(environ, arguments),
    }


async def _fleet(environ: Mapping[str, str], arguments: argparse.Namespace) -> dict[str, Any]:
    """Return each part, or why it cannot be had: a report is wanted when something is broken."""
    found: dict[str, Any] = {}
    try:
        async with opened(environ, arguments.scope or ()) as scopes:
            for name, ask in _PARTS.items():
                try:
                    found[name] = (await each(scopes, ask))["scopes"]
                except OpenRouterGuardError as error:
                    found[name] = {"error": str(error)}
    except OpenRouterGuardError as error:
        return {"error": str(error)}
    return found


def _clean(value: Any) -> Any:
    """Return the same with every text redacted once more, names included."""
    match value:
        case str():
            return redact(value)
        case Mapping():
            return {redact(str(name)): _clean(item) for name, item in value.items()}
        case list() | tuple():
            return [_clean(item) for item in value]
        case _:
            return value
