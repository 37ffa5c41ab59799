"""Access by bearer tokens: the right to read, to report and to write."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Mapping, Set
from enum import StrEnum

from fastapi import Request
from fastapi.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from openrouter_guard.settings import Tokens

from .problems import problem
from .token_review import Reviews, ReviewUnavailable

__all__ = ["HOW_TO_WRITE", "Access", "ReadersOnly", "Right"]

OPEN_PATHS = frozenset({"/livez", "/readyz"})
"""Kubernetes sends no token, and learns only that the process works."""
HOW_TO_WRITE = (
    "Writing is off: set OPENROUTER_GUARD_WRITE_TOKEN in the service, and send it as 'Authorization: Bearer <token>'"
)
HOW_TO_REPORT = (
    "Reporting is off: set OPENROUTER_GUARD_REPORT_TOKEN in the service, and send it as 'Authorization: Bearer "
    "<token>'"
)
_ONLY_REPORTS = "This token may only report, take permits and ask the gate"
_REPORTED_TO = re.compile(r"/api/v1/openrouter/(?:reports|permits)(?:/[^/]*)?")
_GATE = "/api/v1/openrouter/gate"
"""The gate reveals no more than a refused permit does."""
_OTHER_SCOPES = "This token is for other scopes"
_REALM = 'realm="openrouter-guard"'


class Right(StrEnum):
    """The right that a token gives."""

    NOTHING = "nothing"
    REPORT = "report"
    """To report, to take permits and to ask the gate, perhaps only for some scopes; nothing else."""
    READ = "read"
    WRITE = "write"


class Access:
    """Decides whether a request is allowed.

    Args:
        tokens: The configured tokens.
        reviews: Checks ServiceAccount tokens with the cluster; None: such tokens are not accepted.
    """

    def __init__(self, tokens: Tokens, reviews: Reviews | None = None) -> None:
        self._reviews = reviews
        self._read = _digest(tokens.read) if tokens.read else None
        self._write = _digest(tokens.write) if tokens.write else None
        self._report = [(_digest(each.token), each.scopes) for each in tokens.report]

    @property
    def is_needed_to_read(self) -> bool:
        return self._read is not None

    async def know(self, authorization: str) -> None:
        """Have the cluster check a token that is not configured; call this before checks for the right to report.

        Raises:
            HTTPException: 503 if the cluster does not answer.
        """
        scheme, _, token = authorization.partition(" ")
        if self._reviews is None or scheme.lower() != "bearer" or self.of_bearer(authorization) is not Right.NOTHING:
            return
        try:
            await self._reviews.look(token.strip())
        except ReviewUnavailable as error:
            raise HTTPException(503, str(error), {"Retry-After": "5"}) from None

    def of_bearer(self, authorization: str) -> Right:
        """Return the right of a bearer token; the right to write includes reading."""
        scheme, _, token = authorization.partition(" ")
        return self._of_token(token.strip()) if scheme.lower() == "bearer" else Right.NOTHING

    def of_reader(self, authorization: str) -> Right:
        """As :meth:`of_bearer`, but also accept the token as a browser's password, with any user name.

        Not for writing: the browser would also send the password with requests that another site triggers.
        """
        scheme, _, encoded = authorization.partition(" ")
        if scheme.lower() != "basic":
            return self.of_bearer(authorization)
        try:
            password = base64.b64decode(encoded, validate=True).decode().partition(":")[2]
        except ValueError:  # not base64, or not text
            return Right.NOTHING
        return self._of_token(password)

    def require_write(self, request: Request) -> None:
        """Let a request through only if its token may write.

        Raises:
            HTTPException: 403 if writing is off, or the token may only read; 401 without a valid token.
        """
        if self._write is None:
            raise HTTPException(403, HOW_TO_WRITE)
        authorization = request.headers.get("authorization", "")
        right = self.of_bearer(authorization)
        if right is Right.REPORT:
            raise HTTPException(403, f"{_ONLY_REPORTS}: send the one of OPENROUTER_GUARD_WRITE_TOKEN")
        _require_more(right, authorization, "OPENROUTER_GUARD_WRITE_TOKEN")

    def require_report(self, request: Request, scope: str) -> None:
        """Let a request through only if its token may report for that scope, or may write.

        Raises:
            HTTPException: 403 if reporting is off, or the token may only read, or is for other scopes; 401 without a
                valid token.
        """
        if self._write is None and not self._report and self._reviews is None:
            raise HTTPException(403, HOW_TO_REPORT)
        authorization = request.headers.get("authorization", "")
        right = self.of_bearer(authorization)
        if right is Right.REPORT and not self.is_for(authorization, scope):
            raise HTTPException(403, _OTHER_SCOPES)
        _require_more(right, authorization, "OPENROUTER_GUARD_REPORT_TOKEN")

    def is_for(self, authorization: str, scope: str) -> bool:
        """Return whether a report token covers that scope."""
        token = authorization.partition(" ")[2].strip()
        given = _digest(token)
        found = [names for known, names in self._report if hmac.compare_digest(given, known)]
        scopes = found[0] if found else self._reviewed(token)
        return scopes is not None and (not scopes or scope in scopes)

    def _reviewed(self, token: str) -> Set[str] | None:
        return None if self._reviews is None else self._reviews.scopes_of(token)

    def _of_token(self, token: str) -> Right:
        # Compare with all digests in full; they have equal length, so the duration reveals nothing about the token.
        given = _digest(token)
        may_write = self._write is not None and hmac.compare_digest(given, self._write)
        may_read = self._read is not None and hmac.compare_digest(given, self._read)
        may_report = sum(hmac.compare_digest(given, known) for known, _ in self._report) > 0
        may_report = may_report or self._reviewed(token) is not None
        if may_report and not (may_write or may_read):
            return Right.REPORT
        return Right.WRITE if may_write else Right.READ if may_read else Right.NOTHING


class ReadersOnly:
    """ASGI middleware that requires a token to read, except for the probes.

    Args:
        app: The wrapped app.
        access: Checks the tokens.
        scope: Scope of requests that name none.
    """

    def __init__(self, app: ASGIApp, access: Access, scope: str) -> None:
        self._app = app
        self._access = access
        self._scope = scope

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        authorization = request.headers.get("authorization", "")
        if request.scope["path"] == _GATE or _REPORTED_TO.fullmatch(request.scope["path"]):
            try:
                await self._access.know(authorization)
            except HTTPException as error:
                await problem(request, error.status_code, error.detail, error.headers)(scope, receive, send)
                return
        right = self._access.of_reader(authorization)
        if right is Right.REPORT and (why := self._refused(request, authorization)):
            await problem(request, 403, why)(scope, receive, send)
            return
        if right is not Right.NOTHING:
            await self._app(scope, receive, send)
            return
        detail = "Send the token of OPENROUTER_GUARD_READ_TOKEN as 'Authorization: Bearer <token>'"
        await problem(request, 401, detail, _challenge(request.headers))(scope, receive, send)

    def _refused(self, request: Request, authorization: str) -> str:
        """Return the reason to refuse a report token; empty if the request is allowed, or if the route checks it."""
        path = request.scope["path"]
        if path != _GATE:
            return "" if _REPORTED_TO.fullmatch(path) else _ONLY_REPORTS
        is_for = self._access.is_for(authorization, request.query_params.get("scope") or self._scope)
        return "" if is_for else _OTHER_SCOPES


def _require_more(right: Right, authorization: str, variable: str) -> None:
    """Refuse tokens that may only read, and requests without a token."""
    if right is Right.READ:
        raise HTTPException(403, f"This token may only read: send the one of {variable}")
    if right is Right.NOTHING:
        error = ', error="invalid_token"' if authorization else ""
        detail = f"Send the token of {variable} as 'Authorization: Bearer <token>'"
        raise HTTPException(401, detail, {"WWW-Authenticate": f"Bearer {_REALM}{error}"})


def _challenge(headers: Mapping[str, str]) -> dict[str, str]:
    """A browser that shows a page asks its user for a password: the token."""
    is_page = "text/html" in headers.get("accept", "")
    return {"WWW-Authenticate": f"{'Basic' if is_page else 'Bearer'} {_REALM}", "Vary": "Accept"}


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
