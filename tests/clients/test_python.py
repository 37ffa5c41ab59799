"""A client of the health service that openapi-python-client generates: it reads every answer, whole."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest

from tests.clients.tour import JSON, Answer

pytestmark = pytest.mark.slow

NAME = "generated_guard_client"
OPEN = {"DayMetrics", "PausedDetails"}
"""What may hold more than is described."""
NEVER = {("events", 200)}
"""A stream, which has no end."""


@pytest.fixture(scope="module")
def generated(document_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    folder = tmp_path_factory.mktemp("python")
    scripts = Path(sys.executable).parent
    config = folder / "config.json"
    # Of itself it makes nothing of a picture.
    config.write_text(json.dumps({"content_type_overrides": {"image/svg+xml": "application/octet-stream"}}))
    command: list[str | Path] = [scripts / "openapi-python-client", "generate", "--path", document_file]
    command += ["--config", config, "--meta", "none", "--output-path", folder / NAME]
    environ = os.environ | {"PATH": f"{scripts}:{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stdout, done.stdout
    sys.path.insert(0, str(folder))
    yield importlib.import_module(NAME)
    sys.path.remove(str(folder))
    for name in [name for name in sys.modules if name.partition(".")[0] == NAME]:
        del sys.modules[name]


def call(generated: ModuleType, document: dict[str, Any], answer: Answer) -> Any:
    """What the generated function of the operation makes of *answer*."""
    (tag,) = {
        operation["tags"][0]
        for path in document["paths"].values()
        for operation in path.values()
        if operation["operationId"] == answer.operation
    }
    function = importlib.import_module(f"{NAME}.api.{tag}.{answer.operation}").sync_detailed
    models = importlib.import_module(f"{NAME}.models")
    report = {"worker_id": "w", "results": [{"success": True}]}
    override = {"kind": "disabled", "who": "ada", "why": "Drill", "until": "2026-03-01T14:00:00+00:00"}
    given: dict[str, Any] = {}
    if answer.operation == "report":
        given["body"] = models.ReportBody.from_dict(report)
    if answer.operation == "take_permit":
        given["body"] = models.PermitBody.from_dict({"worker_id": "w"})
    if answer.operation in ("renew_permit", "end_permit"):
        given["permit"] = "x.y"
    if answer.operation == "end_permit":
        given["body"] = models.ResultBody.from_dict({"success": True})
    if answer.operation == "override":
        given["body"] = models.OverrideBody.from_dict(override)
    if answer.operation == "end_override":
        given["who"] = "ada"
    headers = {"Content-Type": answer.media_type}
    replay = httpx.MockTransport(lambda _: httpx.Response(answer.status, headers=headers, content=answer.content))
    made = importlib.import_module(f"{NAME}.client").Client(
        base_url="http://service", raise_on_unexpected_status=True, httpx_args={"transport": replay}
    )
    with made as client:
        return function(client=client, **given).parsed


def undescribed(value: Any) -> Iterator[str]:
    """The names in an answer that its model does not have."""
    if isinstance(value, list):
        for item in value:
            yield from undescribed(item)
    if not hasattr(value, "__attrs_attrs__"):
        return
    held = getattr(value, "additional_properties", {})
    attributes = {each.name for each in value.__attrs_attrs__ if each.init}
    if attributes and type(value).__name__ not in OPEN:
        yield from held
    for name in attributes:
        yield from undescribed(getattr(value, name))
    for item in held.values():
        yield from undescribed(item)


def test_it_reads_every_answer_of_every_operation(
    generated: ModuleType, document: dict[str, Any], answers: list[Answer]
) -> None:
    for answer in answers:
        parsed = call(generated, document, answer)
        if answer.media_type in JSON:
            assert parsed is not None, answer
            assert type(parsed).__name__ == "Problem" if answer.status >= 400 else parsed
            assert parsed.to_dict() == json.loads(answer.content), answer
            assert list(undescribed(parsed)) == [], answer


def test_every_answer_that_is_described_was_among_them(document: dict[str, Any], answers: list[Answer]) -> None:
    described = {
        (operation["operationId"], int(code))
        for path in document["paths"].values()
        for operation in path.values()
        for code in operation["responses"]
    }
    seen = {(answer.operation, answer.status) for answer in answers}
    assert seen <= described
    assert {each for each in described - seen if each[1] != 304} == NEVER
