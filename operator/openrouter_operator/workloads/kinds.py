"""The kinds of workloads that can be paused, as data: the API path of each, and the control that pauses it.

kind                     scale control                                          in steps
Deployment               spec.replicas                                          yes
StatefulSet              spec.replicas                                          yes
ReplicaSet               spec.replicas                                          yes
ReplicationController    spec.replicas                                          yes
CronJob, Job             spec.suspend                                           all or nothing
ScaledObject             annotation autoscaling.keda.sh/paused-replicas         yes
ScaledJob                annotation autoscaling.keda.sh/paused                  all or nothing
any other                specReplicasPath of its CRD                            yes
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import reduce
from typing import Any, Protocol, TypeAlias

__all__ = ["BY_NAME", "DEFAULT", "PASSING_ON", "Kind", "ScaleControl", "Trait", "UnusableKind", "Value", "from_crd"]

Value: TypeAlias = int | str | None
"""The value of a control; None if absent. (A truth value is an int.)"""
Body: TypeAlias = Mapping[str, Any]


class UnusableKind(ValueError):
    """The CRD of a kind does not define how it is scaled."""


# -- scale controls --------------------------------------------------------------------------------------------------


class ScaleControl(Protocol):
    """The field in which a kind keeps how much of it should run.

    Attributes:
        held: Value that stops new work and leaves the running pods; None if there is none.
        moves_pods: Whether it takes a number of pods, and not only all or nothing.
        paths: The fields that it writes.
    """

    def __hash__(self) -> int: ...

    @property
    def held(self) -> Value: ...

    @property
    def moves_pods(self) -> bool: ...

    @property
    def paths(self) -> Sequence[tuple[str, ...]]: ...

    def read(self, body: Body) -> Value:
        """Return the present value."""

    def write(self, value: Value) -> dict[str, Any]:
        """Return the merge patch that writes it."""

    def at(self, pods: int) -> Value:
        """Return the value for this many pods."""

    def pods(self, value: Value) -> int:
        """Return the number of pods for a value; 1 if only the kind's own controller knows it."""

    def is_sound(self, value: Value) -> bool:
        """Return whether the value is valid here."""

    def is_pause(self, value: Value) -> bool:
        """Return whether it is a pause already, with nothing left to pause."""


@dataclass(frozen=True, slots=True)
class Replicas:
    """A number of pods."""

    path: tuple[str, ...] = ("spec", "replicas")
    held: Value = field(default=None, init=False)
    moves_pods: bool = field(default=True, init=False)

    @property
    def paths(self) -> Sequence[tuple[str, ...]]:
        return (self.path,)

    def read(self, body: Body) -> Value:
        found: Any = body
        for name in self.path:
            found = found.get(name) if isinstance(found, Mapping) else None
        return found if self.is_sound(found) else None

    def write(self, value: Value) -> dict[str, Any]:
        return _nested(self.path, value)

    def at(self, pods: int) -> Value:
        return pods

    def pods(self, value: Value) -> int:
        return value if isinstance(value, int) else 1  # absent is 1, as for Kubernetes

    def is_sound(self, value: Value) -> bool:
        return value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 0)

    def is_pause(self, value: Value) -> bool:
        return self.pods(value) == 0


@dataclass(frozen=True, slots=True)
class Suspend:
    """A truth value that stops all of it."""

    held: Value = field(default=True, init=False)
    moves_pods: bool = field(default=False, init=False)
    paths: Sequence[tuple[str, ...]] = field(default=(("spec", "suspend"),), init=False)

    def read(self, body: Body) -> Value:
        found: Value = (body.get("spec") or {}).get("suspend")
        return found

    def write(self, value: Value) -> dict[str, Any]:
        return {"spec": {"suspend": value}}

    def at(self, pods: int) -> Value:
        return pods == 0

    def pods(self, value: Value) -> int:
        return 0 if value else 1

    def is_sound(self, value: Value) -> bool:
        return value is None or isinstance(value, bool)

    def is_pause(self, value: Value) -> bool:
        return bool(value)


_KEDA_PAUSED = "autoscaling.keda.sh/paused"
_KEDA_REPLICAS = "autoscaling.keda.sh/paused-replicas"
_GO_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})
"""The texts that Go's ``strconv.ParseBool`` reads as false.

KEDA treats every other text, even an invalid one, as a pause.
"""


