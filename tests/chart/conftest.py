"""Fixtures of the chart's tests."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import controlplane
from tests.chart.helm import CRD, MINIMAL, Helm, Release, installed, wait_for_crd
from tests.controlplane import ControlPlane, ControlPlaneUnavailable

_HERE = Path(__file__).parent


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build Helm now, visibly, if it is missing: it takes minutes, and no test's timeout runs yet."""
    capture = session.config.pluginmanager.getplugin("capturemanager")
    if session.config.option.collectonly or not any(_HERE in item.path.parents for item in session.items):
        return
    with capture.global_and_fixture_disabled(), contextlib.suppress(ControlPlaneUnavailable):
        controlplane.helm()


@pytest.fixture
def release(helm: Helm, control_plane: ControlPlane, namespace: str) -> Iterator[Release]:
    """The chart in a namespace of its own, on the control plane of all tests, whose CRD nobody owns."""
    control_plane.apply(CRD)
    wait_for_crd(control_plane)
    with installed(helm, control_plane, namespace, {**MINIMAL, "crds": {"install": False}}) as release:
        yield release
