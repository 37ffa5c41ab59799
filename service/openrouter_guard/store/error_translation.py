"""Translates Redis' errors into ours: the problem, the place, and the solution."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager

from redis import exceptions as failures

from openrouter_guard.errors import ForeignValue, StoreError, StoreRefused, StoreUnavailable

__all__ = ["explained", "foreign_key", "translated"]


_FIX = {
    "OOM": "is full (maxmemory is reached, and nothing may be evicted): give it memory, or remove unused keys",
    "READONLY": "is a read-only replica: let REDIS_URL lead to the primary, or name its Sentinels (redis+sentinel://)",
    "MISCONF": "takes no writes, for it cannot save to its disk: look at its log",
    "MOVED": "is a node of a Cluster: write redis+cluster:// and give the scope a name (OPENROUTER_GUARD_SCOPE)",
}
"""The solution, by the code of the error."""
_WAIT = {
    "BUSY": "is busy with a script",
    "CLUSTERDOWN": "is a Cluster that has lost a part of itself",
    "LOADING": "is loading its data",
    "MASTERDOWN": "is a replica that has lost its primary",
    "NOREPLICAS": "takes no writes until enough replicas are connected to it (min-replicas-to-write)",
    "TRYAGAIN": "is moving our keys to another node of the Cluster",
}
"""Errors that pass by themselves."""
_CODES: dict[type[Exception], str] = {
    failures.OutOfMemoryError: "OOM",
    failures.ReadOnlyError: "READONLY",
    failures.MovedError: "MOVED",
    failures.AskError: "MOVED",
    failures.ClusterCrossSlotError: "MOVED",
    failures.BusyLoadingError: "LOADING",
    failures.MasterDownError: "MASTERDOWN",
    failures.ClusterDownError: "CLUSTERDOWN",
    failures.TryAgainError: "TRYAGAIN",
}
"""redis-py removes the code if it has a class for it."""


@contextmanager
def translated(where: str, key: str = "") -> Iterator[None]:
    """Raise our errors for those of Redis; *where* is the address without secrets, *key* the key concerned."""
    try:
        yield
    except (failures.RedisError, OSError) as error:
        raise explained(error, where, key) from error


def explained(error: Exception, where: str, key: str = "") -> StoreError:
    """Return our error for one of Redis."""
    code = _CODES.get(type(error)) or str(error).partition(" ")[0]
    if code == "WRONGTYPE":
        return foreign_key(key, where)
    if code in _FIX:
        return StoreRefused(f"Redis at {where} {_FIX[code]}")
    if code in _WAIT:
        return StoreUnavailable(f"Redis at {where} {_WAIT[code]}")
    return _by_class(error, where)


def foreign_key(key: str, where: str) -> ForeignValue:
    return ForeignValue(
        f"a value of another type lives under the key {key} in Redis at {where}; "
        "it is left as it is: rename it, or choose another scope (OPENROUTER_GUARD_SCOPE)",
        key,
    )


def _by_class(error: Exception, where: str) -> StoreError:
    if isinstance(error, failures.AuthenticationError):
        return StoreRefused(f"Redis at {where} refuses the user or password of REDIS_URL ({error})")
    # For a command that a script may not run, Redis omits the code.
    if isinstance(error, failures.NoPermissionError) or "ACL failure" in str(error):
        return StoreRefused(
            f"Redis at {where} refuses the command: the user of REDIS_URL lacks a right ({error}); "
            "docs/redis.md lists the needed rights"
        )
    if isinstance(error, (failures.ConnectionError, failures.TimeoutError, OSError)):
        tls = _tls_error(error)
        if tls:
            return StoreRefused(f"Redis at {where}: TLS failed ({tls}): look at the ssl_… options of REDIS_URL")
        is_silent = isinstance(error, failures.TimeoutError | TimeoutError)
        return StoreUnavailable(f"Redis at {where} does not answer: {_plain(error)}", is_silent=is_silent)
    if isinstance(error, failures.InvalidResponse):
        return StoreRefused(f"the server at {where} is not Redis: look at REDIS_URL")
    return StoreRefused(f"Redis at {where} refuses the command: {error}")


def _tls_error(error: BaseException | None) -> str:
    """Return why the certificate was not trusted, if that is the problem; empty if not."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return error.verify_message
        if isinstance(error, ssl.SSLError):
            return error.reason or str(error)
        error = error.__cause__ or error.__context__
    return ""


def _plain(error: BaseException) -> str:
    return str(error).strip() or type(error).__name__