@dataclass(frozen=True, slots=True)
class KedaReplicas:
    """KEDA's pause annotations for permanent workloads: a number of pods, or the present number.

    A value is that number as text, ``held``, or the owner's own text for "not paused" (as in ``paused=False``), which
    is restored unchanged.

    Source: https://keda.sh/docs/latest/concepts/scaling-deployments/#pausing-autoscaling
    """

    held: Value = field(default="held", init=False)
    moves_pods: bool = field(default=True, init=False)
    paths: Sequence[tuple[str, ...]] = field(
        default=(("metadata", "annotations", _KEDA_REPLICAS), ("metadata", "annotations", _KEDA_PAUSED)), init=False
    )

    def read(self, body: Body) -> Value:
        found = body["metadata"].get("annotations") or {}
        if _KEDA_REPLICAS in found:
            return str(found[_KEDA_REPLICAS])
        if _KEDA_PAUSED not in found:
            return None
        word = str(found[_KEDA_PAUSED])
        return f"{_OWNERS_WORD}{word}" if word in _GO_FALSE else self.held

    def write(self, value: Value) -> dict[str, Any]:
        number, paused = value, None
        if value == self.held:
            number, paused = None, "true"
        elif _is_owners_word(value):
            number, paused = None, str(value).removeprefix(_OWNERS_WORD)
        return {"metadata": {"annotations": {_KEDA_REPLICAS: number, _KEDA_PAUSED: paused}}}

    def at(self, pods: int) -> Value:
        return str(pods)

    def pods(self, value: Value) -> int:
        if not self.is_pause(value):
            return 1
        return int(str(value)) if str(value).isdecimal() else 0

    def is_sound(self, value: Value) -> bool:
        return not self.is_pause(value) or value == self.held or (isinstance(value, str) and value.isdecimal())

    def is_pause(self, value: Value) -> bool:
        return value is not None and not _is_owners_word(value)


_OWNERS_WORD = "paused="


def _is_owners_word(value: Value) -> bool:
    return isinstance(value, str) and value.removeprefix(_OWNERS_WORD) in _GO_FALSE and value.startswith(_OWNERS_WORD)


@dataclass(frozen=True, slots=True)
class KedaJobs:
    """KEDA's pause annotation for kinds that start jobs: no new ones. The value is the annotation's text."""

    held: Value = field(default="true", init=False)
    moves_pods: bool = field(default=False, init=False)
    paths: Sequence[tuple[str, ...]] = field(default=(("metadata", "annotations", _KEDA_PAUSED),), init=False)

    def read(self, body: Body) -> Value:
        found = (body["metadata"].get("annotations") or {}).get(_KEDA_PAUSED)
        return None if found is None else str(found)

    def write(self, value: Value) -> dict[str, Any]:
        return {"metadata": {"annotations": {_KEDA_PAUSED: value}}}

    def at(self, pods: int) -> Value:
        return "true" if pods == 0 else None

    def pods(self, value: Value) -> int:
        return 0 if self.is_pause(value) else 1

    def is_sound(self, value: Value) -> bool:
        return value is None or isinstance(value, str)

    def is_pause(self, value: Value) -> bool:
        return value is not None and value not in _GO_FALSE


def _nested(path: Iterable[str], value: Value) -> dict[str, Any]:
    return reduce(lambda inner, name: {name: inner}, reversed(tuple(path)), value)  # type: ignore[arg-type]


# -- traits of single objects ------------------------------------------------------------------------------


class Trait(StrEnum):
    """Traits that may be a reason to leave a workload alone."""

    QUEUED = "queued"
    """Kueue decides when it runs."""
    FINISHED = "finished"
    """A Job that has finished."""
    ACTIVE = "active"
    """A Job with pods, which suspending it kills."""
    LOSES_VOLUMES = "loses volumes"
    """A StatefulSet whose volumes are deleted when it is scaled down."""
    FROZEN = "frozen"
    """A Rollout that its owner has paused: it ignores its replicas."""
    ROLLING = "rolling"
    """Pods of two revisions run.

    At 0 replicas the rollout would be over, and only the new revision would come back.
    """
    HALF_ROLLED = "half rolled"
    """The same, held half way by its owner, in a way that fewer replicas lose too."""
    UNSEEN = "unseen"
    """Its controller has not seen the newest spec, which may begin a rollout."""


def _of_deployment(body: Body) -> Iterable[Trait]:
    yield from _if_unseen(body)
    status = body.get("status") or {}
    if _count(status, "replicas") > _count(status, "updatedReplicas"):
        # Fewer replicas are redistributed between the revisions; only automatic rollouts recover from that.
        yield Trait.HALF_ROLLED if (body.get("spec") or {}).get("paused") else Trait.ROLLING


def _if_unseen(body: Body) -> Iterable[Trait]:
    """For workloads that have pods and should have some: otherwise there is no rollout to lose."""
    spec, status = body.get("spec") or {}, body.get("status") or {}
    has_pods = _count(status, "replicas") > 0 and spec.get("replicas") != 0
    if has_pods and _count(body["metadata"], "generation") > _count(status, "observedGeneration"):
        yield Trait.UNSEEN


