"""The only file of the operator that talks to Kubernetes, besides kopf.

All requests and answers are plain JSON, whatever the kind. Every call has a time limit, and every failure is one of
:mod:`.errors`.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import Any, Self
from urllib.parse import quote

import aiohttp
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.config import ConfigException, load_incluster_config, load_kube_config

from openrouter_operator.workloads.workload import FIELD_MANAGER, Change, Workload

from .errors import (
    ClusterError,
    Conflict,
    Expired,
    NotFound,
    NotLeading,
    Refused,
    Unavailable,
    error_of,
    kubeconfig_error,
    strict_x509_hint,
)
from .objects import disowning, event_on, lines
from .paths import (
    CRDS,
    EVENTS,
    RESOURCE,
    SECRETS,
    Path,
    every,
    is_finalizer,
    path_as_us,
    path_of,
    path_of_lease,
    path_of_resource,
)

__all__ = [
    "Cluster",
    "ClusterError",
    "Conflict",
    "Expired",
    "NotFound",
    "NotLeading",
    "Refused",
    "Unavailable",
]

PAGE = 500
TIMEOUT_S = 10.0
AT_ONCE = 32
CONNECTIONS = 2 * AT_ONCE
"""So that the lease never waits behind other requests."""
WATCH_S = 240
"""A watch is restarted after this time, like the watches of kopf."""
SILENT_S = 70.0
"""The API server sends a bookmark every minute: a watch that is silent for longer hangs."""
_MERGE = "application/merge-patch+json"
_JSON_PATCH = "application/json-patch+json"
_JSON = "application/json"
_METADATA = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"


class Cluster:
    """The part of the Kubernetes API that this operator uses. Use it as an async context manager.

    Attributes:
        fence: Called before each change of a workload or a status; raises :class:`NotLeading` to stop it.
        wrote: Called after each such change: with the plural, the namespace, and the new version.
        answers: Number of answers of the API server by method and status; no answer is ``none``.
    """

    fence: Callable[[], None]
    wrote: Callable[[str, str, str], None]

    def __init__(self, configuration: Configuration) -> None:
        # Otherwise each request asks two threads for a proxy and a netrc, and waits longest for them under load.
        # kopf's watches use neither. A proxy-url in the kubeconfig still applies.
        configuration.client_session_kwargs = {"trust_env": False}
        configuration.connection_pool_maxsize = 0  # as many as there are watches, for which nothing waits
        self._watching = ApiClient(configuration)
        configuration.connection_pool_maxsize = CONNECTIONS
        self.host = str(configuration.host)
        self.strict_x509 = not configuration.disable_strict_ssl_verification
        self._offset_s = time.time() - time.monotonic()
        self.fence = lambda: None
        self.wrote = lambda _plural, _namespace, _version: None
        self.answers = Counter[tuple[str, str]]()
        # Waiting for a turn does not count as a slow API server. The lease takes no turn.
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._api = ApiClient(configuration)

    @classmethod
    async def connect(cls, *, strict_x509: bool = True) -> Self:
        """Return the cluster of this pod, or the one that ``KUBECONFIG`` names.

        Args:
            strict_x509: Whether its certificate authority must have the extensions that Python 3.13 requires.

        Raises: ConfigurationError: If there is neither.
        """
        configuration = Configuration()
        try:
            load_incluster_config(configuration)
        except ConfigException:
            try:
                await load_kube_config(client_configuration=configuration)
            except Exception as error:  # noqa: BLE001  of any type, for a file that is empty or damaged
                raise kubeconfig_error(error) from None
        configuration.disable_strict_ssl_verification = not strict_x509
        return cls(configuration)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._watching.close()
        await self._api.close()

    @property
    def is_busy(self) -> bool:
        """Whether more changes are due than can be made at once, so that other work should wait."""
        return self._turns.locked()

    # -- workloads ----------------------------------------------------------------------------------------------

    async def change(self, change: Change) -> Workload:
        """Make the change, and return the workload as it is now.

        Raises:
            ClusterError: If it was not made; :class:`Conflict` if the workload has changed since it was read.
        """
        workload = change.workload
        async with self._turns:
            self.fence()
            made = Workload.of(workload.kind, await self._request("PATCH", path_as_us(workload), body=change.patch()))
        self._note(workload.kind.plural, workload.namespace, workload.version, made.version)
        return made

    async def forget(self, kind: Path, namespace: str, name: str, version: str, copied: Iterable[str]) -> None:
        """Take these annotations from an object that only carries copies of them, if it is as it was seen.

        Raises:
            ClusterError: If that failed.
        """
        notes = {"resourceVersion": version, "annotations": dict.fromkeys(copied)}
        async with self._turns:
            self.fence()
            path = f"{every(kind, namespace)}/{name}?fieldManager={FIELD_MANAGER}"
            await self._request("PATCH", path, body={"metadata": notes})

    async def disown(self, seen: Workload) -> Workload:
        """Give up our ownership of any field of a workload that needs none.

        Its controllers may write at the same time: only its spec and the owners must be unchanged.

        Raises:
            ClusterError: If that failed; :class:`Conflict` if it was changed in between.
        """
        async with self._turns:
            self.fence()
            try:
                return await self._disowned(seen)
            except Refused:
                now = Workload.of(seen.kind, await self._request("GET", path_of(seen)))
                if not now.owes_fields:
                    return now
                if disowning(now) == disowning(seen):
                    raise
                return await self._disowned(now)

    async def _disowned(self, seen: Workload) -> Workload:
        # Written without our field manager: the purpose is to own nothing.
        body = await self._request("PATCH", path_of(seen), body=disowning(seen), content=_JSON_PATCH)
        made = Workload.of(seen.kind, body)
        self._note(seen.kind.plural, seen.namespace, seen.version, made.version)
        return made

    async def create_event(self, workload: Workload, type_: str, reason: str, message: str, at: float) -> None:
        """Post an event on a workload, as of *at*, Unix seconds.

        Raises:
            ClusterError: If that failed.
        """
        body = event_on(workload, type_, reason, message, at)
        async with self._turns:
            self.fence()
            await self._request("POST", every(EVENTS, workload.namespace), body=body)

    async def workload(self, seen: Workload) -> Workload:
        """Return the workload as it is now."""
        async with self._turns:
            return Workload.of(seen.kind, await self._request("GET", path_of(seen)))

    async def crd(self, name: str) -> dict[str, Any]:
        """Return a CustomResourceDefinition.

        Raises:
            NotFound: If there is none of that name.
        """
        return await self._request("GET", f"{every(CRDS, '')}/{name}")

    async def namespace(self, name: str) -> dict[str, Any]:
        """Return a Namespace.

        Raises:
            NotFound: If there is none of that name.
        """
        return await self._request("GET", f"/api/v1/namespaces/{quote(name, safe='')}")

    async def secret(self, namespace: str, name: str) -> dict[str, Any]:
        """Return a Secret, its data still in Base64."""
        async with self._turns:
            return await self._request("GET", f"{every(SECRETS, namespace)}/{name}")

    # -- our own resource ---------------------------------------------------------------------------------------

    async def is_installed(self) -> bool:
        """Return whether the API server knows ``OpenRouterStatus``."""
        return await self.serves(RESOURCE)

    async def serves(self, kind: Path) -> bool:
        """Return whether the API server knows the kind, which needs no right."""
        group, version, plural = kind
        try:
            found = await self._request("GET", f"/apis/{group}/{version}")
        except NotFound:
            return False
        return any(resource["name"] == plural for resource in found["resources"])

    async def try_to_list(self, kind: Path, namespace: str) -> None:
        """List one object of a kind, in one namespace or (empty) everywhere, to check the right to do so.

        Raises:
            Refused: If that is not allowed.
            NotFound: If there is no such kind.
        """
        await self._request("GET", f"{every(kind, namespace)}?limit=1")

    async def list(self, kind: Path, namespace: str) -> AsyncIterator[Mapping[str, Any]]:
        """Yield all objects of a kind, in one namespace or (empty) everywhere, page by page."""
        async for page in self._pages(kind, namespace):
            for found in page["items"] or ():  # null where there is none
                yield found

    async def metadata(self, kind: Path, namespace: str) -> AsyncIterator[Mapping[str, Any]]:
        """Yield only the metadata of all objects of a kind, in one namespace or (empty) everywhere, page by page."""
        async for page in self._pages(kind, namespace, accept=_METADATA):
            for found in page["items"] or ():  # null where there is none
                yield found

    async def snapshot(self, kind: Path, namespace: str) -> tuple[Sequence[Mapping[str, Any]], str]:
        """Return the same as a whole, and the version to watch from."""
        pages = [page async for page in self._pages(kind, namespace)]
        return [found for page in pages for found in page["items"]], pages[0]["metadata"]["resourceVersion"]

    async def watch(self, kind: Path, namespace: str, since: str) -> AsyncGenerator[tuple[str, Mapping[str, Any]]]:
        """Yield the events after a version: ``ADDED``, ``MODIFIED``, ``DELETED`` or ``BOOKMARK``, and the object.

        It ends by itself, after a few minutes or when the connection is lost; then watch from the last version.

        Raises:
            Expired: If it cannot go on from that version.
            NotFound: If there is no such kind.
        """
        query = f"watch=true&allowWatchBookmarks=true&timeoutSeconds={WATCH_S}&resourceVersion={quote(since)}"
        timeout = aiohttp.ClientTimeout(total=WATCH_S + 60, sock_connect=TIMEOUT_S, sock_read=SILENT_S)
        call = await self._call("GET", f"{every(kind, namespace)}?{query}")
        with suppress(aiohttp.ClientError, TimeoutError, OSError, ValueError):  # ValueError: cut within a line
            answer = await self._watching.call_api(*call, _request_timeout=timeout)
            async with answer.response:
                if answer.status >= 400:
                    raise error_of(answer.status, await answer.read(), answer.headers)
                async for line in lines(answer.response.content.iter_any()):
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        raise error_of(event["object"].get("code", 500), json.dumps(event["object"]).encode(), {})
                    yield event["type"], event["object"]

    async def _pages(self, kind: Path, namespace: str, accept: str = _JSON) -> AsyncIterator[Mapping[str, Any]]:
        next_page = ""
        while True:
            where = f"{every(kind, namespace)}?limit={PAGE}&continue={quote(next_page)}"
            page = await self._request("GET", where, accept=accept)
            yield page
            next_page = page["metadata"].get("continue") or ""
            if not next_page:
                return

    async def resource(self, namespace: str, name: str) -> dict[str, Any]:
        """Return an ``OpenRouterStatus``.

        Raises:
            NotFound: If there is none of that name.
        """
        async with self._turns:
            return await self._request("GET", path_of_resource(namespace, name))

    async def write_status(self, resource: Mapping[str, Any], status: Mapping[str, Any]) -> Mapping[str, Any]:
        """Replace the status if the resource is unchanged since it was read; return the resource.

        Raises:
            ClusterError: If it was not written.
        """
        metadata = resource["metadata"]
        path = f"{path_of_resource(metadata['namespace'], metadata['name'])}/status?fieldManager={FIELD_MANAGER}"
        async with self._turns:
            self.fence()
            made = await self._request("PUT", path, body={**resource, "status": status})
        before, after = metadata["resourceVersion"], made["metadata"]["resourceVersion"]
        self._note(RESOURCE[2], metadata["namespace"], before, after)
        return made

    async def remove_finalizers(self, resource: Mapping[str, Any]) -> None:
        """Remove our finalizers from a resource, if it is unchanged since it was read.

        Raises:
            ClusterError: If that failed.
        """
        metadata = resource["metadata"]
        left = [finalizer for finalizer in metadata.get("finalizers", ()) if not is_finalizer(finalizer)]
        patch = {"metadata": {"resourceVersion": metadata["resourceVersion"], "finalizers": left}}
        await self._request("PATCH", path_of_resource(metadata["namespace"], metadata["name"]), body=patch)

    # -- the lease ----------------------------------------------------------------------------------------------

    async def lease(self, namespace: str, name: str) -> dict[str, Any]:
        return await self._request("GET", f"{path_of_lease(namespace)}/{name}")

    async def create_lease(self, namespace: str, lease: Mapping[str, Any]) -> dict[str, Any]:
        return await self._request("POST", path_of_lease(namespace), body=lease)

    async def replace_lease(self, namespace: str, name: str, lease: Mapping[str, Any]) -> dict[str, Any]:
        return await self._request("PUT", f"{path_of_lease(namespace)}/{name}", body=lease)

    async def delete_lease(self, namespace: str, name: str) -> None:
        await self._request("DELETE", f"{path_of_lease(namespace)}/{name}")

    # -- how ----------------------------------------------------------------------------------------------------

    def _note_time(self, headers: Mapping[str, str]) -> None:
        with suppress(TypeError, ValueError):
            self._offset_s = parsedate_to_datetime(headers.get("Date", "")).timestamp() - time.monotonic()

    @property
    def now(self) -> float:
        """Return the API server's clock, Unix seconds to about a second; this machine's may be an hour off."""
        return time.monotonic() + self._offset_s

    def _note(self, plural: str, namespace: str, before: str, after: str) -> None:
        if after != before:  # otherwise nothing changed, and no watch will show it
            self.wrote(plural, namespace, after)

    async def _request(
        self, method: str, path: str, *, body: Any = None, accept: str = _JSON, content: str = _MERGE
    ) -> dict[str, Any]:
        method, url, headers, _, _ = await self._call(method, path, accept, content)
        try:
            answer = await self._api.call_api(method, url, headers, body, _request_timeout=TIMEOUT_S)
            text = await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self.answers[method, "none"] += 1
            reason = strict_x509_hint(error) or str(error) or type(error).__name__
            raise Unavailable(f"the API server at {self.host} does not answer: {reason}") from error
        self.answers[method, str(answer.status)] += 1
        self._note_time(answer.headers or {})
        if answer.status >= 400:
            raise error_of(answer.status, text, answer.headers or {})
        try:
            found: dict[str, Any] = json.loads(text)
        except ValueError:
            raise Unavailable(f"the server at {self.host} is not an API server: its answer is not JSON") from None
        return found

    async def _call(
        self, method: str, path: str, accept: str = _JSON, content: str = _MERGE
    ) -> tuple[str, str, dict[str, str], Any, Any]:
        """Return the request method, with our current credentials."""
        headers = {"Accept": accept}
        if method == "PATCH":
            headers["Content-Type"] = content
        # The body is plain JSON already: the client need not search it for its own models.
        call: tuple[str, str, dict[str, str], Any, Any] = await self._api.param_serialize(
            method, path, query_params=[], header_params=headers, auth_settings=["BearerToken"]
        )
        return call
