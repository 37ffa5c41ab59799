"""A proxy between one operator and the API server that can alter or drop all traffic.

It speaks plain HTTP to the operator. A bearer token is passed on; one that begins with ``admin`` stands for the
administrator.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
import time
from base64 import b64decode
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from tempfile import NamedTemporaryFile
from types import TracebackType
from typing import Any, Self

import aiohttp
from aiohttp import web
from yarl import URL

from tests.controlplane import ControlPlane
from tests.controlplane.kubeconfig import write_kubeconfig
from tests.operator.delays import LIST_OUTDATED, delayed

__all__ = [
    "ADMIN",
    "Answer",
    "Do",
    "Fault",
    "Hold",
    "Late",
    "Proxy",
    "Reset",
    "Seen",
    "Swallow",
    "SyncProxy",
    "context_of",
]

ADMIN = "admin"
_COLLECTIONS = ("deployments", "statefulsets", "cronjobs", "openrouterstatuses", "horizontalpodautoscalers")
_TURNS = 10
_HOP_BY_HOP = {"connection", "content-length", "host", "keep-alive", "transfer-encoding"}


@dataclass(frozen=True, slots=True)
class Seen:
    """A request, numbered from 1 in the order of arrival; ``at`` is of the monotonic clock."""

    number: int
    at: float
    method: str
    url: str
    path: str
    query: Mapping[str, str]
    token: str

    @property
    def is_watch(self) -> bool:
        return self.query.get("watch") in ("true", "1")

    @property
    def is_list(self) -> bool:
        return self.method == "GET" and not self.is_watch and self.path.rsplit("/", 1)[-1] in _COLLECTIONS

    @property
    def is_write(self) -> bool:
        """Of an object that matters to people: neither of a lease nor of an event."""
        return self.method != "GET" and not self.is_of("leases") and not self.is_of("events")

    def is_of(self, plural: str, name: str = "") -> bool:
        parts = self.path.strip("/").split("/")
        return plural in parts and (not name or name in parts)


class Fault:
    """What happens to a request instead of being forwarded."""


@dataclass(frozen=True, slots=True)
class Answer(Fault):
    """This, from the proxy itself; a ``Status`` with the message where there is no body."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    message: str = "spoiled by the test"
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Reset(Fault):
    """The connection ends."""


@dataclass(frozen=True, slots=True)
class Hold(Fault):
    """It waits until the event is set (for ever without one), then goes on, even if who sent it is dead."""

    until: threading.Event | None = None


@dataclass(frozen=True, slots=True)
class Swallow(Fault):
    """A watch goes on, and shows nothing: its connection looks alive."""


@dataclass(frozen=True, slots=True)
class Late(Fault):
    """A watch shows all so late, as a cache that lags; or of each object only the newest of that time."""

    seconds: float
    is_coalesced: bool = False


@dataclass(frozen=True, slots=True)
class Do(Fault):
    """Something happens once the API server has answered, and before the answer goes on."""

    after: Callable[[], object]


Rule = Callable[[Seen], Fault | None]


