"""How kopf authenticates to the API server."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import kopf
import pytest

from openrouter_operator.kubernetes.login import login

HOST = "https://10.0.0.1:443"
IN_A_POD = kopf.ConnectionInfo(server="https://kubernetes.default.svc", token="token", ca_path="/ca.crt")


def logged_in(monkeypatch: pytest.MonkeyPatch, found: kopf.ConnectionInfo | None) -> Any:
    monkeypatch.setattr(kopf, "login_with_service_account", lambda **_: found)
    monkeypatch.setattr(kopf, "login_with_kubeconfig", lambda **_: None)
    return login(memo=kopf.Memo(operator=SimpleNamespace(host=HOST, strict_x509=True)), settings=None, logger=None)


def test_it_is_found_without_cluster_dns(monkeypatch: pytest.MonkeyPatch) -> None:
    found = logged_in(monkeypatch, IN_A_POD)
    assert (found.server, found.token, found.ca_path) == (HOST, "token", "/ca.crt")


def test_a_token_is_read_again_before_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    assert logged_in(monkeypatch, IN_A_POD).expiration is not None


def test_where_there_is_no_cluster_nobody_logs_in(monkeypatch: pytest.MonkeyPatch) -> None:
    assert logged_in(monkeypatch, None) is None
