"""Precedence between several ``OpenRouterStatus`` of a namespace that name the same workload: the oldest wins."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from . import spec as specs
from .spec import InvalidSpec, Spec

__all__ = ["Claimant", "Precedence"]


@dataclass(frozen=True, slots=True)
class Claimant:
    """The claim of one resource."""

    created: str
    name: str
    uid: str
    spec: Spec


class Precedence:
    """The claims of all resources, as the watch shows them.

    Args:
        can_act: Returns whether a resource is handled and allowed. One that is not carried out keeps no workload from
            a younger one.
    """

    def __init__(self, can_act: Callable[[Mapping[str, Any], Spec], bool] = lambda _resource, _spec: True) -> None:
        self._can_act = can_act
        self._claims: defaultdict[str, dict[str, Claimant]] = defaultdict(dict)

    def put(self, resource: Mapping[str, Any]) -> bool:
        """Note the resource's present claim, if it can be carried out; return whether it changed."""
        metadata, claims = resource["metadata"], self._claims[resource["metadata"]["namespace"]]
        before = claims.pop(metadata["uid"], None)
        try:
            spec = specs.parse(resource.get("spec"))
        except InvalidSpec:
            return before is not None
        if spec.acts and not metadata.get("deletionTimestamp") and self._can_act(resource, spec):
            claims[metadata["uid"]] = Claimant(metadata["creationTimestamp"], metadata["name"], metadata["uid"], spec)
        return claims.get(metadata["uid"]) != before

    def drop(self, resource: Mapping[str, Any]) -> None:
        self._claims[resource["metadata"]["namespace"]].pop(resource["metadata"]["uid"], None)

    def drop_at(self, namespace: str, name: str) -> None:
        """Drop the claim of a resource of that name."""
        claims = self._claims[namespace]
        for claim in [each for each in claims.values() if each.name == name]:
            del claims[claim.uid]

    def places(self) -> set[tuple[str, str]]:
        """Return namespace and name of each resource with a claim."""
        return {(namespace, claim.name) for namespace, found in self._claims.items() for claim in found.values()}

    def scopes(self, namespace: str, besides: str) -> set[str]:
        """Return the scopes that other resources there than *besides* ask for."""
        return {claim.spec.scope for claim in self._claims[namespace].values() if claim.uid != besides}

    def before(self, namespace: str, uid: str) -> list[Claimant]:
        """Return the claims there that are older than that of the resource *uid*, oldest first."""
        claims = sorted(self._claims[namespace].values(), key=_age)
        uids = [claim.uid for claim in claims]
        return claims[: uids.index(uid)] if uid in uids else []


def _age(claim: Claimant) -> tuple[str, str]:
    return claim.created, claim.name
