"""Two namespaces with the same changes: an operator manages one, and nobody pauses the other.

In the end both must be the same: what the operator did has left no trace. Nobody has to say what is right.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeAlias

import httpx

from openrouter_operator.workloads.workload import GROUP, OPT, PAUSED
from tests.controlplane import ControlPlane, KubectlFailed
from tests.operator.conftest import deployment, resource
from tests.operator.crashes import one_of
from tests.operator.proxy import context_of

__all__ = ["Refused", "Twins", "manifest"]

Body: TypeAlias = dict[str, Any]
MERGE, APPLY, JSON = "application/merge-patch+json", "application/apply-patch+yaml", "application/json"
PLURALS = {"Deployment": "apps/v1/{}/deployments", "StatefulSet": "apps/v1/{}/statefulsets"}
PLURALS |= {"ReplicaSet": "apps/v1/{}/replicasets", "CronJob": "batch/v1/{}/cronjobs"}
OURS = f"/apis/{GROUP}/v1alpha1/namespaces/{{}}/openrouterstatuses"
FIELD_MANAGER = "openrouter-guard"


class Refused(Exception):
    """The API server did not take it."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A workload as far as it has to be the same in both."""

    kind: str
    name: str
    spec: Any
    labels: Mapping[str, str]


def manifest(kind: str, name: str, pods: int, image: str = "worker") -> Body:
    """What an owner applies."""
    if kind == "CronJob":
        return one_of("CronJob", name, pods)
    body = deployment(name, pods, tier="batch")
    body["kind"] = kind
    body["spec"]["template"]["spec"]["containers"][0]["image"] = image
    return body


