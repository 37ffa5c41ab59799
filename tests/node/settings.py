"""The settings of each program of the node. Relative paths start at the control plane's folder."""

from __future__ import annotations

import json
from pathlib import Path

from tests.controlplane.commands import AUTHORITY

from .needs import CNI_PLUGINS

__all__ = [
    "ADDRESS",
    "BRIDGE",
    "NAME",
    "PODS",
    "cni",
    "containerd",
    "coredns",
    "kube_proxy",
    "kube_scheduler",
    "kubelet",
    "kubelet_config",
]

NAME = "node"
BRIDGE = "pods0"
ADDRESS = "10.244.0.1"
"""The bridge's: of the node, of the API server, and of DNS."""
PODS = "10.244.0.0/24"


def containerd(workdir: Path, pause_image: str) -> str:
    """Return the runtime's configuration.

    ``restrict_oom_score_adj``: in a container of ours, nobody may lower that score.
    """
    return f"""\
version = 2
root = "{workdir}/containerd"
state = "{workdir}/containerd-state"
[grpc]
  address = "{workdir}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause_image}"
  disable_apparmor = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{CNI_PLUGINS}"
    conf_dir = "{workdir}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
"""


def cni(workdir: Path) -> str:
    """Return how pods get their addresses: a bridge, as on a node of kubenet."""
    ipam = {
        "type": "host-local",
        "dataDir": f"{workdir}/ipam",
        "ranges": [[{"subnet": PODS}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    bridge = {
        "type": "bridge",
        "bridge": BRIDGE,
        "isGateway": True,
        "ipMasq": True,
        "hairpinMode": True,
        "ipam": ipam,
    }
    return json.dumps({"cniVersion": "1.0.0", "name": "pods", "plugins": [bridge]})


def kubelet_config(workdir: Path) -> str:
    """Return the kubelet's configuration, as JSON.

    ``failCgroupV1``: many machines of continuous integration still have the old control groups. Nothing is evicted
    and no image is removed, however full the disk is.
    """
    return json.dumps(
        {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "failCgroupV1": False,
            "cgroupDriver": "cgroupfs",
            "containerRuntimeEndpoint": f"unix://{workdir}/containerd.sock",
            "address": ADDRESS,
            "readOnlyPort": 0,
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": f"{workdir}/{AUTHORITY}"},
            },
            "authorization": {"mode": "Webhook"},
            "clusterDomain": "cluster.local",
            "clusterDNS": [ADDRESS],
            "resolvConf": f"{workdir}/resolv.conf",
            "enforceNodeAllocatable": ["pods"],
            "evictionHard": {"memory.available": "50Mi", "nodefs.available": "0%", "imagefs.available": "0%"},
            "imageGCHighThresholdPercent": 100,
            "failSwapOn": False,
            "podLogsDir": f"{workdir}/pod-logs",
            "volumePluginDir": f"{workdir}/volume-plugins",
        }
    )


def kubelet(workdir: Path, kubeconfig: Path) -> list[str]:
    return [
        "--config=kubelet.json",
        f"--kubeconfig={kubeconfig}",
        f"--hostname-override={NAME}",
        f"--node-ip={ADDRESS}",
        f"--root-dir={workdir}/kubelet",
        f"--cert-dir={workdir}/kubelet-certificates",
    ]


def kube_scheduler(kubeconfig: Path) -> list[str]:
    return [
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        "--leader-elect=false",
    ]


def kube_proxy(kubeconfig: Path) -> list[str]:
    return [
        f"--kubeconfig={kubeconfig}",
        "--proxy-mode=nftables",
        f"--hostname-override={NAME}",
        f"--cluster-cidr={PODS}",
        "--conntrack-max-per-core=0",
        "--conntrack-min=0",
    ]


def coredns(kubeconfig: Path) -> str:
    return f"""\
.:53 {{
    bind {ADDRESS}
    errors
    cache 5
    kubernetes cluster.local in-addr.arpa {{
        kubeconfig {kubeconfig}
        ttl 5
    }}
}}
"""
