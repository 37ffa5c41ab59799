"""``openrouter-guard up``: runs everything at once, to try it out.

Missing parts are embedded or simulated: a Valkey if ``REDIS_URL`` is not set, OpenRouter and a few workers if
``OPENROUTER_API_KEY`` is not set. The operator runs if ``KUBECONFIG`` points to a cluster.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from openrouter_guard.address import parse_address
from openrouter_guard.devtools.embedded import embedded_valkey
from openrouter_guard.settings import DEFAULT_BASE_URL, Settings

from .logs import configure
from .supervisor import Child, supervise

__all__ = ["run"]

SIMULATED_RESET_S = "10"
"""An outage caused for a look at it should not take the two minutes of a real one, nor the next one longer."""
_RESET, _MAX_RESET = "OPENROUTER_GUARD_RESET_TIMEOUT_SECONDS", "OPENROUTER_GUARD_MAX_RESET_TIMEOUT_SECONDS"
CLUSTER_S = 2.0
_FLEET = "openrouter_guard.testing.fleet"
SIMULATED_KEY = "sk-or-simulated"


@dataclass(frozen=True, slots=True)
class Plan:
    """The processes to run, and their addresses."""

    service_url: str
    redis: str
    upstream: str
    simulator_url: str
    operator: str
    children: tuple[Child, ...]


def run(environ: Mapping[str, str], *, host: str, port: int) -> int:
    """Run everything until Ctrl-C; return an exit status.

    Raises:
        ConfigurationError: If a setting cannot be used.
    """
    configure(environ)
    with ExitStack() as stack:
        given = environ.get("REDIS_URL", "").strip()
        redis_url = given or stack.enter_context(embedded_valkey())
        Settings.from_env({**environ, "REDIS_URL": redis_url})
        plan = _plan(environ, redis_url, host=host, port=port, embedded=not given)
        print(_banner(plan, port), flush=True)
        return asyncio.run(supervise(plan.children))


def _plan(environ: Mapping[str, str], redis_url: str, *, host: str, port: int, embedded: bool) -> Plan:
    shared = {"REDIS_URL": redis_url, "PYTHONUNBUFFERED": "1"}
    children: list[Child] = []
    simulator_url = ""
    if not environ.get("OPENROUTER_API_KEY"):
        simulator_url = f"http://127.0.0.1:{_free_port('127.0.0.1', 8787)}"
        shared |= {"OPENROUTER_API_KEY": SIMULATED_KEY, "OPENROUTER_BASE_URL": f"{simulator_url}/api/v1"}
        if not environ.get(_RESET):
            shared |= {_RESET: SIMULATED_RESET_S, _MAX_RESET: SIMULATED_RESET_S}
        simulate = ("openrouter_guard", "simulate", "--port", simulator_url.rpartition(":")[2])
        children += [Child("simulator", simulate, shared), Child("workers", (_FLEET,), shared)]
    service_port = _free_port(host, port)
    serve = ("openrouter_guard", "serve", "--host", host, "--port", str(service_port))
    children.append(Child("service", serve, shared))
    cluster = _reachable_cluster(environ)
    if cluster:
        # Its probes are not used here: any free port will do.
        shared.setdefault("OPENROUTER_GUARD_OPERATOR_PORT", environ.get("OPENROUTER_GUARD_OPERATOR_PORT", "0"))
        children.append(Child("operator", ("openrouter_guard", "operate"), shared))
    return Plan(
        service_url=f"http://{host}:{service_port}",
        redis=f"{parse_address(redis_url)}{' (embedded Valkey)' if embedded else ''}",
        upstream=simulator_url or environ.get("OPENROUTER_BASE_URL", DEFAULT_BASE_URL),
        simulator_url=simulator_url,
        operator=cluster or "not started: KUBECONFIG leads to no cluster",
        children=tuple(children),
    )


def _banner(plan: Plan, wanted_port: int) -> str:
    status = f"{plan.service_url}/api/v1/openrouter"
    taken = "" if plan.service_url.endswith(f":{wanted_port}") else f"   (port {wanted_port} is taken)"
    simulated = " (simulated, with three workers that call it)" if plan.simulator_url else ""
    lines = [
        "",
        "OpenRouter Guard",
        f"  health service  {plan.service_url}{taken}",
        f"  redis           {plan.redis}",
        f"  upstream        {plan.upstream}{simulated}",
        f"  operator        {plan.operator}",
        "",
        "Try",
        f"  open {plan.service_url} in a browser",
        f"  curl {status}/status",
        f"  curl '{status}/metrics?days=7'",
    ]
    if plan.simulator_url:
        switch = f"curl -X PUT {plan.simulator_url}/simulate -H 'content-type: application/json' -d"
        lines += [
            "",
            "Cause an outage, look at the status, and end it",
            f"""  {switch} '{{"mode": "outage"}}'""",
            f"""  {switch} '{{"mode": "healthy"}}'""",
        ]
    return "\n".join([*lines, "", "Ctrl-C stops everything.", ""])


def _free_port(host: str, wanted: int) -> int:
    """Return the wanted port, or another one if it is taken."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise OSError(f"no free port on {host}")


def _reachable_cluster(environ: Mapping[str, str]) -> str:
    """Return the server in ``KUBECONFIG``, or nothing if there is none or it does not answer."""
    try:
        import yaml

        config = yaml.safe_load(Path(environ["KUBECONFIG"]).read_text())
        contexts = {entry["name"]: entry["context"]["cluster"] for entry in config["contexts"]}
        servers = {entry["name"]: entry["cluster"]["server"] for entry in config["clusters"]}
        server = str(servers[contexts[config["current-context"]]])
        parts = urlsplit(server)
        with socket.create_connection((parts.hostname or "", parts.port or 443), timeout=CLUSTER_S):
            return server
    except (ImportError, KeyError, OSError, TypeError, ValueError):
        return ""
