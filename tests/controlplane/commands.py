"""The arguments of each program, and the names of its files, all relative to the control plane's folder."""

from __future__ import annotations

__all__ = [
    "LOOPBACK",
    "SERVICES",
    "API_SERVICE",
    "AUTHORITY",
    "API_CERTIFICATE",
    "API_KEY",
    "TOKEN_KEY",
    "TOKEN_PUBLIC_KEY",
    "CONTROLLER_KUBECONFIG",
    "KUBELET_CLIENT_CERTIFICATE",
    "KUBELET_CLIENT_KEY",
    "AUDIT_LOG",
    "AUDIT_POLICY",
    "AUDIT_POLICY_TEXT",
    "etcd",
    "api_server",
    "controller_manager",
]

LOOPBACK = "127.0.0.1"
SERVICES = "10.0.0.0/16"
API_SERVICE = "10.0.0.1"
"""Where pods reach the API server: the first address of the Services."""
AUTHORITY = "ca.crt"
API_CERTIFICATE = "kube-apiserver.crt"
API_KEY = "kube-apiserver.key"
TOKEN_KEY = "service-account.key"
TOKEN_PUBLIC_KEY = "service-account.pub"
CONTROLLER_KUBECONFIG = "kube-controller-manager.kubeconfig"
KUBELET_CLIENT_CERTIFICATE = "kubelet-client.crt"
KUBELET_CLIENT_KEY = "kubelet-client.key"
AUDIT_LOG = "audit.log"
AUDIT_POLICY = "audit-policy.yaml"

# Every request, once: who did what to which object, and with which result; no bodies.
AUDIT_POLICY_TEXT = """\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived, ResponseStarted]
rules:
- level: None
  nonResourceURLs: ["/readyz*", "/livez*", "/healthz*", "/openapi*", "/version*", "/api", "/apis", "/apis/*"]
- level: Metadata
"""

# Sockets in the folder: no port to lose to somebody else, and nobody else's etcd behind it.
_ETCD_URL = "unix://etcd.sock"
_ETCD_PEER_URL = "unix://etcd-peer.sock"


def etcd() -> list[str]:
    return [
        "--name=tests",
        "--data-dir=etcd",
        f"--listen-client-urls={_ETCD_URL}",
        f"--advertise-client-urls={_ETCD_URL}",
        f"--listen-peer-urls={_ETCD_PEER_URL}",
        f"--initial-advertise-peer-urls={_ETCD_PEER_URL}",
        f"--initial-cluster=tests={_ETCD_PEER_URL}",
        "--unsafe-no-fsync",  # nothing here is meant to outlive the process
        "--log-level=warn",
    ]


def api_server(address: str, port: int) -> list[str]:
    return [
        f"--etcd-servers={_ETCD_URL}",
        f"--bind-address={address}",
        f"--advertise-address={address}",
        f"--secure-port={port}",
        *_for_pods(address),
        f"--tls-cert-file={API_CERTIFICATE}",
        f"--tls-private-key-file={API_KEY}",
        f"--client-ca-file={AUTHORITY}",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-signing-key-file={TOKEN_KEY}",
        f"--service-account-key-file={TOKEN_PUBLIC_KEY}",
        f"--service-cluster-ip-range={SERVICES}",
        f"--audit-policy-file={AUDIT_POLICY}",
        f"--audit-log-path={AUDIT_LOG}",
        "--audit-log-maxsize=1000000",  # MB: one file, never rotated away from under a reader; 0 stands for 100
    ]


def _for_pods(address: str) -> list[str]:
    if address == LOOPBACK:  # there are no pods to reach us through the Service
        return ["--endpoint-reconciler-type=none", "--authorization-mode=RBAC"]
    return [
        "--authorization-mode=Node,RBAC",
        f"--kubelet-client-certificate={KUBELET_CLIENT_CERTIFICATE}",
        f"--kubelet-client-key={KUBELET_CLIENT_KEY}",
        "--kubelet-preferred-address-types=InternalIP",
    ]


def controller_manager() -> list[str]:
    return [
        f"--kubeconfig={CONTROLLER_KUBECONFIG}",
        "--secure-port=0",  # nobody asks it anything: one port less
        "--leader-elect=false",
        "--use-service-account-credentials=true",
        f"--service-account-private-key-file={TOKEN_KEY}",
        f"--root-ca-file={AUTHORITY}",
        # Else its restraint, meant for large clusters, is what a test waits for and a benchmark measures.
        "--kube-api-qps=500",
        "--kube-api-burst=1000",
        "--concurrent-deployment-syncs=20",
        "--concurrent-replicaset-syncs=20",
        "--horizontal-pod-autoscaler-sync-period=1s",
    ]
