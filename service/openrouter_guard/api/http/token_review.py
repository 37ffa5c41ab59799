"""Checks ServiceAccount tokens with the Kubernetes API server: a valid one may report as a report token does.

It uses TokenReview, with the service's own token and the certificate authority that every pod gets. A verdict holds
for a minute. Source: https://kubernetes.io/docs/reference/kubernetes-api/authentication-resources/token-review-v1/
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import ssl
import time
from collections import OrderedDict
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

import httpx

from openrouter_guard.errors import OpenRouterGuardError
from openrouter_guard.log_once import LogOnce
from openrouter_guard.rules.parsing import json_of
from openrouter_guard.tokens import Reporters

__all__ = ["ReviewUnavailable", "Reviews"]

HOLDS_S = 60.0
"""Lifetime of a verdict: a deleted ServiceAccount may report for a minute more."""
REFUSAL_HOLDS_S = 10.0
KNOWN_MOST = 1000
TOKEN_MOST = 8192
TIMEOUT_S = 5.0
SECRETS = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_PATH = "/apis/authentication.k8s.io/v1/tokenreviews"
_ACCOUNT = "system:serviceaccount:"
_UNAVAILABLE = "The cluster does not check this token"


class ReviewUnavailable(OpenRouterGuardError):
    """The API server gives no verdict; ask again."""


class Reviews:
    """The API server's verdicts on tokens.

    Args:
        reporters: The namespaces whose tokens may report, and the audience.
    """

    def __init__(self, reporters: Reporters) -> None:
        self._audience = reporters.audience
        self._namespaces: Mapping[str, Set[str]] = dict(reporters.namespaces)
        self._server = reporters.server
        self._strict_x509 = reporters.strict_x509
        self._known: OrderedDict[bytes, tuple[Set[str] | None, float]] = OrderedDict()
        self._asking = LogOnce("The API server does not check tokens", "The API server checks tokens again")
        # One at a time, so that a client with many tokens does not load the API server.
        self._lock = asyncio.Lock()

    def scopes_of(self, token: str) -> Set[str] | None:
        """Return the scopes of a token, empty: all; None if it may not report, or was not checked."""
        scopes, until = self._known.get(_digest(token), (None, 0.0))
        return scopes if until > time.monotonic() else None

    async def look(self, token: str) -> None:
        """Have an unknown token checked, if it may belong to one of the namespaces.

        Raises:
            ReviewUnavailable: If there is no answer.
        """
        if not self._may_be_meant(token) or self._is_known(token):
            return
        async with self._lock:
            if not self._is_known(token):
                self._keep(token, await self._asked(token))

    def _is_known(self, token: str) -> bool:
        return self._known.get(_digest(token), (None, 0.0))[1] > time.monotonic()

    def _keep(self, token: str, scopes: Set[str] | None) -> None:
        holds_s = REFUSAL_HOLDS_S if scopes is None else HOLDS_S
        self._known[_digest(token)] = scopes, time.monotonic() + holds_s
        self._known.move_to_end(_digest(token))
        while len(self._known) > KNOWN_MOST:
            self._known.popitem(last=False)

    def _may_be_meant(self, token: str) -> bool:
        """Return whether the token claims to be a ServiceAccount's of these namespaces; others need no check."""
        parts = token.split(".")
        if len(parts) != 3 or len(token) > TOKEN_MOST:
            return False
        try:
            claims = json_of(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        except ValueError:
            return False
        return isinstance(claims, dict) and self._scopes_of_account(str(claims.get("sub"))) is not None

    async def _asked(self, token: str) -> Set[str] | None:
        review = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": [self._audience]},
        }
        try:
            # Read each time: the cluster renews both.
            own = await asyncio.to_thread((SECRETS / "token").read_text)
            trusted = await asyncio.to_thread(ssl.create_default_context, cafile=str(SECRETS / "ca.crt"))
            if not self._strict_x509:
                trusted.verify_flags &= ~ssl.VERIFY_X509_STRICT
            async with httpx.AsyncClient(verify=trusted, trust_env=False, timeout=TIMEOUT_S) as client:
                headers = {"Authorization": f"Bearer {own.strip()}"}
                answer = await client.post(self._server + _PATH, json=review, headers=headers)
                status = answer.raise_for_status().json()["status"]
        except (httpx.HTTPError, OSError, ValueError, KeyError, TypeError) as error:
            # The message may contain parts of the request.
            unavailable = ReviewUnavailable(f"{_UNAVAILABLE}: {type(error).__name__}")
            self._asking.failed(unavailable)
            raise unavailable from None
        self._asking.worked()
        return self._scopes_in(status)

    def _scopes_in(self, status: Any) -> Set[str] | None:
        """Return the verdict; an answer that does not name the audience has not checked it."""
        match status:
            case {"authenticated": True, "audiences": [*audiences], "user": {"username": str() as name}}:
                return self._scopes_of_account(name) if self._audience in audiences else None
            case _:
                return None

    def _scopes_of_account(self, name: str) -> Set[str] | None:
        namespace, _, account = name.removeprefix(_ACCOUNT).partition(":")
        return self._namespaces.get(namespace) if account and name.startswith(_ACCOUNT) else None


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
