"""Stories with an operator that sees the past: its watches lag, and after a restart its lists do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.controlplane import ControlPlane
from tests.operator.proxy import Late, Proxy, SyncProxy
from tests.operator.states import Ground, grounds

__all__ = ["STALE", "UNOBSERVED", "outdated_grounds"]

STALE = Late(2.0)
UNOBSERVED = Late(2.0, is_coalesced=True)


@contextmanager
def outdated_grounds(control_plane: ControlPlane, redis_url: str, folder: Path, late: Late) -> Iterator[Ground]:
    """A ground whose operator reads through a proxy."""
    between = SyncProxy(Proxy(control_plane, folder / "proxy.kubeconfig"))
    with between as proxy, grounds(control_plane, redis_url, folder, KUBECONFIG=str(proxy.kubeconfig)) as ground:
        proxy.rule = lambda seen: late if seen.is_watch else proxy.travel_back(seen)
        ground.remember, ground.faults = between.remember, proxy.faults
        yield ground
