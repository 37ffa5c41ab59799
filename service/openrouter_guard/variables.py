"""The environment variables that begin with ``OPENROUTER_GUARD_``, and suggestions for unknown ones."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from .errors import ConfigurationError

__all__ = ["NAMES", "PREFIX", "is_strict_x509", "nearest", "truth", "unknown", "unused_keys"]

PREFIX = "OPENROUTER_GUARD_"
NAMES = frozenset(
    {
        "ACCESS",
        "ALERT_CALLS",
        "ALERT_ERROR_RATE",
        "CHECK_SLOT_SECONDS",
        "CHECK_TIMEOUT_SECONDS",
        "CLASS",
        "CLUSTER",
        "CONFIRM_SECONDS",
        "COOLDOWN_SECONDS",
        "CORS_ORIGINS",
        "FAILURE_RATE",
        "FAILURE_THRESHOLD",
        "FIRST_WAIT_SECONDS",
        "FRESH_SECONDS",
        "FURTHER_SCOPES",
        "GOOD_CHECKS",
        "HEALTH_URLS",
        "KINDS",
        "LEASE_NAME",
        "LEASE_NAMESPACE",
        "LEASE_SECONDS",
        "LOG_FORMAT",
        "LOG_LEVEL",
        "LONGEST_WAIT_SECONDS",
        "MAX_COOLDOWN_SECONDS",
        "MAX_FRESH_SECONDS",
        "MAX_RESET_TIMEOUT_SECONDS",
        "MAX_STREAMS",
        "MIN_FRESH_SECONDS",
        "NAMESPACES",
        "NEXT_TRIAL_SECONDS",
        "OPERATOR_HOST",
        "OPERATOR_PORT",
        "PERMITS",
        "PERMIT_LEASE_SECONDS",
        "PUBLIC_URL",
        "RAMP_SECONDS",
        "READ_SECRETS",
        "READ_TOKEN",
        "RECHECK_SECONDS",
        "REDIS_TIMEOUT_SECONDS",
        "REFUSALS_WANTED",
        "REPORTER_AUDIENCE",
        "REPORTER_NAMESPACES",
        "REPORT_TOKEN",
        "RESET_TIMEOUT_SECONDS",
        "SCOPE",
        "SLOW_RATE",
        "SLOW_SECONDS",
        "STABLE_SECONDS",
        "STALE_SECONDS",
        "STRICT_X509",
        "TLS_CERT_FILE",
        "TLS_KEY_FILE",
        "TRIAL_CALL_SECONDS",
        "TRIAL_WAIT_SECONDS",
        "WEBHOOK_FORMAT",
        "WEBHOOK_SECRET",
        "WEBHOOK_SECRET_FILE",
        "WEBHOOK_URL",
        "WINDOW_CALLS",
        "WINDOW_SECONDS",
        "WORKER_ID",
        "WRITE_TOKEN",
    }
)
"""Without the prefix; of every part, because one environment often serves several."""
_OF_A_SCOPE = ("OPENROUTER_API_KEY", "OPENROUTER_MANAGEMENT_KEY")
_ELSEWHERE = ("OPENROUTER_API_KEY", "OPENROUTER_BASE_URL", "OPENROUTER_MANAGEMENT_KEY", "REDIS_URL")
# Kubernetes sets these in every pod next to a Service named openrouter-guard….
_SERVICE_LINK = re.compile(
    r"(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT|PORT_\d+_(TCP|UDP|SCTP)(_(ADDR|PORT|PROTO))?)"
)


def truth(environ: Mapping[str, str], name: str, *, default: bool = False) -> bool:
    """Return the value of a setting that is true or false.

    Raises:
        ConfigurationError: If it is neither.
    """
    text = environ.get(PREFIX + name, "").strip() or str(default).lower()
    if text not in {"true", "false"}:
        raise ConfigurationError(f"{PREFIX}{name} is {text!r}: write true or false")
    return text == "true"


def is_strict_x509(environ: Mapping[str, str]) -> bool:
    """Return whether the API server's certificate authority must have the extensions of RFC 5280.

    Raises:
        ConfigurationError: If the setting is neither true nor false.
    """
    return truth(environ, "STRICT_X509", default=True)


def unused_keys(environ: Mapping[str, str], suffixes: Iterable[str]) -> list[str]:
    """Return a message for each API key of an unknown scope; *suffixes* are those of the further scopes."""
    known = {f"{name}_{suffix}" for name in _OF_A_SCOPE for suffix in suffixes}
    found = sorted(
        name for name in environ if name.startswith(tuple(f"{n}_" for n in _OF_A_SCOPE)) and name not in known
    )
    return [
        f"{name} is of no scope in {PREFIX}FURTHER_SCOPES and changes nothing{_hint(name, known)}" for name in found
    ]


def _hint(name: str, known: Iterable[str]) -> str:
    meant = nearest(name, known)
    return f": did you mean {meant}?" if meant else ""


def unknown(environ: Mapping[str, str]) -> list[str]:
    """Return a message for each unknown variable that looks like a setting.

    Values are left out, they may be secrets.
    """
    found = sorted(name for name in environ if name.upper().startswith(PREFIX) and not _is_known(name))
    return [
        f"{name} is not a setting and has no effect: {_advice(name.upper().removeprefix(PREFIX))}" for name in found
    ]


def _is_known(name: str) -> bool:
    written = name.removeprefix(PREFIX)
    return name.startswith(PREFIX) and (written in NAMES or _SERVICE_LINK.fullmatch(written) is not None)


def _advice(written: str) -> str:
    meant = {name.removeprefix("OPENROUTER_"): name for name in _ELSEWHERE} | {name: PREFIX + name for name in NAMES}
    found = nearest(written, meant)
    return f"did you mean {meant[found]}?" if found else "docs/configuration.md lists all that there are"


def nearest(written: str, names: Iterable[str]) -> str:
    """Return the one of *names* that was most likely meant; empty if none is similar."""
    # Usually nothing is unknown, so the import is skipped.
    from difflib import get_close_matches

    candidates = sorted(names)
    begun = [name for name in candidates if len(written) > 2 and name.startswith(f"{written}_")]
    return next(iter(get_close_matches(written, candidates, n=1, cutoff=0.7) or begun), "")
