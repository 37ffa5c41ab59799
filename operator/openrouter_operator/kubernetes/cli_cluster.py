"""The requests that only the command line makes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from openrouter_guard.errors import ConfigurationError
from openrouter_operator.workloads.kinds import Kind
from openrouter_operator.workloads.workload import Workload

from .client import Cluster, ClusterError, NotFound
from .paths import EVENTS, RESOURCE, Path, every, path_of_resource

__all__ = ["MANAGER", "CliCluster"]

MANAGER = "openrouter-guard-cli"
"""The field manager of changes by people, apart from the operator's."""
_EVENTS_READ = 200
_NOT_INSTALLED = "OpenRouterStatus is not installed in this cluster: install the chart, or kubectl apply -f crds/"
_REVIEWS: Path = ("authorization.k8s.io", "v1", "selfsubjectaccessreviews")


class CliCluster(Cluster):
    """The cluster for the command line, with the rights of a person's kubeconfig; it may also change a resource.

    Every method raises: ClusterError: If the API server refuses, does not answer, or has no such object.
    """

    async def get(self, kind: Path, namespace: str, name: str) -> dict[str, Any]:
        return await self._request("GET", f"{every(kind, namespace)}/{quote(name, safe='')}")

    async def workload_at(self, kind: Kind, namespace: str, name: str) -> Workload:
        return Workload.of(kind, await self.get(kind.path, namespace, name))

    async def check_namespace(self, name: str) -> None:
        """Check that there is such a namespace, as far as the rights allow.

        Raises:
            ConfigurationError: If there is none.
        """
        try:
            await self.namespace(name)
        except NotFound:
            raise ConfigurationError(f"there is no namespace {name}: name another one with --namespace") from None
        except ClusterError:
            return  # few people may read namespaces, and the next request tells what else is wrong

    async def resources(self, namespace: str) -> Sequence[Mapping[str, Any]]:
        """Return the ``OpenRouterStatus`` resources of one namespace or (empty) all.

        Raises:
            ConfigurationError: If the CRD is missing.
        """
        try:
            return [each async for each in self.list(RESOURCE, namespace)]
        except NotFound:
            raise ConfigurationError(_NOT_INSTALLED) from None

    async def one_resource(self, namespace: str, name: str) -> dict[str, Any]:
        """Return an ``OpenRouterStatus``.

        Raises:
            ConfigurationError: If there is none of that name, or the CRD is missing.
        """
        try:
            return await self.resource(namespace, name)
        except NotFound:
            if not await self.is_installed():
                raise ConfigurationError(_NOT_INSTALLED) from None
            raise ConfigurationError(
                f"there is no OpenRouterStatus {name} in namespace {namespace}: "
                "openrouter-guard status --all-namespaces lists them"
            ) from None

    async def suspend(self, namespace: str, name: str, *, is_suspended: bool) -> dict[str, Any]:
        """Set ``spec.suspend`` of an ``OpenRouterStatus``; return it."""
        path = f"{path_of_resource(namespace, quote(name, safe=''))}?fieldManager={MANAGER}"
        return await self._request("PATCH", path, body={"spec": {"suspend": is_suspended}})

    async def override(self, resource: Mapping[str, Any], override: Mapping[str, Any] | None) -> None:
        """Set ``spec.override`` of an ``OpenRouterStatus``, or remove it; refused if it was changed meanwhile."""
        metadata = resource["metadata"]
        path = path_of_resource(metadata["namespace"], quote(metadata["name"], safe=""))
        body = {"metadata": {"resourceVersion": metadata["resourceVersion"]}, "spec": {"override": override}}
        await self._request("PATCH", f"{path}?fieldManager={MANAGER}", body=body)

    async def events(self, namespace: str, kind: str, name: str) -> list[Mapping[str, Any]]:
        """Return the events about one object, in no order."""
        selector = quote(f"involvedObject.kind={kind},involvedObject.name={name}")
        where = f"{every(EVENTS, namespace)}?fieldSelector={selector}&limit={_EVENTS_READ}"
        return (await self._request("GET", where))["items"] or []

    async def may(self, verb: str, kind: Path, namespace: str, *, name: str = "", subresource: str = "") -> bool:
        """Return whether these credentials allow it."""
        group, version, plural = kind
        asked = {"verb": verb, "group": group, "version": version, "resource": plural, "namespace": namespace}
        attributes = asked | {"name": name, "subresource": subresource}
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        return bool((await self._request("POST", every(_REVIEWS, ""), body=body))["status"]["allowed"])

    async def version(self) -> str:
        """Return the version of the API server, such as ``v1.37.0``."""
        return str((await self._request("GET", "/version"))["gitVersion"])
