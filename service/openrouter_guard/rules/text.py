"""Our own text output: always valid UTF-8, whatever the input."""

from __future__ import annotations

import json

__all__ = ["json_text"]


def json_text(value: object) -> str:
    r"""Return JSON that every reader accepts.

    Half a character, which JSON may escape and Redis' scripts refuse, becomes ``?``.

    >>> json_text({"model": "half \\ud83d"})
    '{"model": "half ?"}'
    """
    return json.dumps(value, ensure_ascii=False).encode(errors="replace").decode()
