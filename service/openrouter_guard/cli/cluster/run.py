"""Runs the commands of this room: each reads, prints, and returns an exit status."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from openrouter_guard.cli.console.output import Answer, Form, show
from openrouter_guard.cli.console.tables import Block, Facts
from openrouter_guard.cli.fleet import status as fleet_status
from openrouter_guard.cli.fleet.scopes import each, opened
from openrouter_guard.errors import ConfigurationError
from openrouter_guard.rules.codec import iso, parse_iso
from openrouter_operator.kubernetes.cli_cluster import CliCluster

from . import plan, resources, suspension, why
from .where import connected, namespace_of

__all__ = ["run_plan", "run_resume", "run_status", "run_suspend", "run_why"]

DONE = 0


def run_status(arguments: argparse.Namespace) -> int:
    """Show the resources, and the scopes too if ``REDIS_URL`` is set."""
    return asyncio.run(_status(arguments))


async def _status(arguments: argparse.Namespace) -> int:
    namespace = "" if arguments.all_namespaces else arguments.namespace
    async with AsyncExitStack() as stack:
        cluster = await stack.enter_async_context(await connected())
        has_redis = bool(os.environ.get("REDIS_URL", "").strip())
        scopes = await stack.enter_async_context(opened(os.environ, arguments.scope or ())) if has_redis else []

        async def answer() -> Answer:
            if namespace:
                await cluster.check_namespace(namespace)
            found = await each(scopes, fleet_status.of_scope)
            listed = [resources.resource_of(one) for one in await cluster.resources(namespace)]
            where = str(scopes[0].settings.redis) if scopes else None
            sources = {"redis": where, "cluster": cluster.host}
            return {**sources, **found, "resources": listed, "now": iso(cluster.now)}

        await show(answer, _status_blocks, Form(arguments.output), watches=arguments.watch)
    return DONE


def _status_blocks(answer: Answer) -> Sequence[Block]:
    sources = Facts({"redis": answer["redis"] or "not asked: REDIS_URL is not set", "cluster": answer["cluster"]})
    scopes = fleet_status.blocks(answer) if answer["scopes"] else ()
    return [sources, *scopes, *resources.blocks(answer["resources"], parse_iso(answer["now"]))]


def run_why(arguments: argparse.Namespace) -> int:
    kind, name = arguments.workload
    namespace = namespace_of(arguments.namespace)

    async def ask(cluster: CliCluster) -> Answer:
        await cluster.check_namespace(namespace)
        return await why.about(cluster, namespace, kind, name)

    return asyncio.run(_asked(arguments, ask, why.blocks))


def run_plan(arguments: argparse.Namespace) -> int:
    namespace = namespace_of(arguments.namespace)

    text = _text_of(arguments.file) if arguments.file else ""

    async def ask(cluster: CliCluster) -> Answer:
        if arguments.file:
            wanted = plan.in_file(text, namespace)
        else:
            wanted = await cluster.one_resource(namespace, arguments.name)
        await cluster.check_namespace(wanted["metadata"]["namespace"])
        return await plan.planned(cluster, wanted)

    return asyncio.run(_asked(arguments, ask, plan.blocks))


def _text_of(file: str) -> str:
    try:
        return sys.stdin.read() if file == "-" else Path(file).read_text()
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{file} is not text in UTF-8") from None


def run_suspend(arguments: argparse.Namespace) -> int:
    namespace, name = namespace_of(arguments.namespace), arguments.name

    async def ask(cluster: CliCluster) -> Answer:
        await cluster.check_namespace(namespace)
        return await suspension.suspended(cluster, namespace, name, keeps_paused=arguments.keep_paused)

    return asyncio.run(_asked(arguments, ask, suspension.blocks))


def run_resume(arguments: argparse.Namespace) -> int:
    namespace, name = namespace_of(arguments.namespace), arguments.name

    async def ask(cluster: CliCluster) -> Answer:
        await cluster.check_namespace(namespace)
        return await suspension.resumed(cluster, namespace, name)

    return asyncio.run(_asked(arguments, ask, suspension.blocks))


async def _asked(
    arguments: argparse.Namespace,
    ask: Callable[[CliCluster], Any],
    tell: Callable[[Answer], Sequence[Block]],
) -> int:
    async with await connected() as cluster:

        async def answer() -> Answer:
            found: Answer = await ask(cluster)
            return found

        await show(answer, tell, Form(arguments.output), watches=getattr(arguments, "watch", False))
    return DONE