class Twins:
    """See above.

    Attributes:
        real: The namespace with an operator.
        shadow: The one without.
        writes: How often people changed something.
    """

    def __init__(self, control_plane: ControlPlane, name: str) -> None:
        self.real, self.shadow = name, f"{name}-shadow"
        self.writes = 0
        self._control_plane = control_plane
        self._client = httpx.Client(verify=context_of(control_plane, True), base_url=control_plane.url, timeout=20)
        for namespace in (self.real, self.shadow):
            self.request("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})

    def close(self) -> None:
        with suppress(Refused):
            for body in self.resources():
                self.request("PATCH", self.place(body["metadata"]["name"]), {"metadata": {"finalizers": None}})
        for namespace in (self.real, self.shadow):
            self.request("DELETE", f"/api/v1/namespaces/{namespace}")
        self._client.close()

    # -- asking ---------------------------------------------------------------------------------------------------

    def request(self, method: str, path: str, body: Any = None, kind: str = MERGE) -> Body:
        """One request; raises :class:`Refused`."""
        headers = {"Content-Type": kind if method == "PATCH" else JSON}
        content = None if body is None else json.dumps(body)
        answer = self._client.request(method, path, content=content, headers=headers)
        if answer.status_code >= 400:
            raise Refused(f"{answer.status_code} {answer.json().get('message')}")
        found: Body = answer.json()
        return found

    def get(self, kind: str, name: str, namespace: str = "") -> Body | None:
        try:
            return self.request("GET", self._path(kind, namespace or self.real, name))
        except Refused as error:
            if not str(error).startswith("404"):
                raise
            return None

    def all(self, kind: str, namespace: str) -> list[Body]:
        found: list[Body] = self.request("GET", self._path(kind, namespace, ""))["items"] or []
        return found

    def place(self, name: str = "") -> str:
        """Where an ``OpenRouterStatus`` is."""
        return f"{OURS.format(self.real)}/{name}".rstrip("/")

    def resources(self) -> list[Body]:
        found: list[Body] = self.request("GET", self.place())["items"]
        return found

    @staticmethod
    def _path(kind: str, namespace: str, name: str) -> str:
        place = PLURALS[kind].format(f"namespaces/{namespace}")
        return f"/apis/{place}/{name}".rstrip("/")

    # -- what people do to workloads ------------------------------------------------------------------------------

    def paused(self) -> int:
        """How many workloads are paused by us now."""
        bodies = (body for kind in ("Deployment", "StatefulSet", "CronJob") for body in self.all(kind, self.real))
        return sum(PAUSED in (body["metadata"].get("annotations") or {}) for body in bodies)

    def both(self, method: str, kind: str, name: str, body: Any = None, query: str = "", how: str = MERGE) -> bool:
        """Do the same to both; what the API server refuses in the one is not done to the other."""
        try:
            self.request(method, self._path(kind, self.real, name) + query, body, how)
        except Refused:
            return False
        with suppress(Refused):
            forced = query.replace("force=false", "force=true")
            self.request(method, self._path(kind, self.shadow, name) + forced, body, how)
        self.writes += 1
        return True

    def number_handed_down(self, name: str) -> int | None:
        """How many pods a ReplicaSet of an earlier revision says that we had set; None if none says so."""
        deployment = self.get("Deployment", name)
        if deployment is None or PAUSED in (deployment["metadata"].get("annotations") or {}):
            return None
        ours = [item for item in self.all("ReplicaSet", self.real) if _owner(item) == deployment["metadata"]["uid"]]
        notes = (item["metadata"]["annotations"].get(PAUSED) for item in ours if not item["spec"]["replicas"])
        return next((int(json.loads(note)["set"]) for note in notes if note), None)

    def create(self, body: Body) -> bool:
        return self.both("POST", body["kind"], "", body, "?fieldManager=kubectl-create")

    def copy(self, kind: str, name: str, new_name: str) -> bool:
        """As ``kubectl get -o yaml | edit | kubectl create`` does: with every annotation that is there."""
        if self.get(kind, new_name) is not None:
            return False
        for namespace in (self.real, self.shadow):
            body = self.get(kind, name, namespace)
            if body is None:
                return False
            kept = {key: body["metadata"].get(key) or {} for key in ("labels", "annotations")}
            copied = {**body, "metadata": {"name": new_name, **kept}}
            copied.pop("status", None)
            self.request("POST", self._path(kind, namespace, ""), copied)
        self.writes += 1
        return True

    def kubectl(self, *words: str, stdin: str | None = None) -> bool:
        """The same words in both namespaces; what fails in the one is not said in the other."""
        try:
            self._control_plane.kubectl(*words, f"--namespace={self.real}", input=stdin)
        except KubectlFailed:
            return False
        with suppress(KubectlFailed):
            self._control_plane.kubectl(*words, f"--namespace={self.shadow}", input=stdin)
        self.writes += 1
        return True

    def until_controllers_rest(self) -> None:
        """Until the controllers have seen every spec: an undo goes by what they have made of it."""
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline and not all(map(_is_seen, self._deployments())):
            time.sleep(0.05)

    def _deployments(self) -> Iterator[Body]:
        for namespace in (self.real, self.shadow):
            yield from self.all("Deployment", namespace)

    # -- the resource ---------------------------------------------------------------------------------------------

    def watch(self, name: str, spec: Mapping[str, Any]) -> Body:
        """Apply an ``OpenRouterStatus``: what is not in the spec is gone."""
        body = resource(name, **spec)
        return self.request("PATCH", f"{self.place(name)}?fieldManager=owner&force=true", body, APPLY)

    def unwatch(self, name: str) -> bool:
        with suppress(Refused):
            self.request("DELETE", self.place(name))
            return True
        return False

    # -- the oracles ----------------------------------------------------------------------------------------------

    def differences(self) -> list[str]:
        """What is not the same in both, and what is left of ours."""
        found: list[str] = []
        for kind in ("Deployment", "StatefulSet", "CronJob"):
            real, shadow = self._seen(kind, self.real), self._seen(kind, self.shadow)
            found += [
                f"{kind}/{name}: {real.get(name)} and not {shadow.get(name)}"
                for name in sorted(real.keys() | shadow.keys())
                if real.get(name) != shadow.get(name)
            ]
        return found + self.residue()

    def _seen(self, kind: str, namespace: str) -> dict[str, Seen]:
        found = {}
        for body in self.all(kind, namespace):
            metadata = body["metadata"]
            seen = Seen(kind, metadata["name"], body["spec"], metadata.get("labels") or {})
            found[metadata["name"]] = seen
        return found

    def residue(self) -> list[str]:
        """Annotations, owned fields and finalizers of ours on workloads."""
        found = []
        for kind in PLURALS:
            for body in self.all(kind, self.real):
                metadata = body["metadata"]
                notes = [n for n in metadata.get("annotations") or () if n.startswith(f"{GROUP}/") and n != OPT]
                fields = [m for m in metadata.get("managedFields") or () if m.get("manager") == FIELD_MANAGER]
                ends = [n for n in metadata.get("finalizers") or () if n.startswith(GROUP)]
                if notes or fields or ends:
                    found.append(f"{kind}/{metadata['name']} still has {notes or ends or 'fields of ours'}")
        return found

    def versions(self) -> dict[str, str]:
        """The version of each object in the real namespace: it stays where nobody writes."""
        bodies = [*self.resources(), *(body for kind in PLURALS for body in self.all(kind, self.real))]
        return {body["metadata"]["uid"]: body["metadata"]["resourceVersion"] for body in bodies}

    def problems(self) -> list[Any]:
        return [
            (body["metadata"]["name"], (body.get("status") or {}).get("problems"), body.get("spec"))
            for body in self.resources()
        ]

    def is_taken_up(self, name: str) -> bool:
        """Whether the operator has seen the spec as it is."""
        with suppress(Refused):
            body = self.request("GET", self.place(name))
            seen = (body.get("status") or {}).get("observedGeneration")
            return seen == body["metadata"]["generation"] and "deletionTimestamp" not in body["metadata"]
        return False


def _owner(body: Body) -> str:
    return str(next((owner["uid"] for owner in body["metadata"].get("ownerReferences") or ()), ""))


def _is_seen(body: Body) -> bool:
    seen = (body.get("status") or {}).get("observedGeneration")
    return bool(seen == body["metadata"]["generation"])
