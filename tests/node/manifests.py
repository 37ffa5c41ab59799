"""What a platform team adds to the chart: workers, their OpenRouterStatus, and a simulated OpenRouter."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

from tests.product_image import PRODUCT

__all__ = [
    "GUARD",
    "TEAM",
    "UPSTREAM",
    "VALUES",
    "api_key",
    "eater",
    "namespaces",
    "openrouter_status",
    "simulated_openrouter",
    "workers",
]

Manifest: TypeAlias = dict[str, Any]

GUARD, TEAM, UPSTREAM = "guard", "team-a", "upstream"
VALUES: Manifest = {
    "image": {"repository": PRODUCT.partition(":")[0]},
    "valkey": {"enabled": True},
    "openrouter": {"existingSecret": {"name": "openrouter"}, "baseUrl": f"http://openrouter.{UPSTREAM}/api/v1"},
    "operator": {"replicas": 2},
    "workersConfig": {"enabled": True, "namespaces": [TEAM]},
}
_REDIS = f"redis://openrouter-guard-valkey.{GUARD}:6379/0"
_RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
_CONTAINER = {
    "image": PRODUCT,
    "securityContext": {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    },
}
_POD = {"securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}}


def namespaces() -> list[Manifest]:
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": _RESTRICTED}}
        for name in (GUARD, TEAM, UPSTREAM)
    ]


def api_key() -> Manifest:
    metadata = {"name": "openrouter", "namespace": GUARD}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"api-key": "sk-or-v1-service"}}


def simulated_openrouter() -> list[Manifest]:
    container = {
        **_CONTAINER,
        "name": "openrouter",
        "args": ["simulate", "--host", "0.0.0.0", "--port", "8787"],
        "readinessProbe": {"httpGet": {"path": "/simulate", "port": 8787}, "periodSeconds": 1},
    }
    spec = {"selector": {"app": "openrouter"}, "ports": [{"port": 80, "targetPort": 8787}]}
    return [
        _workload("Deployment", "openrouter", UPSTREAM, 1, {**_POD, "containers": [container]}),
        {"apiVersion": "v1", "kind": "Service", "metadata": _metadata("openrouter", UPSTREAM), "spec": spec},
    ]


def workers() -> list[Manifest]:
    """Six pods, and a Job each minute."""
    code = (Path(__file__).parent / "worker.py").read_text()
    job = {"template": {"spec": {**_worker("--once"), "restartPolicy": "Never"}}}
    cron = {"schedule": "* * * * *", "jobTemplate": {"spec": job}}
    return [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": _metadata("worker", TEAM),
            "data": {"worker.py": code},
        },
        _workload("Deployment", "summaries", TEAM, 3, _worker()),
        _workload("Deployment", "replies", TEAM, 1, _worker()),
        {**_workload("StatefulSet", "shards", TEAM, 2, _worker())},
        {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": _metadata("nightly", TEAM), "spec": cron},
    ]


def openrouter_status() -> Manifest:
    """Quick, so that a test takes a minute; yet no canary comes before the pods of the last try are gone.

    Each test has an outage of its own, and one follows another: that is no flapping here.
    """
    targets = [
        {"kind": kind, "selector": {"matchLabels": {"calls": "openrouter"}}}
        for kind in ("Deployment", "StatefulSet", "CronJob")
    ]
    resume = {"strategy": "Staged", "stepPercent": 50, "intervalSeconds": 2, "flapping": {"withinSeconds": 1}}
    spec = {"targets": targets, "pauseAfterSeconds": 2, "minPausedSeconds": 10, "resume": resume}
    return {
        "apiVersion": "openrouter-guard.io/v1alpha1",
        "kind": "OpenRouterStatus",
        "metadata": {"name": "default", "namespace": TEAM},
        "spec": spec,
    }


def eater() -> Manifest:
    """A worker whose memory ends in the middle of a call."""
    pod = _worker("--eat")
    pod["containers"][0]["resources"] = {"limits": {"memory": "96Mi"}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": _metadata("eater", TEAM),
        "spec": {**pod, "restartPolicy": "Never"},
    }


def _worker(*words: str) -> Manifest:
    container = {
        **_CONTAINER,
        "name": "worker",
        "command": ["python", "/code/worker.py", *words],
        "env": [
            {"name": "REDIS_URL", "value": _REDIS},
            {"name": "OPENROUTER_BASE_URL", "value": f"http://openrouter.{UPSTREAM}/api/v1"},
            {"name": "OPENROUTER_GUARD_WORKER_ID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        ],
        "envFrom": [{"configMapRef": {"name": "openrouter-guard"}}],
        "volumeMounts": [{"name": "code", "mountPath": "/code"}],
    }
    code = {"name": "code", "configMap": {"name": "worker"}}
    return {**_POD, "containers": [container], "volumes": [code], "terminationGracePeriodSeconds": 20}


def _workload(kind: str, name: str, namespace: str, replicas: int, pod: Manifest) -> Manifest:
    spec: Manifest = {
        "replicas": replicas,
        "selector": {"matchLabels": {"app": name}},
        "template": {"metadata": {"labels": {"app": name}}, "spec": pod},
    }
    if kind == "StatefulSet":
        spec |= {"serviceName": name, "podManagementPolicy": "Parallel"}
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": _metadata(name, namespace), "spec": spec}


def _metadata(name: str, namespace: str) -> Manifest:
    return {"name": name, "namespace": namespace, "labels": {"calls": "openrouter"} if namespace == TEAM else {}}
