"""Runs all checks, and returns the exit status."""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from importlib.util import find_spec
from typing import Any

from openrouter_guard.cli.console.output import Answer, Form, show
from openrouter_guard.cli.fleet.scopes import opened
from openrouter_guard.errors import ConfigurationError, StoreError, StoreRefused
from openrouter_guard.settings import Settings
from openrouter_guard.variables import PREFIX, unknown

from .checks import Check, Verdict, answer_of, blocks, failed, skipped, warning
from .fleet import checked_fleet
from .key import checked_key
from .redis import checked_redis
from .service import checked_service

__all__ = ["checked", "run_doctor"]

HEALTHY, FAILED, WARNED = 0, 1, 3


def run_doctor(arguments: argparse.Namespace) -> int:
    """Print the checks; return 0 if all is well, 3 with warnings only, 1 if one failed."""

    async def ask() -> Answer:
        return await checked(os.environ, arguments)

    answer = asyncio.run(show(ask, blocks, Form(arguments.output)))
    verdicts = {each["verdict"] for each in answer["checks"]}
    if Verdict.FAILED in verdicts:
        return FAILED
    return WARNED if Verdict.WARNING in verdicts else HEALTHY


async def checked(environ: Mapping[str, str], arguments: argparse.Namespace) -> dict[str, Any]:
    """Return all checks as JSON."""
    return answer_of([check async for check in _checks(environ, arguments)])


async def _checks(environ: Mapping[str, str], arguments: argparse.Namespace) -> AsyncIterator[Check]:
    for sentence in unknown(environ):
        yield warning("settings", "names", sentence, "correct the name, or remove the variable")
    has_address = bool(environ.get("REDIS_URL", "").strip())
    if has_address:
        async for check in _of_redis(environ, arguments):
            yield check
    else:
        yield skipped("redis", "reachable", "REDIS_URL is not set", "set it to check Redis, the workers and the key")
    async for check in _of_cluster(environ):
        yield check
    for check in await checked_service(arguments.url or "", environ.get(f"{PREFIX}READ_TOKEN", "")):
        yield check


async def _of_redis(environ: Mapping[str, str], arguments: argparse.Namespace) -> AsyncIterator[Check]:
    try:
        settings = Settings.from_env(environ)
    except ConfigurationError as error:
        yield failed("settings", "values", str(error), "correct it: openrouter-guard config shows all")
        return
    is_reachable = True
    async for check in checked_redis(settings, arguments.part):
        is_reachable = is_reachable and not (check.name == "reachable" and check.verdict is Verdict.FAILED)
        yield check
    async with opened(environ, arguments.scope or ()) as scopes:
        for scope in scopes:
            if is_reachable:
                try:
                    for check in await checked_fleet(scope):
                        yield check
                except StoreRefused as error:
                    yield skipped("workers", f"state of {scope.name}", str(error), "use the user of the service here")
                except StoreError as error:
                    yield failed("workers", f"state of {scope.name}", str(error), "see the checks of redis")
            for check in await checked_key(scope.settings):
                yield check


async def _of_cluster(environ: Mapping[str, str]) -> AsyncIterator[Check]:
    if find_spec("kubernetes") is None:
        yield skipped("kubernetes", "reachable", "not asked", "install the extra [operator] to check a cluster")
        return
    from openrouter_operator.settings import OperatorSettings

    from .kubernetes import checked_cluster

    try:
        # The cluster can be checked without Redis.
        settings = OperatorSettings.from_env({**environ, "REDIS_URL": "redis://not-asked:6379/0"})
    except ConfigurationError as error:
        yield failed("settings", "values of the operator", str(error), "correct it")
        return
    async for check in checked_cluster(settings):
        yield check
