"""Resolves the Redis of a resource: the operator's own, or one in a Secret of its namespace."""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from openrouter_guard.errors import ConfigurationError
from openrouter_operator.kubernetes.client import Cluster, ClusterError, NotFound
from openrouter_operator.resource.spec import SecretRef, Spec

from .feed import Feed, FeedKey, Feeds, Unreadable

__all__ = ["Resolver"]

FRESH_S = 300.0
"""A Secret is read again after this."""
DOUBTFUL_S = 15.0
"""Shorter while its Redis cannot be read: the Secret may have been corrected."""


@dataclass(frozen=True, slots=True)
class _Known:
    url: str
    read_at: float
    works: bool = True

    @property
    def is_old(self) -> bool:
        return time.monotonic() - self.read_at > (FRESH_S if self.works else DOUBTFUL_S)


class Resolver:
    """The feeds of all resources.

    Args:
        cluster: Reads Secrets.
        feeds: The feeds of the operator's own Redis, and of others.
        reads_secrets: Whether the operator may read Secrets at all.
    """

    def __init__(self, cluster: Cluster, feeds: Feeds, *, reads_secrets: bool) -> None:
        self._cluster = cluster
        self._feeds = feeds
        self._reads_secrets = reads_secrets
        self._known: dict[tuple[str, SecretRef], _Known] = {}
        self._uses: dict[str, FeedKey] = {}

    async def of(self, uid: str, namespace: str, spec: Spec) -> Feed | Unreadable:
        """Return the feed for the spec of the resource *uid*, and release any other.

        An unreadable one contains the reason.
        """
        secret = spec.redis.url_secret_ref if spec.redis else None
        try:
            url = await self._url(namespace, secret) if secret else ""
            self._uses[uid] = (url, spec.scope)
            feed = await self._feeds.of(spec.scope, url)
        except ConfigurationError as error:
            return Unreadable(spec.scope, f"spec.redis.urlSecretRef: {error}", self._feeds.clock)
        except ClusterError as error:
            name = secret.name if secret else ""
            why = f"spec.redis.urlSecretRef: Secret {name!r} cannot be read: {error}"
            return Unreadable(spec.scope, why, self._feeds.clock)
        if secret:
            self._known[namespace, secret] = replace(self._known[namespace, secret], works=feed.read().is_fresh)
        await self._close_unused()
        return feed

    async def drop(self, uid: str) -> None:
        """Release a resource that is gone, or no longer ours."""
        if self._uses.pop(uid, None) is not None:
            await self._close_unused()

    async def _close_unused(self) -> None:
        """Close feeds without a resource, such as the former Redis of a changed Secret."""
        await self._feeds.keep_only(set(self._uses.values()))

    async def _url(self, namespace: str, secret: SecretRef) -> str:
        if not self._reads_secrets:
            raise ConfigurationError("this operator reads no Secrets: set operator.readSecrets in the chart")
        known = self._known.get((namespace, secret))
        if known is None or known.is_old:
            known = _Known(await self._read(namespace, secret), time.monotonic())
            self._known[namespace, secret] = known
        return known.url

    async def _read(self, namespace: str, secret: SecretRef) -> str:
        try:
            body = await self._cluster.secret(namespace, secret.name)
        except NotFound:
            raise ConfigurationError(f"there is no Secret {secret.name!r} in this namespace") from None
        url = _text(body, secret.key)
        if not url.startswith(("redis", "valkey")):
            raise ConfigurationError(
                f"key {secret.key!r} of Secret {secret.name!r} holds no address such as redis://…"
            )
        return url


def _text(body: Mapping[str, Any], key: str) -> str:
    try:
        return base64.b64decode((body.get("data") or {}).get(key, "")).decode().strip()
    except (binascii.Error, UnicodeDecodeError):
        return ""
