"""Which cluster and which namespace a command is about."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from openrouter_guard.variables import is_strict_x509
from openrouter_operator.kubernetes.cli_cluster import CliCluster
from openrouter_operator.kubernetes.errors import kubeconfig_files

__all__ = ["connected", "namespace_of"]

_POD = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
DEFAULT = "default"


async def connected() -> CliCluster:
    """Return the cluster of this pod, or the one that ``KUBECONFIG`` names.

    Raises:
        ConfigurationError: If there is neither, or ``OPENROUTER_GUARD_STRICT_X509`` is invalid.
    """
    # It logs a missing kubeconfig, which is an error of ours too: one line is enough.
    logging.getLogger("kubernetes").setLevel(logging.ERROR)
    return await CliCluster.connect(strict_x509=is_strict_x509(os.environ))


def namespace_of(given: str | None) -> str:
    """Return the given namespace, else that of the kubeconfig's context or of this pod, else ``default``."""
    if given:
        return given
    if _POD.exists():
        return _POD.read_text().strip()
    import yaml

    # The connection tells of a kubeconfig that cannot be read.
    with suppress(OSError, KeyError, TypeError, ValueError, AttributeError, yaml.YAMLError):
        configs = list(map(_config, filter(os.path.exists, kubeconfig_files())))
        # As our client merges them: the first context of a name counts, and the last choice of one.
        chosen = [config["current-context"] for config in configs if "current-context" in config][-1:]
        contexts = (entry for config in configs for entry in config.get("contexts") or ())
        found = [entry["context"].get("namespace") for entry in contexts if [entry["name"]] == chosen]
        return str(found[0]) if found and found[0] else DEFAULT
    return DEFAULT


def _config(file: str) -> dict[str, Any]:
    import yaml

    found: dict[str, Any] = yaml.safe_load(Path(file).read_text())
    return found
