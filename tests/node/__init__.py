"""A throwaway Kubernetes node beside the control plane: kubelet, containerd, kube-proxy and DNS. Pods really run.

    node          start, use and stop it, from outside
    ├─ needs         what this machine lacks for it
    ├─ image         the product as a container image, without a registry
    └─ inside        what runs in namespaces of its own
       └─ settings      how each program is set up

All of it runs in network, mount and process namespaces of its own: when their first process ends, the kernel ends all
others, and takes their network and their mounts with them.
"""

from .needs import NodeUnavailable
from .node import Node

__all__ = ["Node", "NodeUnavailable"]
