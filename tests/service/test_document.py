"""The OpenAPI document for generators of clients, and the page that shows it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from openrouter_guard.api import create_app
from openrouter_guard.settings import Settings
from tests.service.apps import FakeUpstream, running

METHODS = {"get", "post", "delete"}
PROBLEM = {"$ref": "#/components/schemas/Problem"}


@pytest.fixture
def document(settings: Settings) -> dict[str, Any]:
    return create_app(settings).openapi()


def operations(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for path in document["paths"].values():
        yield from (operation for method, operation in path.items() if method in METHODS)


def test_an_operation_has_a_short_name_of_its_own(document: dict[str, Any]) -> None:
    names = [operation["operationId"] for operation in operations(document)]
    assert sorted(names) == sorted(set(names))
    assert {"status", "metrics", "report", "override", "end_override"} <= set(names)
    assert all(re.fullmatch(r"[a-z_]{1,15}", name) for name in names)


def test_every_error_is_the_one_problem(document: dict[str, Any]) -> None:
    schemas = [
        answer["content"]["application/problem+json"]["schema"]
        for operation in operations(document)
        for code, answer in operation["responses"].items()
        if int(code) >= 400
    ]
    assert len(schemas) > 30
    assert all(schema == PROBLEM for schema in schemas)


def test_every_reference_leads_somewhere_and_no_schema_is_left_over(document: dict[str, Any]) -> None:
    wanted = set(re.findall(r"'\$ref': '#/components/schemas/(\w+)'", str(document)))
    assert wanted == document["components"]["schemas"].keys()


def test_a_day_of_the_metrics_and_what_is_paused_are_described(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    days = schemas["MetricsAnswer"]["properties"]["metrics"]
    assert days["additionalProperties"] == {"$ref": "#/components/schemas/DayMetrics"}
    assert schemas["DayMetrics"]["properties"]["total_calls"]["type"] == "integer"
    assert schemas["ClusterAnswer"]["properties"]["details"]["$ref"] == "#/components/schemas/PausedDetails"
    assert schemas["PausedDetails"]["properties"].keys() == {"resource", "workloads", "paused"}


@pytest.mark.parametrize("path", ["/", "/docs", "/?scope=nosuch"])
async def test_a_page_loads_nothing_from_another_host(settings: Settings, upstream: FakeUpstream, path: str) -> None:
    async with running(settings, upstream) as service:
        answer = await service.get(path)
        sources = [
            *re.findall(r'<script src="([^"]+)"', answer.text),
            *re.findall(r'<link [^>]*href="([^"]+)"', answer.text),
        ]
        loaded = [await service.get(f"/{source}") for source in sources]
    assert sources
    assert {each.status_code for each in loaded} == {200}
    assert not re.search(r"https?:|//", " ".join(sources))
    assert not re.search(r"https?:|[a-z]\.[a-z]|\*", answer.headers["content-security-policy"])
