"""Which kinds of workloads there are to look after, asked once at the start."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress

from openrouter_guard.errors import ConfigurationError

from .cluster import Cluster, NotFound, Refused
from .kinds import BY_NAME, Kind, UnusableKind, from_crd

__all__ = ["found"]

logger = logging.getLogger(__name__)


async def found(cluster: Cluster, names: Sequence[str], namespaces: Sequence[str]) -> list[Kind]:
    """The kinds of these names that the cluster has; the others are told of once.

    Args:
        cluster: The one to ask.
        names: Of known kinds, as ``Deployment``, or of CRDs with a ``scale`` subresource, as
            ``rollouts.argoproj.io``.
        namespaces: Those that are looked after; none means all.

    Raises:
        ConfigurationError: If one cannot be paused at all.
        ClusterError: If the API server does not say.
    """
    asked = [await _kind(cluster, name, namespaces) for name in names]
    for name, kind in zip(names, asked, strict=True):
        if kind is None:
            logger.warning("the cluster has no %s: install it, then restart the operator; the others go on", name)
    return [kind for kind in asked if kind is not None]


async def _kind(cluster: Cluster, name: str, namespaces: Sequence[str]) -> Kind | None:
    try:
        if "." in name:
            return from_crd(await cluster.crd(name))
        kind = BY_NAME[name]
        with suppress(Refused):  # it is there; what is missing is a right
            await cluster.try_to_list(kind.path, namespaces[0] if namespaces else "")
    except NotFound:
        return None
    except UnusableKind as error:
        raise ConfigurationError(f"OPENROUTER_GUARD_KINDS: {error}") from None
    return kind
