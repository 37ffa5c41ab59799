"""Text that we write: always UTF-8, whatever somebody put into it."""

from __future__ import annotations

import json

__all__ = ["json_text"]


def json_text(value: object) -> str:
    r"""JSON that every reader takes: half a character, which JSON may escape and Redis' scripts refuse, is a ``?``.

    >>> json_text({"model": "half \\ud83d"})
    '{"model": "half ?"}'
    """
    return json.dumps(value, ensure_ascii=False).encode(errors="replace").decode()
