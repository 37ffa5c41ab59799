"""Reads the parts of API objects other than the scale control: annotations, status and managed fields; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from openrouter_guard.rules.codec import parse_iso

from .kinds import Replicas, ScaleControl, Value

__all__ = [
    "FIELD_MANAGER",
    "empties",
    "has_ready_pods",
    "is_applied",
    "is_by_hand",
    "is_kept",
    "is_untried",
    "last_writer",
    "owns",
    "scales",
    "shaped",
    "truth",
    "word",
    "writes_manifests",
]

FIELD_MANAGER = "openrouter-guard"
"""Our name in the API server's field management."""
_TRUE = frozenset({"true", "t", "yes", "y", "on", "1"})
_FALSE = frozenset({"false", "f", "no", "n", "off", "0"})
_WORD_SHOWN = 40
_DOWN = ("Available", "False")
_FIRST_LOOK_S = 5.0
"""By this time a controller has seen new objects, and no relevant state has come and gone."""


def shaped(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """The object without a spec or a status that is no object: a custom kind may let anything in."""
    odd = [name for name in ("spec", "status") if not isinstance(body.get(name) or {}, Mapping)]
    return {name: value for name, value in body.items() if name not in odd} if odd else body


def truth(text: str) -> str:
    """Return ``"true"`` or ``"false"`` for the spellings of YAML, Go and Helm; any other text, shortened."""
    said = text.strip().lower()
    if said in _TRUE:
        return "true"
    return "false" if said in _FALSE else word(text)


def word(text: str) -> str:
    """Return it as written, shortened."""
    return text.strip()[:_WORD_SHOWN] or "empty"


def has_ready_pods(body: Mapping[str, Any]) -> bool:
    """Return whether its controller reports a ready pod."""
    status = body.get("status") or {}
    return any(bool(status.get(name)) for name in ("readyReplicas", "availableReplicas"))


def is_untried(body: Mapping[str, Any]) -> bool:
    """Return whether its controller has not seen it yet, or reports that it was never available."""
    status = body.get("status") or {}
    if not status.get("observedGeneration"):
        return True
    made_at = parse_iso(str(body["metadata"].get("creationTimestamp")))
    return 0.0 < _unavailable_since(status.get("conditions")) <= made_at + _FIRST_LOOK_S


def _unavailable_since(conditions: Any) -> float:
    """0 if nothing is reported; in a custom kind they may be anything."""
    found = (each for each in conditions if isinstance(each, Mapping)) if isinstance(conditions, list) else ()
    since = (each.get("lastTransitionTime") for each in found if (each.get("type"), each.get("status")) == _DOWN)
    return parse_iso(str(next(since, "")))


def is_kept(control: ScaleControl, value: Value, ours: Iterable[Mapping[str, Any]]) -> bool:
    """Return whether the same 0 was written through the ``scale`` subresource.

    This is its only trace: our entry for the replicas has lost its time, or is gone, and the one for our annotation
    is still there.
    """
    if not isinstance(control, Replicas) or control.pods(value) > 0 or not ours:
        return False
    return not any(entry.get("time") and owns(entry, control.path) for entry in ours)


def last_writer(metadata: Mapping[str, Any], paths: Sequence[Sequence[str]]) -> Mapping[str, Any]:
    """Return the entry of the other manager that wrote one of the fields last; empty if unknown."""
    entries = (entry for entry in metadata.get("managedFields") or () if entry.get("manager") not in _NO_OTHERS)
    owners = [entry for entry in entries if any(owns(entry, path) for path in paths)]
    return max(owners, key=lambda entry: (str(entry.get("time")), str(entry.get("manager"))), default={})


def is_applied(metadata: Mapping[str, Any]) -> bool:
    """Return whether another tool applies the object server-side: the API server would refuse it our fields."""
    return any(
        entry.get("operation") == "Apply" and entry.get("manager") != FIELD_MANAGER and not entry.get("subresource")
        for entry in metadata.get("managedFields") or ()
    )


def writes_manifests(entry: Mapping[str, Any], control: ScaleControl) -> bool:
    """Return whether the writer of the field writes it as part of a whole manifest, as Helm does, and not alone.

    Such a tool owns more of the spec than this field if it applies server-side; else it owns fields that only the
    creator writes, or the annotation of ``kubectl apply``.
    """
    spec = ((entry.get("fieldsV1") or {}).get("f:spec") or {}).keys()
    if entry.get("operation") == "Apply":
        return bool(spec - {f"f:{path[1]}" for path in control.paths if path[0] == "spec"})
    return entry.get("manager") != _EDITOR and any(owns(entry, path) for path in _OF_CREATORS)


def is_by_hand(entry: Mapping[str, Any]) -> bool:
    """Return whether the writer of the replicas is surely no autoscaler.

    Autoscalers write through the ``scale`` subresource, under names that differ between distributions. So do
    ``kubectl scale`` and k9s, under their own names.
    """
    return bool(entry) and (entry.get("subresource") != "scale" or str(entry.get("manager")).startswith(_BY_PEOPLE))


_NO_OTHERS = frozenset({FIELD_MANAGER, "ancient-changes", "before-first-apply"})
"""The API server uses the last two for the entries that it merges, if there are many, and for those that it lacks.

Ours may be among them.
"""
_EDITOR = "kubectl-edit"
"""With ``--save-config`` it writes the annotation of ``kubectl apply``, and is a person all the same."""
_BY_PEOPLE = ("kubectl", "k9s")
_POD = ("spec", "template", "spec", "restartPolicy")
_OF_CREATORS = (
    ("spec", "selector"),
    _POD,
    ("spec", "jobTemplate", *_POD),
    ("metadata", "annotations", "kubectl.kubernetes.io/last-applied-configuration"),
)
"""Fields that are not changed by hand: all but the last are written once."""


def owns(entry: Mapping[str, Any], path: Iterable[str]) -> bool:
    found: Any = entry.get("fieldsV1") or {}
    for name in path:
        found = found.get(f"f:{name}")
        if found is None:
            return False
    return True


def scales(body: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return the target of a ScaledObject, as an autoscaler names it."""
    target = (body.get("spec") or {}).get("scaleTargetRef")
    if not isinstance(target, Mapping):
        return None
    return str(target.get("kind") or "Deployment"), str(target.get("name"))


def empties(body: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return the workload that an Argo Rollout replaces and scales to 0."""
    found = (body.get("spec") or {}).get("workloadRef")
    if not isinstance(found, Mapping) or str(found.get("scaleDown") or "never") == "never":
        return None
    return str(found.get("kind") or "Deployment"), str(found.get("name"))
