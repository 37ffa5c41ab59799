"""Who may read and who may write, by bearer tokens."""

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
"""Kubernetes asks without a token, and learns nothing but that the process works."""
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
"""It says no more than a permit does that is refused."""
_OTHER_SCOPES = "This token is for other scopes"
_REALM = 'realm="openrouter-guard"'


class Right(StrEnum):
    """What a token gives the right to."""

    NOTHING = "nothing"
    REPORT = "report"
    """To report, to take permits and to ask the gate, of some scopes perhaps; nothing else."""
    READ = "read"
    WRITE = "write"


class Access:
    """What each request may do.

    Args:
        tokens: The ones that are set.
        reviews: What the cluster says of others; None: nobody is asked.
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
        """Ask the cluster whose a token is that is none of those set; first of all where one may report.

        Raises:
            HTTPException: 503 if it does not say.
        """
        scheme, _, token = authorization.partition(" ")
        if self._reviews is None or scheme.lower() != "bearer" or self.of_bearer(authorization) is not Right.NOTHING:
            return
        try:
            await self._reviews.look(token.strip())
        except ReviewUnavailable as error:
            raise HTTPException(503, str(error), {"Retry-After": "5"}) from None

    def of_bearer(self, authorization: str) -> Right:
        """The right of a bearer token; who writes may read."""
        scheme, _, token = authorization.partition(" ")
        return self._of_token(token.strip()) if scheme.lower() == "bearer" else Right.NOTHING

    def of_reader(self, authorization: str) -> Right:
        """As :meth:`of_bearer`, or by the password that a browser asks for, whatever the user name is.

        Not to write with: a browser would send it along with what another site makes it send.
        """
        scheme, _, encoded = authorization.partition(" ")
        if scheme.lower() != "basic":
            return self.of_bearer(authorization)
        try:
            password = base64.b64decode(encoded, validate=True).decode().partition(":")[2]
        except ValueError:  # no base64, or no text
            return Right.NOTHING
        return self._of_token(password)

    def require_write(self, request: Request) -> None:
        """Let only those through who may write.

        Raises:
            HTTPException: 403 where writing is off, or the token may only read; 401 without a good token.
        """
        if self._write is None:
            raise HTTPException(403, HOW_TO_WRITE)
        authorization = request.headers.get("authorization", "")
        right = self.of_bearer(authorization)
        if right is Right.REPORT:
            raise HTTPException(403, f"{_ONLY_REPORTS}: send the one of OPENROUTER_GUARD_WRITE_TOKEN")
        _require_more(right, authorization, "OPENROUTER_GUARD_WRITE_TOKEN")

    def require_report(self, request: Request, scope: str) -> None:
        """Let only those through who may report of that scope: by a token for it, or who may write.

        Raises:
            HTTPException: 403 where reporting is off, or the token may only read, or is for other scopes; 401 without
                a good token.
        """
        if self._write is None and not self._report and self._reviews is None:
            raise HTTPException(403, HOW_TO_REPORT)
        authorization = request.headers.get("authorization", "")
        right = self.of_bearer(authorization)
        if right is Right.REPORT and not self.is_for(authorization, scope):
            raise HTTPException(403, _OTHER_SCOPES)
        _require_more(right, authorization, "OPENROUTER_GUARD_REPORT_TOKEN")

    def is_for(self, authorization: str, scope: str) -> bool:
        """Whether a token to report with is for that scope."""
        token = authorization.partition(" ")[2].strip()
        given = _digest(token)
        found = [names for known, names in self._report if hmac.compare_digest(given, known)]
        scopes = found[0] if found else self._reviewed(token)
        return scopes is not None and (not scopes or scope in scopes)

    def _reviewed(self, token: str) -> Set[str] | None:
        return None if self._reviews is None else self._reviews.scopes_of(token)

    def _of_token(self, token: str) -> Right:
        # All are compared in full, and digests have one length: the time says nothing about the token.
        given = _digest(token)
        may_write = self._write is not None and hmac.compare_digest(given, self._write)
        may_read = self._read is not None and hmac.compare_digest(given, self._read)
        may_report = sum(hmac.compare_digest(given, known) for known, _ in self._report) > 0
        may_report = may_report or self._reviewed(token) is not None
        if may_report and not (may_write or may_read):
            return Right.REPORT
        return Right.WRITE if may_write else Right.READ if may_read else Right.NOTHING


class ReadersOnly:
    """ASGI middleware that lets nobody read without a token, but for the probes.

    Args:
        app: What is behind it.
        access: Knows the tokens.
        scope: Of requests that name none.
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
        """Why a token to report with may not do that; empty where it may, or where the route itself asks."""
        path = request.scope["path"]
        if path != _GATE:
            return "" if _REPORTED_TO.fullmatch(path) else _ONLY_REPORTS
        is_for = self._access.is_for(authorization, request.query_params.get("scope") or self._scope)
        return "" if is_for else _OTHER_SCOPES


def _require_more(right: Right, authorization: str, variable: str) -> None:
    """Refuse who may only read, and who may nothing."""
    if right is Right.READ:
        raise HTTPException(403, f"This token may only read: send the one of {variable}")
    if right is Right.NOTHING:
        error = ', error="invalid_token"' if authorization else ""
        detail = f"Send the token of {variable} as 'Authorization: Bearer <token>'"
        raise HTTPException(401, detail, {"WWW-Authenticate": f"Bearer {_REALM}{error}"})


def _challenge(headers: Mapping[str, str]) -> dict[str, str]:
    """A browser that shows a page asks the person for a password: the token."""
    is_page = "text/html" in headers.get("accept", "")
    return {"WWW-Authenticate": f"{'Basic' if is_page else 'Bearer'} {_REALM}", "Vary": "Accept"}


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
