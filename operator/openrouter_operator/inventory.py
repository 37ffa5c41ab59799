"""The workloads of the cluster, as the watch shows them: nobody asks the API server for what is here."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from .workload import Workload

__all__ = ["Inventory"]


class Inventory:
    """What is known of the workloads and of the autoscalers that point at them.

    Both the watch and the answers to our own patches come in here, in any order: the newer version wins, so that the
    next round does not decide on what was before our own change.
    """

    def __init__(self) -> None:
        self._workloads: defaultdict[str, dict[str, Workload]] = defaultdict(dict)
        self._autoscaled: dict[tuple[str, str], tuple[str, str]] = {}

    def put(self, workload: Workload) -> bool:
        """Note the workload as it is; False if that is no news, or older than what is known."""
        known = self._workloads[workload.namespace].get(workload.name)
        if known is not None and _version(known) > _version(workload):
            return False
        self.replace(workload)
        return known is None or dataclasses.replace(known, version=workload.version) != workload

    def replace(self, workload: Workload) -> None:
        """Note what the API server has just said, whatever its version: after a restore they begin anew."""
        self._workloads[workload.namespace][workload.name] = workload

    def drop(self, namespace: str, name: str) -> None:
        self._workloads[namespace].pop(name, None)

    def of(self, namespace: str) -> Iterable[Workload]:
        return tuple(self._workloads[namespace].values())

    def paused(self) -> Iterable[Workload]:
        """Every workload, in all namespaces, that remembers a pause."""
        return tuple(w for found in self._workloads.values() for w in found.values() if w.pause is not None)

    # -- autoscalers --------------------------------------------------------------------------------------------

    def put_autoscaler(self, body: Mapping[str, Any]) -> None:
        """Note a HorizontalPodAutoscaler."""
        target = (body.get("spec") or {}).get("scaleTargetRef") or {}
        self._autoscaled[_place(body)] = (str(target.get("kind")), str(target.get("name")))

    def drop_autoscaler(self, body: Mapping[str, Any]) -> None:
        self._autoscaled.pop(_place(body), None)

    def autoscaled(self, namespace: str) -> frozenset[tuple[str, str]]:
        """Kind and name of each workload there that an autoscaler looks after."""
        return frozenset(target for (where, _), target in self._autoscaled.items() if where == namespace)


def _place(body: Mapping[str, Any]) -> tuple[str, str]:
    return body["metadata"]["namespace"], body["metadata"]["name"]


def _version(workload: Workload) -> int:
    """Resource versions are opaque by contract, and integers that only grow in every API server there is."""
    return int(workload.version) if workload.version.isdecimal() else 0
