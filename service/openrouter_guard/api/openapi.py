"""Adds to the OpenAPI document the parts that do not follow from the routes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic.json_schema import models_json_schema

from .http.auth import OPEN_PATHS
from .http.problems import documented
from .schemas import activity, overrides, permits, reports, status
from .schemas.status import Problem

__all__ = ["completed"]

_SCHEMES = {
    "writeToken": {"type": "http", "scheme": "bearer", "description": "OPENROUTER_GUARD_WRITE_TOKEN of the service"},
    "reportToken": {
        "type": "http",
        "scheme": "bearer",
        "description": "OPENROUTER_GUARD_REPORT_TOKEN of the service: only for reports, permits and the gate",
    },
    "readToken": {"type": "http", "scheme": "bearer", "description": "OPENROUTER_GUARD_READ_TOKEN of the service"},
}


def completed(document: dict[str, Any], *, needs_token: bool) -> dict[str, Any]:
    """Return the document with the tokens that a client must send; applying it twice changes nothing."""
    document["components"]["schemas"] |= _problems()
    for model, examples in _examples():
        document["components"]["schemas"][model]["examples"] = examples
    shown = _SCHEMES if needs_token else {name: said for name, said in _SCHEMES.items() if name != "readToken"}
    document["components"]["securitySchemes"] = shown
    if needs_token:
        for operation in _readable(document):
            operation.setdefault("security", [{"readToken": []}])
            operation["responses"].update({str(code): said for code, said in documented(401).items()})
    return document


def _problems() -> dict[str, Any]:
    """The models of the errors, which are not the response model of any route."""
    _, found = models_json_schema([(Problem, "serialization")], ref_template="#/components/schemas/{model}")
    schemas: dict[str, Any] = found["$defs"]
    return schemas


def _examples() -> Iterator[tuple[str, list[Any]]]:
    """The examples as written: FastAPI drops null values from them, and so required fields."""
    for module in (status, activity, reports, permits, overrides):
        for name in module.__all__:
            extra = getattr(getattr(module, name), "model_config", {}).get("json_schema_extra", {})
            if "examples" in extra:
                yield name, extra["examples"]


def _readable(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for path, operations in document["paths"].items():
        if path not in OPEN_PATHS:
            yield from operations.values()
