"""Valid specs of an ``OpenRouterStatus``, generated from the CRD: every field may be present.

What a schema cannot say, the CRD's rules, is put right afterwards: see :func:`_sound`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

__all__ = ["CLASS", "LABELS", "NAMES", "SCOPE", "specs"]

CRD = Path(__file__).parents[2] / "crds" / "openrouterstatuses.yaml"
CLASS = "states"
SCOPE = "scope-of-the-story"
"""Stands for the scope of the story, whatever that is called."""
NAMES = ("one", "two", "set", "cron", "copy")
LABELS = {"fleet": "workers", "tier": "batch"}
KINDS = ("Deployment", "Deployment", "StatefulSet", "CronJob", "Job", "ReplicaSet")
SOON_S = (0, 1, 2, 5)
_TARGET = "targets.[]"
_WORDS: Mapping[str, Sequence[str]] = {
    "scope": (SCOPE, SCOPE, SCOPE, "elsewhere"),
    "class": (CLASS, CLASS, CLASS, "nobody"),
    "kind": KINDS,
    "name": (*NAMES, "nothing"),
    "key": tuple(LABELS),
    "values": tuple(LABELS.values()),
}
_RARE = {"redis", "suspend", "dryRun", "class", "scope", "exclude", "apiVersion", "override"}


def specs() -> st.SearchStrategy[dict[str, Any]]:
    """Any spec that the API server takes."""
    return _values(_schema(), "spec").map(_sound)


@cache
def _schema() -> Mapping[str, Any]:
    crd = yaml.safe_load(CRD.read_text())
    schema: Mapping[str, Any] = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return schema


def _values(schema: Mapping[str, Any], name: str) -> st.SearchStrategy[Any]:
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    match schema["type"]:
        case "boolean":
            return st.booleans()
        case "integer":
            return _integers(schema)
        case "string":
            return _texts(schema, name)
        case "array":
            is_set = schema.get("x-kubernetes-list-type") == "set"
            most = min(schema.get("maxItems", 3), 3)
            items = _values(schema["items"], name)
            return st.lists(items, min_size=schema.get("minItems", 0), max_size=most, unique=is_set)
        case _:
            return _objects(schema)


def _objects(schema: Mapping[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    if "properties" not in schema:
        return st.dictionaries(st.sampled_from(sorted(LABELS)), st.sampled_from(sorted(LABELS.values())), max_size=2)
    needed = set(schema.get("required", ()))

    @st.composite
    def draw(drawn: st.DrawFn) -> dict[str, Any]:
        found = {}
        for name, inner in schema["properties"].items():
            is_there = name in needed or drawn(st.integers(0, 9)) < (1 if name in _RARE else 5)
            if is_there:
                found[name] = drawn(_values(inner, name))
        return found

    return draw()


def _integers(schema: Mapping[str, Any]) -> st.SearchStrategy[int]:
    """Mostly small, for a story is short; now and then the bounds themselves."""
    least, most = schema.get("minimum", 0), schema.get("maximum", 10)
    soon = [value for value in SOON_S if least <= value <= most] or [least]
    return st.sampled_from([*soon, *soon, *soon, least, most])


def _texts(schema: Mapping[str, Any], name: str) -> st.SearchStrategy[str]:
    if schema.get("format") == "date-time":
        return st.sampled_from([3, 30, 3600]).map(_ahead)
    if name in _WORDS:
        return st.sampled_from(_WORDS[name])
    least, most = schema.get("minLength", 0), min(schema.get("maxLength", 20), 20)
    return st.text("abcdefghij-", min_size=max(least, 1), max_size=most).map(lambda text: f"a{text}"[:most])


def _ahead(seconds: int) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


# -- what the rules of the CRD ask for -----------------------------------------------------------------------------


def _sound(spec: dict[str, Any]) -> dict[str, Any]:
    spec = spec | {"targets": [_one_way(which) for which in spec.get("targets", ())]}
    if "exclude" in spec:
        spec["exclude"] = [_one_way(which) for which in spec["exclude"]]
    if not spec["targets"]:
        spec["targets"] = [{"kind": "Deployment", "selector": {"matchLabels": {"fleet": "workers"}}}]
    if spec.get("mode") == "Observe":
        spec.pop("onManualChange", None)
    if "maxPauseSeconds" in spec:
        spec["minPausedSeconds"] = min(spec.get("minPausedSeconds", 60), spec["maxPauseSeconds"])
    override = spec.get("override")
    if override and override["action"] != "None":
        spec["override"] = {"reason": "a story", "until": _ahead(30)} | override
    return spec


def _one_way(which: dict[str, Any]) -> dict[str, Any]:
    """One by name, by labels or by annotation, and one that is Kubernetes' own without a version."""
    ways = [way for way in ("name", "selector", "annotated") if way in which]
    for way in ways[1:]:
        del which[way]
    which.pop("apiVersion", None)
    if not ways:
        which["selector"] = {}
    if "selector" in which:
        which["selector"] = _some_labels(which["selector"])
    return which


def _some_labels(selector: dict[str, Any]) -> dict[str, Any]:
    found = {name: value for name, value in selector.items() if value}
    for expression in found.get("matchExpressions", ()):
        if expression["operator"] in ("In", "NotIn"):
            expression["values"] = expression.get("values") or ["workers"]
        else:
            expression.pop("values", None)
    return found or {"matchLabels": {"fleet": "workers"}}
