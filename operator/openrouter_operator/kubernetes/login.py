"""How kopf gets to the API server: as our own client does."""

from __future__ import annotations

import ssl
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

import kopf

__all__ = ["login"]

_LIFE_S = 600.0


class _WithoutStrictRules(kopf.ConnectionInfo):
    """A connection that accepts a certificate authority without the extensions of RFC 5280."""

    def as_ssl_context(self) -> ssl.SSLContext:
        context = super().as_ssl_context()
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        return context


def login(memo: kopf.Memo, **arguments: Any) -> kopf.ConnectionInfo | None:
    """The address and the credentials of our own client, read again before a projected token ends.

    In a pod kopf would ask cluster DNS for the API server. Kubernetes puts the address into the environment, so an
    operator can start, or take over, while DNS is away.
    """
    found = kopf.login_with_service_account(**arguments) or kopf.login_with_kubeconfig(**arguments)
    if not isinstance(found, kopf.ConnectionInfo):
        return None
    ends = datetime.now(UTC) + timedelta(seconds=_LIFE_S)
    made = kopf.ConnectionInfo if memo.operator.strict_x509 else _WithoutStrictRules
    return made(**asdict(found) | {"server": memo.operator.host, "expiration": ends})
