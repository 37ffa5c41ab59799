"""Errors of the API server, by what to do about them.

ClusterError
├── Unavailable   wait: no answer, or the API server asks for a later retry
├── Conflict      read again: the object was changed in between
├── NotFound      the object is gone
├── Expired       list again: a watch cannot continue from its version
├── Refused       fix it: no permission, or the change is not admitted
└── NotLeading    stop: another operator may be acting
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

from openrouter_guard.errors import ConfigurationError, OpenRouterGuardError
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
    "kubeconfig_error",
    "kubeconfig_files",
    "strict_x509_hint",
]

_BODY_SHOWN = 300
_WORDS_MOST = 1_000
"""A webhook may say anything, at any length; a condition and an event have room for so much."""


_STRICT_ONLY = ("Authority Key Identifier", "key usage extension", "Basic Constraints", "Subject Key Identifier")
"""Parts of OpenSSL's messages about extensions that it requires only with ``X509_V_FLAG_X509_STRICT``."""


class ClusterError(OpenRouterGuardError):
    """The root of the tree."""


class Unavailable(ClusterError):
    """The API server does not answer, or not now.

    Attributes:
        after_s: Seconds after which it asks for a retry; 0 if it does not say.
    """

    after_s = 0.0


class Conflict(ClusterError):
    """The object has changed since it was read."""


class NotFound(ClusterError):
    """There is no such object."""


class Expired(ClusterError):
    """The events since that version are no longer available."""


class Refused(ClusterError):
    """The API server answers and refuses."""


class NotLeading(ClusterError):
    """The lease is not known to be held, so this operator may not write."""


def error_of(status: int, text: bytes, headers: Mapping[str, str]) -> ClusterError:
    """Return the error for an answer of the API server: its status, body and headers."""
    try:
        message = line_of(json.loads(text)["message"], _WORDS_MOST)
    except (KeyError, TypeError, ValueError):
        message = line_of(text, _BODY_SHOWN)
    message = message or f"HTTP {status}"
    match status:
        case 401:
            return Refused(f"{message}: the API server does not accept these credentials; they may have expired")
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


def kubeconfig_error(error: Exception) -> ConfigurationError:
    """Return, in one line, why the kubeconfig cannot be used, without entries of it: they may hold a token.

    Args:
        error: The client's error, which is about its keys also for a file that does not exist.
    """
    where = os.environ.get("KUBECONFIG") or "~/.kube/config"
    return ConfigurationError(f"no Kubernetes cluster: {where} cannot be used ({_why_unusable(error)})")


def kubeconfig_files() -> list[str]:
    """Return the files that ``KUBECONFIG`` names, or the default one. ``~`` stays if the user has no home."""
    paths = (os.environ.get("KUBECONFIG") or "~/.kube/config").split(os.pathsep)
    # Path.expanduser raises without a home, and an image's user need not have one.
    return [os.path.expanduser(path) for path in paths if path]  # noqa: PTH111


def _why_unusable(error: Exception) -> str:
    if not any(Path(file).exists() for file in kubeconfig_files()):
        return "there is no such file"
    words = re.sub(r"\{.*\}", "{…}", " ".join(str(error).split()))
    is_told = isinstance(error, OSError) or type(error).__name__ == "ConfigException"
    return words if is_told else f"{type(error).__name__}: {words}"


def strict_x509_hint(error: BaseException) -> str:
    """Return how to accept a certificate authority that is only refused by strict rules; empty if that is not why."""
    words = str(error)
    if "CERTIFICATE_VERIFY_FAILED" not in words or not any(part in words for part in _STRICT_ONLY):
        return ""
    return (
        f"{line_of(words)}. Python 3.13 and newer require X.509 extensions that this cluster's certificate authority"
        " lacks: renew it, or set OPENROUTER_GUARD_STRICT_X509=false (in the chart: strictX509)"
    )