class Proxy:
    """Forwards everything; *rule* may say otherwise for each request. Use it as an async context manager.

    Args:
        name: Of whom it forwards for, as the audit log shows it (``userAgent``).

    Attributes:
        rule: Asked for each request, from the proxy's own loop.
        seen: All requests, oldest first.
        is_serial: Whether writes go one by one.
        lists: The first answer to each list, by its URL.
        past: What :meth:`travel_back` answers each list with, once.
        faults: How often a list was outdated, an event delayed, a state skipped.
        is_cut: Whether nothing passes any more, in neither direction, as when a cable is pulled.
    """

    rule: Rule | None

    def __init__(
        self, control_plane: ControlPlane, kubeconfig: Path, *, token: str = ADMIN, name: str = "proxy"
    ) -> None:
        self.rule = None
        self.seen: list[Seen] = []
        self._refused: set[int] = set()
        self.lists: dict[str, bytes] = {}
        self.past: dict[str, bytes] = {}
        self.faults = Counter[str]()
        self.is_cut = self.is_serial = False
        self.kubeconfig = kubeconfig
        self._control_plane = control_plane
        self._token = token
        self._name = name
        self._watches: dict[int, web.Request] = {}
        self._under_way: set[asyncio.Task[object]] = set()
        self._write = asyncio.Lock()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
        connector = aiohttp.TCPConnector(limit=0)
        session = aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False)
        self._session = await self._stack.enter_async_context(session)
        self._contexts = {is_admin: context_of(self._control_plane, is_admin) for is_admin in (False, True)}
        app = web.Application(client_max_size=64 * 1024**2)
        app.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        self._stack.push_async_callback(self._end_all)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self._url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        self.use_token(self._token)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cut_watches()
        await self._stack.aclose()
        for _ in range(_TURNS):  # of the loop, in which connections that were aborted are closed
            await asyncio.sleep(0)

    def use_token(self, token: str) -> None:
        """Write it into the kubeconfig."""
        write_kubeconfig(self.kubeconfig, url=self._url, authority=b"", credentials={"token": token})

    def cut_watches(self) -> None:
        """End every watch that is under way, as a load balancer does."""
        for request in tuple(self._watches.values()):
            _abort(request)

    async def remember(self) -> None:
        """Keep what each list that was ever asked for says now."""
        headers = {"User-Agent": self._name}
        for url in self.lists:
            where = URL(self._control_plane.url + url, encoded=True)
            async with self._session.get(where, headers=headers, ssl=self._contexts[True]) as answer:
                self.past[url] = await answer.read()

    def travel_back(self, seen: Seen) -> Fault | None:
        """A rule: each list is once as it was remembered, as from an API server whose cache is behind."""
        told = self.past.pop(seen.url, None) if seen.is_list else None
        if told is None:
            return None
        self.faults[LIST_OUTDATED] += 1
        return Answer(200, body=told)

    def written(self) -> list[Seen]:
        """Return the writes but for those that the API server refused: they came from a view that was out of date."""
        return [seen for seen in self.seen if seen.is_write and seen.number not in self._refused]

    async def _end_all(self) -> None:
        """End what is still under way: the server forgets a request whose connection was lost, and lets it run on."""
        await self._session.close()  # which aborts what a request that is cancelled would close politely, and slowly
        for task in tuple(self._under_way):
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        task = asyncio.current_task()
        assert task is not None
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        number, query = len(self.seen) + 1, dict(request.query)
        url, token = request.path_qs, request.headers.get("Authorization", "").partition(" ")[2]
        seen = Seen(number, time.monotonic(), request.method, url, request.path, query, token)
        self.seen.append(seen)
        body = await request.read()
        if self.is_serial and seen.is_write:
            async with self._write:
                return await self._handle_now(request, seen, body)
        return await self._handle_now(request, seen, body)

    async def _handle_now(self, request: web.Request, seen: Seen, body: bytes) -> web.StreamResponse:
        fault = self.rule(seen) if self.rule else None
        match fault:
            case Answer(status, headers, message, told):
                text = told or json.dumps({"kind": "Status", "message": message, "code": status}).encode()
                return web.Response(body=text, status=status, headers=headers, content_type="application/json")
            case Reset():
                _abort(request)
                return web.Response()
            case Hold(event):
                await _set(event)
        await self._while_cut()
        return await self._forward(request, seen, body, fault)

    async def _forward(
        self, request: web.Request, seen: Seen, body: bytes, fault: Fault | None
    ) -> web.StreamResponse:
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP_BY_HOP}
        headers["User-Agent"] = self._name
        is_admin = seen.token.startswith(ADMIN)
        if is_admin:
            del headers["Authorization"]
        url = URL(self._control_plane.url + request.raw_path, encoded=True)
        async with self._session.request(
            request.method, url, headers=headers, data=body or None, ssl=self._contexts[is_admin]
        ) as answer:
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP_BY_HOP}
            if seen.is_watch:
                return await self._stream(request, seen, answer, kept, fault)
            if answer.status == HTTPStatus.CONFLICT:
                self._refused.add(seen.number)
            told = await answer.read()
            if seen.is_list and answer.status == 200:
                self.lists.setdefault(seen.url, told)
            if isinstance(fault, Do):
                fault.after()
            await self._while_cut()
            return web.Response(body=told, status=answer.status, headers=kept)

    async def _stream(
        self,
        request: web.Request,
        seen: Seen,
        answer: aiohttp.ClientResponse,
        headers: Mapping[str, str],
        fault: Fault | None,
    ) -> web.StreamResponse:
        response = web.StreamResponse(status=answer.status, headers=headers)
        self._watches[seen.number] = request
        try:
            await response.prepare(request)
            chunks = self._late(answer, fault) if isinstance(fault, Late) else answer.content.iter_any()
            async for chunk in chunks:
                await self._while_cut()
                if not isinstance(fault, Swallow):
                    await response.write(chunk)
            await response.write_eof()
        except (ConnectionError, aiohttp.ClientError):
            _abort(request)
        finally:
            del self._watches[seen.number]
        return response

    def _late(self, answer: aiohttp.ClientResponse, late: Late) -> AsyncIterator[bytes]:
        return delayed(answer, late.seconds, is_coalesced=late.is_coalesced, faults=self.faults)

    async def _while_cut(self) -> None:
        while self.is_cut:  # noqa: ASYNC110  set from another thread
            await asyncio.sleep(0.02)


def context_of(control_plane: ControlPlane, is_admin: bool) -> ssl.SSLContext:
    config = json.loads(control_plane.kubeconfig.read_text())
    user, cluster = config["users"][0]["user"], config["clusters"][0]["cluster"]
    context = ssl.create_default_context(cadata=b64decode(cluster["certificate-authority-data"]).decode())
    if is_admin:
        with NamedTemporaryFile() as pem:
            pem.write(b64decode(user["client-certificate-data"]) + b64decode(user["client-key-data"]))
            pem.flush()
            context.load_cert_chain(pem.name)
    return context


async def _set(event: threading.Event | None) -> None:
    while event is None or not event.is_set():  # noqa: ASYNC110  set from another thread
        await asyncio.sleep(0.01)


def _abort(request: web.BaseRequest) -> None:
    if request.transport is not None:
        request.transport.abort()


class SyncProxy:
    """The same for tests without a loop of their own: it runs in a thread."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Proxy:
        self._thread.start()
        self._run(self.proxy.__aenter__())
        return self.proxy

    def __exit__(self, *_: object) -> None:
        self.proxy.is_cut = False
        self._run(self.proxy.__aexit__(None, None, None))
        self._run(_cancel_all())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def remember(self) -> None:
        self._run(self.proxy.remember())

    def _run(self, work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(30)


async def _cancel_all() -> None:
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