def _of_stateful_set(body: Body) -> Iterable[Trait]:
    spec, status = body.get("spec") or {}, body.get("status") or {}
    policy = spec.get("persistentVolumeClaimRetentionPolicy") or {}
    if policy.get("whenScaled") == "Delete":
        yield Trait.LOSES_VOLUMES
    yield from _if_unseen(body)
    is_even = status.get("currentRevision") == status.get("updateRevision")
    if is_even or _count(status, "replicas") <= _count(status, "updatedReplicas"):
        return
    # New pods have the new revision, except for the ordinals below a partition.
    strategy = (spec.get("updateStrategy") or {}).get("type")
    yield Trait.HALF_ROLLED if strategy == "OnDelete" else Trait.ROLLING


def _count(status: Body, name: str) -> int:
    found = status.get(name)
    return found if isinstance(found, int) else 0


def _of_job(body: Body) -> Iterable[Trait]:
    status = body.get("status") or {}
    ends = {each["type"] for each in status.get("conditions") or () if each["status"] == "True"}
    if ends & {"Complete", "Failed", "SuccessCriteriaMet", "FailureTarget"}:
        return [Trait.FINISHED]
    return [Trait.ACTIVE] if status.get("active") else []


def _of_rollout(body: Body) -> Iterable[Trait]:
    if (body.get("spec") or {}).get("paused"):
        yield Trait.FROZEN
    status = body.get("status") or {}
    stable, current = status.get("stableRS"), status.get("currentPodHash")
    if stable and current and stable != current and _count(status, "replicas"):
        yield Trait.HALF_ROLLED


def _of_any(_body: Body) -> Iterable[Trait]:
    return []


_QUEUE = "kueue.x-k8s.io/queue-name"


# -- kinds ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of workload.

    Attributes:
        name: As ``kind`` in YAML.
        plural: As in the API server's paths.
    """

    group: str
    version: str
    plural: str
    name: str
    control: ScaleControl
    own_traits: Callable[[Body], Iterable[Trait]] = _of_any

    @property
    def path(self) -> tuple[str, str, str]:
        """Group, version and plural."""
        return self.group, self.version, self.plural

    @property
    def has_crd(self) -> bool:
        """Whether it is not Kubernetes' own, and so may come and go."""
        return "." in self.group

    def traits(self, body: Body) -> frozenset[Trait]:
        queued = _QUEUE in (body["metadata"].get("labels") or {})
        return frozenset(self.own_traits(body)) | ({Trait.QUEUED} if queued else set())

    def __str__(self) -> str:
        return self.name


DEPLOYMENT = Kind("apps", "v1", "deployments", "Deployment", Replicas(), _of_deployment)
SCALED_OBJECT = Kind("keda.sh", "v1alpha1", "scaledobjects", "ScaledObject", KedaReplicas())

BY_NAME: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        DEPLOYMENT,
        Kind("apps", "v1", "statefulsets", "StatefulSet", Replicas(), _of_stateful_set),
        Kind("apps", "v1", "replicasets", "ReplicaSet", Replicas()),
        Kind("", "v1", "replicationcontrollers", "ReplicationController", Replicas()),
        Kind("batch", "v1", "cronjobs", "CronJob", Suspend()),
        Kind("batch", "v1", "jobs", "Job", Suspend(), _of_job),
        SCALED_OBJECT,
        Kind("keda.sh", "v1alpha1", "scaledjobs", "ScaledJob", KedaJobs()),
    )
}
"""Kinds known without their CRD."""
PASSING_ON = frozenset({"Deployment", "Rollout"})
"""Kinds that pass their annotations on to their ReplicaSets."""

DEFAULT = ("Deployment", "StatefulSet", "CronJob", "Job")
"""Kinds handled by default."""

_OWN_TRAITS = {("argoproj.io", "Rollout"): _of_rollout}


def from_crd(crd: Body) -> Kind:
    """Return the kind of a CustomResourceDefinition with a ``scale`` subresource.

    Raises:
        UnusableKind: If it has none, or its path of replicas is unusable.
    """
    spec, name = crd["spec"], crd["spec"]["names"]["kind"]
    able = [v for v in spec["versions"] if v.get("served") and (v.get("subresources") or {}).get("scale")]
    if not able or spec["scope"] != "Namespaced":
        raise UnusableKind(f"{name}.{spec['group']} has no scale subresource, so it cannot be paused")
    version = next((v for v in able if v.get("storage")), able[0])
    path = version["subresources"]["scale"]["specReplicasPath"]
    names = tuple(path.strip(".").split("."))
    if names[0] != "spec" or "[" in path:
        raise UnusableKind(f"{name}.{spec['group']} keeps its replicas at {path}, which cannot be used")
    own_traits = _OWN_TRAITS.get((spec["group"], name), _of_any)
    return Kind(spec["group"], version["name"], spec["names"]["plural"], name, Replicas(names), own_traits)
