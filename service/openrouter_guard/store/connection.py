"""From an address to a client that never hangs, and from Redis' errors to ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import redis.asyncio as aioredis
from redis import exceptions as failures
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from openrouter_guard.address import checked
from openrouter_guard.errors import ConfigurationError, ForeignValue, StoreRefused, StoreUnavailable

__all__ = ["Client", "Timeouts", "connect", "translated"]

Client = aioredis.Redis


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long Redis may take, in seconds, before it counts as away."""

    connect_s: float = 1.0
    answer_s: float = 1.0


def connect(url: str, timeouts: Timeouts) -> Client:
    """A client for ``redis://``, ``rediss://`` or ``unix://``; it connects when it is first used.

    Raises:
        ConfigurationError: If the address cannot be one of Redis. Its message never holds the password.
    """
    try:
        return aioredis.Redis.from_url(
            checked(url),
            decode_responses=True,
            socket_connect_timeout=timeouts.connect_s,
            socket_timeout=timeouts.answer_s,
            # A retry inside the client would multiply the timeouts; who calls us knows when to try again.
            retry=Retry(NoBackoff(), 0),
            client_name="openrouter-guard",
        )
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"REDIS_URL cannot be used: {_without_secrets(url, error)}") from None


@contextmanager
def translated(where: str) -> Iterator[None]:
    """Raise our errors for those of Redis; *where* is the address without secrets."""
    try:
        yield
    except failures.AuthenticationError as error:
        raise StoreRefused(f"Redis at {where} refuses the user or password of REDIS_URL ({error})") from error
    except (failures.NoPermissionError, failures.ReadOnlyError, failures.OutOfMemoryError) as error:
        raise StoreRefused(f"Redis at {where} will not do it: {error}") from error
    except (failures.ConnectionError, failures.TimeoutError, OSError) as error:
        raise StoreUnavailable(f"Redis at {where} does not answer: {_plain(error)}") from error
    except failures.ResponseError as error:
        if "WRONGTYPE" in str(error):
            raise ForeignValue(
                f"a value of another type lives under one of our keys in Redis at {where}; "
                "it is left as it is: rename it, or choose another scope"
            ) from error
        raise StoreRefused(f"Redis at {where} will not do it: {error}") from error
    except failures.InvalidResponse as error:
        raise StoreRefused(f"what answers at {where} is not Redis: look at REDIS_URL") from error


def _plain(error: BaseException) -> str:
    return str(error).strip() or type(error).__name__


def _without_secrets(url: str, error: Exception) -> str:
    text = str(error)
    password = urlsplit(url).password
    return text.replace(password, "…") if password else text
