"""A TLS context that follows its certificate's files. Only servers load it: workers need no :mod:`ssl`."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

from .certificates import Certificate
from .errors import ConfigurationError

__all__ = ["RenewedContext"]

logger = logging.getLogger(__name__)


class RenewedContext:
    """The context of a server; call :meth:`look` now and then.

    Raises:
        ConfigurationError: On creation, if the certificate cannot be used.
    """

    def __init__(self, certificate: Certificate) -> None:
        self._certificate = certificate
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            self._version = _version(certificate)
            _load(certificate, self.context)
        except (OSError, ValueError) as error:
            raise ConfigurationError(
                f"the certificate {certificate.cert_file} with the key {certificate.key_file} cannot be used: {error}"
            ) from None

    def look(self) -> None:
        """Load the certificate again if its files have changed; the old one stays where the new one is of no use."""
        try:
            version = _version(self._certificate)
            if version == self._version:
                return
            # Once half of a pair is loaded, a context is of no use: the pair is tried elsewhere before.
            _load(self._certificate, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
            _load(self._certificate, self.context)
        except (OSError, ValueError) as error:
            logger.warning("the renewed certificate cannot be used, the old one goes on: %s", error)
            return
        self._version = version
        logger.info("serving with the renewed certificate %s", self._certificate.cert_file)


def _version(certificate: Certificate) -> list[tuple[int, int]]:
    """Changes when a file does, also where Kubernetes replaces the link that leads to it."""
    found = (Path(file).stat() for file in (certificate.cert_file, certificate.key_file))
    return [(each.st_ino, each.st_mtime_ns) for each in found]


def _load(certificate: Certificate, context: ssl.SSLContext) -> None:
    context.load_cert_chain(certificate.cert_file, certificate.key_file, password=_no_passphrase)


def _no_passphrase() -> str:
    """Instead of a question on the terminal, for which a server would wait for ever."""
    raise ValueError("the key has a passphrase, which cannot be entered here")
