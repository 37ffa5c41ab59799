"""What `helm test` runs in the release's own image: can each part reach what it needs?

The environment: ``REDIS_URL`` and the scope as the parts have them, ``STATUS_URL`` of the health service,
``READ_TOKEN`` where reading needs one, ``NAMESPACE`` where a resource is tried; what is not set is not tried.
"""

import json
import os
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

ACCOUNT = Path(os.environ.get("ACCOUNT", "/var/run/secrets/kubernetes.io/serviceaccount"))
RESOURCE = {
    "apiVersion": "openrouter-guard.io/v1alpha1",
    "kind": "OpenRouterStatus",
    "metadata": {"generateName": "helm-test-"},
    "spec": {"mode": "Observe"},
}
TIMEOUT_S = 20
REDIS_ANSWERS = 0, 1
"""Exit statuses of the probe: whatever the breaker's state is, it was read."""


def redis() -> str:
    """A scope that nobody has used is unknown too, so the log has to tell."""
    done = subprocess.run(["openrouter-guard", "probe", "--timeout=10"], capture_output=True, text=True)
    said = (done.stdout + done.stderr).strip()
    if done.returncode in REDIS_ANSWERS or "nobody" in said:
        return said
    raise RuntimeError(f"{said}: is the address in redis.url or the Secret right, and does Redis let us in?")


def health_service() -> str:
    request = urllib.request.Request(os.environ["STATUS_URL"])
    if token := os.environ.get("READ_TOKEN"):
        request.add_header("Authorization", f"Bearer {token}")
    # Whether the certificate is right is for those to say who have its authority.
    anyone = ssl.create_default_context()
    anyone.check_hostname, anyone.verify_mode = False, ssl.CERT_NONE
    with urllib.request.urlopen(request, timeout=TIMEOUT_S, context=anyone) as answer:
        status = json.load(answer)
    return f"status {status.get('status', status)}"


def resource() -> str:
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    host = f"[{host}]" if ":" in host else host
    group = "apis/openrouter-guard.io/v1alpha1"
    url = f"https://{host}:{port}/{group}/namespaces/{os.environ['NAMESPACE']}/openrouterstatuses?dryRun=All"
    headers = {
        "Authorization": f"Bearer {(ACCOUNT / 'token').read_text().strip()}",
        "Content-Type": "application/json",
    }
    request = urllib.request.Request(url, json.dumps(RESOURCE).encode(), headers)
    trusted = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
    with urllib.request.urlopen(request, timeout=TIMEOUT_S, context=trusted) as answer:
        return f"a dry run made {json.load(answer)['metadata']['name']}"


def said_by(error: Exception) -> str:
    return (
        f"{error}: {error.read().decode(errors='replace')}"
        if isinstance(error, urllib.error.HTTPError)
        else str(error)
    )


def main() -> int:
    wanted = {"REDIS_URL": redis, "STATUS_URL": health_service, "NAMESPACE": resource}
    failed = 0
    for variable, check in wanted.items():
        if variable not in os.environ:
            continue
        try:
            print(f"ok: {check.__name__}: {check()}")
        except Exception as error:
            failed += 1
            print(f"FAILED: {check.__name__}: {said_by(error)}")
    return 1 if failed else 0


sys.exit(main())
