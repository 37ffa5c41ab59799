"""The result of one check."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from openrouter_guard.cli.console.output import Answer
from openrouter_guard.cli.console.tables import Block, Table, Text

__all__ = ["Check", "Verdict", "answer_of", "blocks", "failed", "ok", "skipped", "warning"]


class Verdict(StrEnum):
    """The outcome of a check."""

    OK = "ok"
    WARNING = "warning"
    """It works, and may not for long, or not as you expect."""
    FAILED = "failed"
    SKIPPED = "skipped"
    """There is nothing to check, or no right to look."""


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the report.

    Attributes:
        area: ``settings``, ``redis``, ``workers``, ``openrouter``, ``kubernetes`` or ``service``.
        name: The name of the check; stable.
        found: What was found.
        advice: What to do; empty if there is nothing to do.
    """

    area: str
    name: str
    verdict: Verdict
    found: str
    advice: str = ""


def ok(area: str, name: str, found: str) -> Check:
    return Check(area, name, Verdict.OK, found)


def warning(area: str, name: str, found: str, advice: str) -> Check:
    return Check(area, name, Verdict.WARNING, found, advice)


def failed(area: str, name: str, found: str, advice: str) -> Check:
    return Check(area, name, Verdict.FAILED, found, advice)


def skipped(area: str, name: str, found: str, advice: str = "") -> Check:
    return Check(area, name, Verdict.SKIPPED, found, advice)


def answer_of(checks: Iterable[Check]) -> dict[str, Any]:
    """Return the checks as JSON, with their numbers by verdict."""
    made = [
        {
            "area": check.area,
            "check": check.name,
            "verdict": check.verdict.value,
            "found": check.found,
            "advice": check.advice or None,
        }
        for check in checks
    ]
    numbers = {verdict.value: sum(each["verdict"] == verdict for each in made) for verdict in Verdict}
    return {"checks": made, "numbers": numbers}


def blocks(answer: Answer) -> Sequence[Block]:
    rows = [(each["verdict"], each["area"], each["check"], each["found"]) for each in answer["checks"]]
    todo = [Text(f"{each['area']} {each['check']}: {each['advice']}") for each in answer["checks"] if each["advice"]]
    numbers = ", ".join(f"{number} {verdict}" for verdict, number in answer["numbers"].items())
    return [Table(("verdict", "area", "check", "found"), rows), *todo, Text(numbers)]
