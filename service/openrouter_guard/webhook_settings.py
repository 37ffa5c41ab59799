"""The format of the webhook's requests, and the secrets that sign them."""

from __future__ import annotations

import binascii
from collections.abc import Mapping
from typing import Literal, TypeAlias

from .errors import ConfigurationError
from .variables import PREFIX as _PREFIX

__all__ = ["WebhookFormat", "secret_keys", "secrets_of_file", "webhook_format"]

WebhookFormat: TypeAlias = Literal["json", "slack"]
KEY_MIN = 16
"""Bytes of a secret; the specification recommends 24 to 64."""
_SECRET = f"{_PREFIX}WEBHOOK_SECRET"
_BEGIN = "whsec_"
_FILE_MOST = 65_536


def webhook_format(environ: Mapping[str, str]) -> WebhookFormat:
    """Return the format of the requests.

    Raises:
        ConfigurationError: If it is unknown.
    """
    text = environ.get(f"{_PREFIX}WEBHOOK_FORMAT", "").strip() or "json"
    if text == "json":
        return "json"
    if text == "slack":
        return "slack"
    raise ConfigurationError(f"{_PREFIX}WEBHOOK_FORMAT is {text!r}: write json or slack")


def secret_keys(text: str, variable: str = _SECRET) -> tuple[bytes, ...]:
    """Return the keys of the secrets in *text*, separated by spaces; errors do not quote them.

    Raises:
        ConfigurationError: If one is no secret of Standard Webhooks.
    """
    return tuple(_key(secret, variable) for secret in text.split())


def _key(secret: str, variable: str) -> bytes:
    try:
        key = binascii.a2b_base64(secret.removeprefix(_BEGIN), strict_mode=True)
    except (binascii.Error, ValueError):
        key = b""
    if not secret.startswith(_BEGIN) or len(key) < KEY_MIN:
        raise ConfigurationError(
            f"{variable}: write {_BEGIN} and 24 to 64 random bytes in Base64, such as of: openssl rand -base64 32"
        )
    return key


def secrets_of_file(path: str) -> str:
    """Return the text of the file with the secrets.

    Raises:
        ConfigurationError: If it cannot be read, or is empty.
    """
    try:
        with open(path, "rb") as file:  # noqa: PTH123  pathlib brings urllib, which the probe can do without
            text = file.read(_FILE_MOST).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{_SECRET}_FILE cannot be read: {type(error).__name__}") from None
    if not text:
        raise ConfigurationError(f"{_SECRET}_FILE names an empty file: put a secret into it")
    return text
