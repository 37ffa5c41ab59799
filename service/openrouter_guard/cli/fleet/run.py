"""Runs the commands of this room: each reads, prints, and returns an exit status."""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from openrouter_guard.cli.console.output import Answer, Form, show
from openrouter_guard.cli.console.tables import Block
from openrouter_guard.settings import Settings
from openrouter_guard.version import package_version

from . import about, config, history, models, override, status, workers
from .scopes import OpenScope, each, opened

__all__ = [
    "print_overview",
    "print_version",
    "run_config",
    "run_history",
    "run_models",
    "run_override",
    "run_override_clear",
    "run_status",
    "run_version",
    "run_workers",
]

DONE, WRONG = 0, 1


def run_status(arguments: argparse.Namespace) -> int:
    return _asked(arguments, status.of_scope, status.blocks)


def run_history(arguments: argparse.Namespace) -> int:
    return _asked(arguments, partial(history.of_scope, limit=arguments.limit), history.blocks)


def run_workers(arguments: argparse.Namespace) -> int:
    return _asked(arguments, partial(workers.of_scope, limit=arguments.limit), workers.blocks)


def run_models(arguments: argparse.Namespace) -> int:
    return _asked(arguments, partial(models.of_scope, limit=arguments.limit), models.blocks)


def run_override(arguments: argparse.Namespace) -> int:
    async def decide(scope: OpenScope) -> None:
        who = arguments.by or override.person()
        await override.decided(scope, arguments.kind, who=who, why=arguments.reason, for_s=arguments.for_s)

    return asyncio.run(_changed(arguments, decide))


def run_override_clear(arguments: argparse.Namespace) -> int:
    async def clear(scope: OpenScope) -> None:
        await override.cleared(scope, who=arguments.by or override.person())

    return asyncio.run(_changed(arguments, clear))


def run_config(arguments: argparse.Namespace) -> int:
    found = config.found_in(os.environ)
    _show_once(found, config.blocks, arguments)
    return WRONG if found["problems"] else DONE


def run_version(arguments: argparse.Namespace) -> int:
    _show_once(about.versions(), about.blocks, arguments)
    return DONE


def print_version() -> int:
    print(f"openrouter-guard {package_version()}")
    return DONE


def print_overview() -> int:
    print(about.overview(os.environ))
    return DONE


def _asked(
    arguments: argparse.Namespace,
    ask: Callable[[OpenScope], Awaitable[Any]],
    tell: Callable[[Answer], Sequence[Block]],
) -> int:
    async def run() -> None:
        async with opened(os.environ, arguments.scope or ()) as scopes:
            where = str(scopes[0].settings.redis)

            async def answer() -> Answer:
                return {"redis": where, **await each(scopes, ask)}

            await show(answer, tell, Form(arguments.output), watches=arguments.watch)

    asyncio.run(run())
    return DONE


async def _changed(arguments: argparse.Namespace, change: Callable[[OpenScope], Awaitable[None]]) -> int:
    """Change one scope, and show its state afterwards."""
    wanted = arguments.scope or Settings.from_env(os.environ).scope
    async with opened(os.environ, [wanted]) as scopes:
        await change(scopes[0])

        async def answer() -> Answer:
            return {"redis": str(scopes[0].settings.redis), **await each(scopes, status.of_scope)}

        await show(answer, status.blocks, Form(arguments.output))
    return DONE


def _show_once(found: Answer, tell: Callable[[Answer], Sequence[Block]], arguments: argparse.Namespace) -> None:
    async def answer() -> Answer:
        return found

    asyncio.run(show(answer, tell, Form(arguments.output)))
