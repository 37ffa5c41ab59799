"""The operator's settings, read from the environment once, at the start."""

from __future__ import annotations

import os
import re
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from openrouter_guard.errors import ConfigurationError
from openrouter_guard.settings import Settings
from openrouter_guard.variables import PREFIX as _PREFIX
from openrouter_guard.variables import is_strict_x509, truth

from .resource.access import Access
from .resource.spec import DEFAULT_CLASS
from .shared_state.feed import CLUSTER
from .workloads.kinds import BY_NAME, DEFAULT

__all__ = ["OperatorSettings"]

_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


@dataclass(frozen=True, slots=True)
class OperatorSettings:
    """All settings of one operator.

    Attributes:
        guard: The shared state, and the rules of the breaker.
        namespaces: The handled namespaces; empty means the whole cluster.
        kinds: The handled kinds of workloads: by name, or by the name of a CRD with a ``scale`` subresource.
        access: Rules for using and overriding scopes.
        cluster: Name of this cluster on the status page.
        resource_class: Class of the handled resources.
        reads_secrets: Whether resources may name a Redis of their own in a Secret.
        strict_x509: Whether the certificate authority of the API server must have the extensions of RFC 5280.
        lease_s: How long a leader may be silent before another takes over, whole seconds.
        identity: Name of this process among the candidates for the lease.
        host: Address of its probes, with ``port``; 0 is any free port.
    """

    guard: Settings
    namespaces: tuple[str, ...] = ()
    kinds: tuple[str, ...] = DEFAULT
    access: Access = field(default_factory=Access)
    cluster: str = CLUSTER
    resource_class: str = DEFAULT_CLASS
    reads_secrets: bool = False
    strict_x509: bool = True
    lease_namespace: str = "default"
    lease_name: str = "openrouter-guard-operator"
    lease_s: int = 15
    identity: str = ""
    host: str = "127.0.0.1"
    port: int = 8081

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> OperatorSettings:
        """Return the settings in *environ*.

        Raises:
            ConfigurationError: If ``REDIS_URL`` is missing, or a value is invalid.
        """
        namespaces = environ.get(f"{_PREFIX}NAMESPACES", "").split(",")
        return cls(
            guard=Settings.from_env(environ),
            namespaces=tuple(name.strip() for name in namespaces if name.strip()),
            kinds=_kinds(environ),
            access=Access.parse(environ.get(f"{_PREFIX}ACCESS", "")),
            cluster=environ.get(f"{_PREFIX}CLUSTER") or CLUSTER,
            resource_class=_class(environ),
            reads_secrets=truth(environ, "READ_SECRETS"),
            strict_x509=is_strict_x509(environ),
            lease_namespace=environ.get(f"{_PREFIX}LEASE_NAMESPACE") or _own_namespace(),
            lease_name=environ.get(f"{_PREFIX}LEASE_NAME") or _lease_name(environ),
            lease_s=_whole(environ, "LEASE_SECONDS", 15, lowest=1, highest=3600),
            identity=f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}",
            host=environ.get(f"{_PREFIX}OPERATOR_HOST") or "127.0.0.1",
            port=_whole(environ, "OPERATOR_PORT", 8081, lowest=0, highest=65535),
        )


def _kinds(environ: Mapping[str, str]) -> tuple[str, ...]:
    written = environ.get(f"{_PREFIX}KINDS", "").split(",")
    names = tuple(name.strip() for name in written if name.strip()) or DEFAULT
    for name in names:
        if name not in BY_NAME and "." not in name:
            raise ConfigurationError(
                f"{_PREFIX}KINDS has {name!r}: write {', '.join(BY_NAME)}, or the name of a CRD that has a scale"
                " subresource, such as rollouts.argoproj.io"
            )
    return names


def _class(environ: Mapping[str, str]) -> str:
    """Return the class, which must be valid in the names of a Lease and of a finalizer."""
    text = environ.get(f"{_PREFIX}CLASS") or DEFAULT_CLASS
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?", text):
        raise ConfigurationError(f"{_PREFIX}CLASS is {text!r}: write 1 to 40 of a-z, 0-9 and -, no - at either end")
    return text


def _own_namespace() -> str:
    """Return the namespace of this pod, else ``default``."""
    return _NAMESPACE.read_text().strip() if _NAMESPACE.exists() else "default"


def _lease_name(environ: Mapping[str, str]) -> str:
    """Operators of different classes do not replace each other."""
    resource_class = _class(environ)
    return "openrouter-guard-operator" + ("" if resource_class == DEFAULT_CLASS else f"-{resource_class}")


def _whole(environ: Mapping[str, str], name: str, default: int, *, lowest: int, highest: int) -> int:
    text = environ.get(_PREFIX + name, "").strip() or str(default)
    if not (text.isascii() and text.isdecimal()) or not lowest <= int(text) <= highest:
        raise ConfigurationError(f"{_PREFIX}{name} is {text!r}: write a whole number from {lowest} to {highest}")
    return int(text)
