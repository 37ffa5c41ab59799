"""Prints an answer in the wanted form, once or again and again."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any, TypeAlias

from openrouter_guard.errors import ConfigurationError, OpenRouterGuardError
from openrouter_guard.rules.parsing import line_of

from .colour import draw, is_wanted
from .tables import Block, plain

__all__ = ["Answer", "Form", "show"]

Answer: TypeAlias = Mapping[str, Any]
"""What a command has found, as in its JSON."""
EVERY_S = 2.0
_CLEAR = "\x1b[H\x1b[2J"


class Form(StrEnum):
    """The forms of an answer."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


async def show(
    ask: Callable[[], Awaitable[Answer]],
    tell: Callable[[Answer], Sequence[Block]],
    form: Form,
    *,
    watches: bool = False,
) -> Answer:
    """Ask, and print the answer; with *watches* again every two seconds, until Ctrl-C.

    Args:
        ask: Returns the answer.
        tell: Returns the blocks of the answer for people.
        form: The wanted form. While it watches, each JSON document is one line, and each YAML document begins
            with ``---``.
        watches: Whether to go on.

    Returns:
        The answer.

    Raises:
        StoreError: If Redis cannot be read; while it watches, that is one line on stderr.
        ClusterError: The same for the API server.
        ConfigurationError: If there is nothing to wait for.
    """
    if not watches:
        answer = await ask()
        _print(answer, tell, form, is_one_of_many=False)
        return answer
    while True:
        try:
            answer = await ask()
        except ConfigurationError:
            raise
        except OpenRouterGuardError as error:
            print(f"openrouter-guard: {line_of(str(error))}", file=sys.stderr)
        else:
            print(_CLEAR if sys.stdout.isatty() and form is Form.TABLE else "", end="")
            _print(answer, tell, form, is_one_of_many=True)
            sys.stdout.flush()
        await asyncio.sleep(EVERY_S)


def _print(answer: Answer, tell: Callable[[Answer], Sequence[Block]], form: Form, *, is_one_of_many: bool) -> None:
    match form:
        case Form.JSON:
            print(json.dumps(answer, indent=None if is_one_of_many else 2))
        case Form.YAML:
            import yaml

            print(yaml.safe_dump(answer, sort_keys=False, explicit_start=is_one_of_many), end="")
        case Form.TABLE if is_wanted(sys.stdout, os.environ):
            draw(tell(answer))
        case Form.TABLE:
            print(plain(tell(answer)))
