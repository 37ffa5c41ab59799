"""A throwaway Kubernetes control plane: the real API server, etcd and controller manager, for tests and the demo.

    server        start, use and stop it
    ├─ binaries      find the programs
    │  └─ build         or build them, once
    ├─ commands      how each program is set up
    ├─ certificates  a certificate authority that lives as long as the control plane
    ├─ kubeconfig    how clients reach it
    ├─ audit         what it was asked
    ├─ processes     children that never outlive us
    └─ workdir       a folder that does not either
    errors        what can go wrong

``python -m tests.controlplane`` runs one in the foreground, ``python -m tests.controlplane build`` only builds.
"""

from .audit import AuditLog
from .binaries import Binaries, NodeBinaries, find_or_build, find_or_build_node, helm, helm_3, kubectl, node_is_built
from .errors import ControlPlaneFailed, ControlPlaneUnavailable, KubectlFailed
from .server import ControlPlane

__all__ = [
    "AuditLog",
    "ControlPlane",
    "ControlPlaneFailed",
    "ControlPlaneUnavailable",
    "KubectlFailed",
    "Binaries",
    "NodeBinaries",
    "find_or_build",
    "find_or_build_node",
    "helm",
    "helm_3",
    "kubectl",
    "node_is_built",
]
