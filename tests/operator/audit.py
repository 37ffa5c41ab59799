"""Assertions about the API server's audit log."""

from __future__ import annotations

from tests.controlplane import ControlPlane

__all__ = ["changes"]


def changes(control_plane: ControlPlane, namespace: str, *, agent: str) -> list[tuple[str, int]]:
    """Name and answer of each change of a Deployment there that this user agent has asked for, oldest first."""
    found = []
    for event in control_plane.audit_events():
        what = event.get("objectRef") or {}
        if (event["verb"], what.get("resource"), what.get("namespace")) == ("patch", "deployments", namespace):
            found += [(what["name"], event["responseStatus"]["code"])] * (event["userAgent"] == agent)
    return found
