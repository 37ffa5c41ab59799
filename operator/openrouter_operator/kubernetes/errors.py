"""What may go wrong when the API server is asked, by what there is to do about it.

ClusterError
├── Unavailable   wait: no answer, or the API server asks to come later
├── Conflict      look again: somebody has changed it meanwhile
├── NotFound      it is gone
├── Expired       list anew: a watch cannot go on from where it was
├── Refused       fix it: no permission, or something does not admit the change
└── NotLeading    stop: another operator may be acting
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from openrouter_guard.errors import OpenRouterGuardError
from openrouter_guard.rules.parsing import line_of

__all__ = [
    "ClusterError",
    "Conflict",
    "Expired",
    "NotFound",
    "NotLeading",
    "Refused",
    "Unavailable",
    "error_of",
]

_BODY_SHOWN = 300
_WORDS_MOST = 1_000
"""A webhook may say anything, at any length; a condition and an event have room for so much."""


class ClusterError(OpenRouterGuardError):
    """The root of the tree."""


class Unavailable(ClusterError):
    """The API server does not answer, or not now.

    Attributes:
        after_s: In how many seconds it asks to be tried again; 0 if it does not say.
    """

    after_s = 0.0


class Conflict(ClusterError):
    """What was to be changed is no longer as it was seen."""


class NotFound(ClusterError):
    """There is no such object."""


class Expired(ClusterError):
    """What happened since that version is no longer known."""


class Refused(ClusterError):
    """The API server answers, and will not do it."""


class NotLeading(ClusterError):
    """The lease is not known to be held, so nothing may be written."""


def error_of(status: int, text: bytes, headers: Mapping[str, str]) -> ClusterError:
    """The error that an answer of the API server stands for: its status, body and headers."""
    try:
        message = line_of(json.loads(text)["message"], _WORDS_MOST)
    except (KeyError, TypeError, ValueError):
        message = line_of(text, _BODY_SHOWN)
    message = message or f"HTTP {status}"
    match status:
        case 404:
            return NotFound(message)
        case 409:
            return Conflict(message)
        case 410:
            return Expired(message)
        case _ if status == 429 or status >= 500:
            error = Unavailable(message)
            after = headers.get("Retry-After", "")
            error.after_s = float(after) if after.isdecimal() else 0.0
            return error
        case _:
            return Refused(message)
