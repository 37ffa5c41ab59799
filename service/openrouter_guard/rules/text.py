"""The text that we write: always valid UTF-8, and others' words as one line without secrets."""

from __future__ import annotations

import json

from .parsing import TEXT_MOST, line_of
from .redaction import redact

__all__ = ["WORD_MOST", "json_text", "words_of"]

WORD_MOST, WORDS_MOST = 64, 500
"""Of a reason of our own vocabulary, and of a name or a person's reason."""


def json_text(value: object) -> str:
    r"""Return JSON that every reader accepts.

    Half a character, which JSON may escape and Redis' scripts refuse, becomes ``?``.

    >>> json_text({"model": "half \ud83d"})
    '{"model": "half ?"}'
    """
    return json.dumps(value, ensure_ascii=False).encode(errors="replace").decode()


def words_of(raw: object, most: int = WORDS_MOST) -> str:
    r"""Return a name or a reason that somebody wrote as one readable line of at most *most* characters.

    It goes into log lines, where a line end would begin a line that nobody has logged. It is redacted before it is
    cut: half a key is a key too.

    >>> words_of("a drill\n2026-03-01 CRITICAL Redis is lost")
    'a drill 2026-03-01 CRITICAL Redis is lost'
    """
    return line_of(redact(line_of(raw, TEXT_MOST)), most)
