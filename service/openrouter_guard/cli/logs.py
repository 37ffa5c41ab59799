"""Log lines on stderr, each with its facts: as text with ``key=value``, or as JSON.

The level is ``OPENROUTER_GUARD_LOG_LEVEL`` (default INFO), the form ``OPENROUTER_GUARD_LOG_FORMAT`` (default text).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime

from openrouter_guard.errors import ConfigurationError

__all__ = ["configure"]

_LEVEL = "OPENROUTER_GUARD_LOG_LEVEL"
_FORMAT = "OPENROUTER_GUARD_LOG_FORMAT"
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}
"""The attributes of each record: all others are facts given by ``extra``.

uvicorn adds the last one, for terminals.
"""
_OF_KOPF = frozenset({"k8s_ref", "k8s_skip", "settings"})
"""Attributes that kopf passes to its own handlers with ``extra``."""


def configure(environ: Mapping[str, str]) -> None:
    """Set up logging for one of our processes.

    Raises:
        ConfigurationError: If the level is unknown to logging, or the format is neither text nor json.
    """
    level = environ.get(_LEVEL, "INFO").upper()
    if level not in logging.getLevelNamesMapping():
        raise ConfigurationError(f"{_LEVEL} is {level!r}: write DEBUG, INFO, WARNING or ERROR")
    form = environ.get(_FORMAT, "text").lower()
    if form not in _FORMATTERS:
        raise ConfigurationError(f"{_FORMAT} is {form!r}: write text or json")
    handler = logging.StreamHandler()
    handler.setFormatter(_FORMATTERS[form]())
    logging.basicConfig(level=level, handlers=[handler])
    # One line per request to the upstream is noise, and contains its address.
    logging.getLogger("httpx").setLevel(logging.WARNING)


class _TextFormatter(logging.Formatter):
    """One line: time, level, logger, message, and the facts as ``key=value``."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  logging's name
        facts = "".join(f" {name}={_quoted(value)}" for name, value in _facts(record))
        return _visible(super().formatMessage(record) + facts)


def _facts(record: logging.LogRecord) -> Iterator[tuple[str, object]]:
    return ((name, fact) for name, fact in vars(record).items() if name not in _STANDARD | _OF_KOPF)


def _quoted(value: object) -> str:
    """Return one word unchanged, other text as JSON, so that one fact does not look like two."""
    text = str(value)
    is_word = text.isprintable() and not any(mark in text for mark in ' "=\\')
    return text if text and is_word else json.dumps(text, ensure_ascii=False)


def _visible(text: str) -> str:
    r"""Return the text with escapes in place of invisible characters, such as line ends and terminal escapes.

    A line that begins within another one is a line that nobody has logged.

    >>> _visible("paid\x1b[31m\nCRITICAL")
    'paid\\u001b[31m\\nCRITICAL'
    """
    return text if text.isprintable() else "".join(each if each.isprintable() else _escape(each) for each in text)


def _escape(character: str) -> str:
    return json.dumps(character)[1:-1]


def _json_formatter() -> logging.Formatter:
    """One JSON object a line: ``time`` (UTC, RFC 3339), ``level``, ``logger``, ``message``, and the facts."""
    # Imported here: the worker library, whose command line this is too, comes without it.
    from pythonjsonlogger.json import JsonFormatter

    class UtcJsonFormatter(JsonFormatter):
        def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
            return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")

        def format(self, record: logging.LogRecord) -> str:
            return _visible(super().format(record))

    return UtcJsonFormatter(
        "%(asctime)s %(levelname)s %(name)s %(message)s",
        rename_fields={"asctime": "time", "levelname": "level", "name": "logger", "exc_info": "traceback"},
        reserved_attrs=_STANDARD | _OF_KOPF,
        json_ensure_ascii=False,
    )


_FORMATTERS: Mapping[str, Callable[[], logging.Formatter]] = {"text": _TextFormatter, "json": _json_formatter}
