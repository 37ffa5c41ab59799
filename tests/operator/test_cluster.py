"""How the API server is reached."""

from __future__ import annotations

import pytest

from tests.controlplane import ControlPlane
from tests.operator.crashes import connected

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


@pytest.mark.usefixtures("crd")
async def test_a_proxy_that_is_there_for_openrouter_is_not_asked_for_the_api_server(
    control_plane: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    async with connected(control_plane) as cluster:
        assert await cluster.is_installed()
