"""Changes as they happen, as server-sent events."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Request
from fastapi.responses import Response
from starlette.types import Receive, Send
from starlette.types import Scope as ASGIScope

from openrouter_guard.api.http.middleware import is_head
from openrouter_guard.api.http.open_requests import TooManyClients
from openrouter_guard.api.http.problems import documented, problem
from openrouter_guard.api.scope.event_stream import MEDIA_TYPE, Client, EventStream, deliver

from .common import FULL, PREFIX, Lenient, Scope, of_scope

__all__ = ["router"]

router = APIRouter(prefix=PREFIX, tags=["state"], route_class=Lenient)

RETRY_S = 10
EVENT_ID = r"^[0-9]{0,20}$"
_EXAMPLE = (
    "retry: 2000\n\n"
    'event: transition\nid: 1772366400001\ndata: {"epoch":1772366400001,"from":"closed","to":"open",…}\n\n'
    'event: state\nid: 1772366400001\ndata: {"status":"service_unavailable",…}\n\n'
    ": heartbeat\n\n"
)


class _Stream(Response):
    media_type = MEDIA_TYPE

    def __init__(self, events: EventStream, client: Client) -> None:
        super().__init__(headers={"X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._events = events
        self._client = client

    async def __call__(self, scope: ASGIScope, receive: Receive, send: Send) -> None:
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            if is_head(scope):
                self._client.end()
            await deliver(self._client, receive, send)
        finally:
            self._events.leave(self._client)


@router.get(
    "/events",
    summary="Stream changes as they happen",
    response_class=Response,
    responses={
        200: {
            "description": "Server-sent events",
            "content": {MEDIA_TYPE: {"schema": {"type": "string"}, "example": _EXAMPLE}},
        },
        **documented(404, 422, 503),
    },
)
async def events(
    request: Request,
    scope: Scope = None,
    last_event_id: Annotated[
        str,
        Header(
            description="The id of the last event that the client received: later transitions are sent again",
            pattern=EVENT_ID,
        ),
    ] = "",
) -> Response:
    """Server-sent events, until the service stops.

    `state` with the whole status is sent at once and after each change, and before it a `transition` for each change
    of the breaker. Their id is the breaker's epoch. A comment every 15 s keeps the connection open.
    """
    hub = of_scope(request, scope).events
    try:
        client = hub.subscribe(int(last_event_id) if last_event_id else None)
    except TooManyClients:
        return problem(request, 503, f"{FULL}; ask again, or poll /status", {"Retry-After": str(RETRY_S)})
    return _Stream(hub, client)
