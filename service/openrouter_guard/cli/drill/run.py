"""Runs ``openrouter-guard drill``: chooses the subject, and shows its times."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from openrouter_guard.cli.console.output import Answer, Form, show
from openrouter_guard.cli.console.tables import Block, Table, Text
from openrouter_guard.cli.fleet.override import person
from openrouter_guard.cli.fleet.scopes import opened
from openrouter_guard.errors import ConfigurationError
from openrouter_guard.settings import Settings

from .course import Course, Goals
from .rehearsal import Subject, rehearse
from .scope import ScopeSubject

__all__ = ["run_drill"]

DONE, LATE = 0, 3
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_BY_SIGNAL = 128


def run_drill(arguments: argparse.Namespace) -> int:
    received: list[int] = []
    try:
        return asyncio.run(_drilled(arguments, received))
    except asyncio.CancelledError:
        return _BY_SIGNAL + received[0]


async def _drilled(arguments: argparse.Namespace, received: list[int]) -> int:
    _end_on_signals(received)
    goals, form = Goals(arguments.goal_pause_s, arguments.goal_resume_s), Form(arguments.output)
    say = partial(print, flush=True) if form is Form.TABLE else _nothing
    async with _subject(arguments) as subject:
        if not arguments.yes:
            raise ConfigurationError(
                f"a drill of {subject.name} refuses the calls of its whole scope for {arguments.for_s:g} s, and "
                "pauses workloads: add --yes"
            )
        found = _answer(subject, await rehearse(subject, arguments.for_s, say), goals, arguments.for_s)

    async def answer() -> Answer:
        return found

    await show(answer, _blocks, form)
    return DONE if all(each["met"] is not False for each in found["steps"]) else LATE


def _end_on_signals(received: list[int]) -> None:
    """Let these end the drill: the override is ended first, also if they come more than once."""
    task = asyncio.current_task()

    def end(number: int) -> None:
        received.append(number)
        if task is not None:
            task.cancel()

    for number in _ENDING:
        asyncio.get_running_loop().add_signal_handler(number, end, number)


@asynccontextmanager
async def _subject(arguments: argparse.Namespace) -> AsyncIterator[Subject]:
    if arguments.name or arguments.namespace:
        from openrouter_guard.cli.cluster.where import connected, namespace_of

        from .resource import ResourceSubject

        async with await connected() as cluster:
            yield ResourceSubject(cluster, namespace_of(arguments.namespace), arguments.name or "default")
        return
    wanted = arguments.scope or Settings.from_env(os.environ).scope
    async with opened(os.environ, [wanted]) as scopes:
        yield ScopeSubject(scopes[0], arguments.by or person())


def _nothing(_words: str) -> None:
    return


def _answer(subject: Subject, course: Course, goals: Goals, for_s: float) -> dict[str, Any]:
    return {
        "subject": subject.name,
        "for_s": for_s,
        "paused": sorted(course.paused),
        "steps": list(course.steps(goals)),
    }


def _blocks(answer: Answer) -> Sequence[Block]:
    rows = [(each["step"], _s(each["after_s"]), _s(each["goal_s"]), each["met"]) for each in answer["steps"]]
    table = Table(("step", "after", "goal", "met"), rows, title=answer["subject"])
    if answer["paused"]:
        return [table]
    return [table, Text("Nothing was paused: openrouter-guard plan says what a resource would pause.")]


def _s(seconds: float | None) -> str | None:
    return None if seconds is None else f"{seconds:g} s"
