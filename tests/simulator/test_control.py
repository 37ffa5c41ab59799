"""Control and inspect the simulated OpenRouter over HTTP and from Python, while it runs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

import openrouter_guard.testing
from openrouter_guard.errors import ConfigurationError
from openrouter_guard.testing import MODES, SimulatedOpenRouter, running
from tests.waiting import until


@pytest.fixture
def control(base_url: str) -> Iterator[httpx.Client]:
    origin = base_url.removesuffix("/api/v1")
    with httpx.Client(base_url=origin, headers={"Authorization": "Bearer sk-or-any"}) as client:
        yield client


def test_the_public_names() -> None:
    assert openrouter_guard.testing.__all__ == ["MODES", "Mode", "SimulatedOpenRouter", "run", "running"]


def test_a_mode_is_switched_and_shown(simulated: SimulatedOpenRouter, control: httpx.Client) -> None:
    answer = control.put("/simulate", json={"mode": "outage", "paths": ["/key"], "retry_after_s": 5})
    assert answer.status_code == 200
    shown = control.get("/simulate").json()
    assert {name: shown[name] for name in answer.json()} == answer.json()
    assert (shown["mode"], shown["paths"], shown["retry_after_s"]) == ("outage", ["/key"], 5)
    assert shown["modes"].keys() == MODES.keys()
    assert simulated.mode == "outage"
    assert control.get("/api/v1/key").headers["retry-after"] == "5"
    assert control.get("/api/v1/models").status_code == 200


def test_the_older_path_of_the_key_is_struck_with_it(simulated: SimulatedOpenRouter, control: httpx.Client) -> None:
    simulated.switch("outage", paths=["/auth/key"])
    assert control.get("/api/v1/auth/key").status_code == control.get("/api/v1/key").status_code == 503


def test_each_switch_begins_anew(simulated: SimulatedOpenRouter, control: httpx.Client) -> None:
    simulated.switch("outage", paths=["/key"], delay_s=60)
    simulated.switch("outage")
    assert control.get("/api/v1/models").status_code == 503


def test_requests_are_counted_by_path(simulated: SimulatedOpenRouter, control: httpx.Client) -> None:
    before = dict(simulated.requests)
    simulated.switch("outage")
    for path in ("/key", "/key", "/auth/key", "/elsewhere"):
        control.get(f"/api/v1{path}")
    control.post("/api/v1/chat/completions")
    counted = control.get("/simulate").json()["requests"]
    assert counted == simulated.requests
    assert {path: count - before.get(path, 0) for path, count in counted.items() if count != before.get(path)} == {
        "/key": 2,
        "/auth/key": 1,
        "/elsewhere": 1,
        "/chat/completions": 1,
    }


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_what_is_not_simulated_says_so(simulated: SimulatedOpenRouter, control: httpx.Client, method: str) -> None:
    answer = control.request(method, "/api/v1/elsewhere")
    assert answer.status_code == 404
    assert answer.json()["error"]["message"] == f"The simulated OpenRouter has no {method} /elsewhere"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param(
            '{"mode": "sunny"}', "there is no mode 'sunny': choose one of healthy, outage", id="no such mode"
        ),
        pytest.param('{"mode": 7}', "mode: Input should be a valid string", id="not a name"),
        pytest.param("{}", "mode: Field required", id="nothing to switch to"),
        pytest.param('{"mode"', "the body: Invalid JSON", id="not JSON"),
        pytest.param("", "the body: Invalid JSON", id="empty"),
        pytest.param("[]", "the body: Input should be an object", id="a list"),
        pytest.param('{"mode": "outage", "moed": 1}', "moed: Extra inputs are not permitted", id="a typing error"),
        pytest.param(
            '{"mode": "outage", "paths": ["/kee"]}', "paths is ['/kee']: name one or more", id="no such path"
        ),
        pytest.param('{"mode": "outage", "paths": []}', "paths is []: name one or more of /key", id="no path"),
        pytest.param('{"mode": "slow", "delay_s": -1}', "delay_s is -1.0: write seconds from 0", id="in the past"),
        pytest.param('{"mode": "slow", "delay_s": NaN}', "delay_s", id="not a number"),
        pytest.param('{"mode": "slow", "delay_s": 1e9}', "delay_s is 1000000000.0", id="for years"),
        pytest.param('{"mode": "dropped", "retry_after_s": 5}', "have no place for it", id="cannot be announced"),
    ],
)
def test_a_switch_that_makes_no_sense_changes_nothing(
    simulated: SimulatedOpenRouter, control: httpx.Client, content: str, words: str
) -> None:
    simulated.switch("overloaded")
    answer = control.put("/simulate", content=content)
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    problem: dict[str, Any] = answer.json()
    assert words in problem["detail"]
    assert (problem["status"], problem["modes"]) == (422, list(MODES))
    assert simulated.mode == "overloaded"


def test_an_unknown_mode_is_an_error_in_python_too() -> None:
    with pytest.raises(ConfigurationError, match="there is no mode 'sunny': choose one of healthy, outage"):
        SimulatedOpenRouter().switch("sunny")


def test_a_server_ends_with_its_block() -> None:
    before = threading.active_count()
    with running(SimulatedOpenRouter()) as base_url:
        assert httpx.get(f"{base_url}/key").status_code == 401
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{base_url}/key")
    assert threading.active_count() == before


def test_a_server_ends_although_a_request_hangs() -> None:
    simulated = SimulatedOpenRouter()
    simulated.switch("timeout")
    errors: list[httpx.HTTPError] = []

    def ask() -> None:
        try:
            httpx.get(f"{base_url}/key", headers={"Authorization": "Bearer x"}, timeout=60)
        except httpx.HTTPError as error:
            errors.append(error)

    with running(simulated) as base_url:
        client = threading.Thread(target=ask)
        client.start()
        until(lambda: simulated.requests)
    client.join(10)
    assert isinstance(errors[0], httpx.RemoteProtocolError | httpx.ReadError)


def test_a_server_ends_when_its_block_fails() -> None:
    with pytest.raises(ZeroDivisionError), running(SimulatedOpenRouter()) as base_url:
        raise ZeroDivisionError
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{base_url}/key")


def test_dropped_connections_are_not_logged(
    simulated: SimulatedOpenRouter, control: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    simulated.switch("dropped")
    with pytest.raises(httpx.RemoteProtocolError):
        control.get("/api/v1/key")
    assert not [record for record in caplog.records if record.name.startswith("uvicorn")]


def test_a_port_that_is_taken_is_said_so(base_url: str) -> None:
    port = httpx.URL(base_url).port
    assert port
    with (
        pytest.raises(ConfigurationError, match=f"cannot listen on 127.0.0.1:{port}"),
        running(SimulatedOpenRouter(), port=port),
    ):
        pass
