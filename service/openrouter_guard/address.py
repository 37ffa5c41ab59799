"""Where Redis is, as ``REDIS_URL`` says it: checked before it is used, and shown without its secrets."""

from __future__ import annotations

import re
from urllib.parse import SplitResult, urlsplit

from .errors import ConfigurationError

__all__ = ["address", "checked"]

_SCHEMES = ("redis", "rediss", "unix")
_WRITE = "write redis://host:6379/0, rediss://… for TLS, or unix:///path"
_ESCAPE = "; in a password, / is written %2F and @ is written %40"
_DATABASE = re.compile(r"(/\d*)?")


def checked(url: str) -> str:
    """The address, if it can be one of Redis.

    Raises:
        ConfigurationError: If it cannot; the message never holds the password.
    """
    parts = _parts(url)
    if not parts.scheme:
        raise ConfigurationError(f"REDIS_URL is not an address: {_WRITE}")
    if parts.scheme not in _SCHEMES:
        raise ConfigurationError(f"REDIS_URL starts with {parts.scheme!r}: {_WRITE}")
    if parts.scheme != "unix" and not _DATABASE.fullmatch(parts.path):
        raise ConfigurationError(f"REDIS_URL ends in what is no database number: {_WRITE}{_ESCAPE}")
    return url


def address(url: str) -> str:
    """Where Redis is, for people: no user, no password.

    Raises:
        ConfigurationError: If it cannot be told what is what.
    """
    parts = _parts(url)
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname or ''}{port}{parts.path}"


def _parts(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        # Python's reason may quote a password with a slash in it.
        raise ConfigurationError(f"REDIS_URL has no usable host and port: {_WRITE}{_ESCAPE}") from None
    return parts
