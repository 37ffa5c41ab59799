"""The types of arguments: each error says what to write."""

from __future__ import annotations

import argparse
import re
from typing import TypeAlias

__all__ = ["Commands", "count", "duration", "name", "namespaced", "object_name", "port", "seconds", "workload"]

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001  it has no public name
_UNITS_S = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
_OBJECT = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?", re.ASCII)
_NAME_MOST = 253
_DURATION = re.compile(r"(?:\d{1,7}[dhms])+", re.ASCII)


def port(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text) <= 65_535):
        raise argparse.ArgumentTypeError(f"{text!r}: write a port from 0 to 65535")
    return int(text)


def name(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("it is empty: write a name, or -A for all namespaces")
    return text


def object_name(text: str) -> str:
    """The name of an object of Kubernetes: it becomes a part of a path."""
    if not _OBJECT.fullmatch(text) or len(text) > _NAME_MOST:
        raise argparse.ArgumentTypeError(f"{text!r}: write a name of lower-case letters, digits, '-' and '.'")
    return text


def namespaced(text: str) -> tuple[str, str]:
    namespace, _, name = text.partition("/")
    if not namespace or not name:
        raise argparse.ArgumentTypeError(
            f"{text!r}: write a namespace and a name, such as guard/openrouter-guard-operator"
        )
    return namespace, name


def workload(text: str) -> tuple[str, str]:
    """A kind and a name, as kubectl writes them: ``deploy/chat``."""
    kind, _, name = text.partition("/")
    if not kind or not name:
        raise argparse.ArgumentTypeError(f"{text!r}: write a kind and a name, such as deploy/chat")
    return kind, object_name(name)


def seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r}: write seconds above 0, such as 0.5")
    return seconds


def duration(text: str) -> float:
    """Return the seconds in ``90s``, ``30m``, ``2h``, ``1d`` or ``1h30m``."""
    found = re.findall(r"(\d+)([dhms])", text) if _DURATION.fullmatch(text) else []
    total_s = float(sum(int(number) * _UNITS_S[unit] for number, unit in found))
    if not total_s:
        raise argparse.ArgumentTypeError(f"{text!r}: write a time such as 90s, 30m, 2h or 1h30m")
    return total_s


def count(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 0 < int(text) <= 10_000):
        raise argparse.ArgumentTypeError(f"{text!r}: write a whole number from 1 to 10000")
    return int(text)
