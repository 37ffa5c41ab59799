"""Which certificate the health service and the operator serve with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .errors import ConfigurationError
from .variables import PREFIX

__all__ = ["Certificate"]

_CERT_FILE, _KEY_FILE = f"{PREFIX}TLS_CERT_FILE", f"{PREFIX}TLS_KEY_FILE"


@dataclass(frozen=True, slots=True)
class Certificate:
    """Two files in PEM format: the certificate with its chain, and its key without a passphrase."""

    cert_file: str
    key_file: str

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Certificate | None:
        """Return the certificate named in *environ*; None without TLS.

        Raises:
            ConfigurationError: If only one of the files is named.
        """
        files = {name: environ.get(name, "").strip() for name in (_CERT_FILE, _KEY_FILE)}
        missing = [name for name, file in files.items() if not file]
        if len(missing) == 1:
            raise ConfigurationError(f"{missing[0]} is not set: TLS needs both {_CERT_FILE} and {_KEY_FILE}")
        return None if missing else cls(*files.values())
