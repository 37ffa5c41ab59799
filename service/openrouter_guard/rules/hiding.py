"""Keys, tokens and passwords in texts that somebody else wrote: they are never stored, shown or logged.

Two kinds are hidden: what looks like a secret of any vendor, and the secrets that this process was started with,
which :func:`remember` is told. Every pattern takes time in proportion to the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache

__all__ = ["HIDDEN", "remember", "secrets_in", "without_keys"]

HIDDEN = "[key]"
_LEAST = 8
"""A shorter secret would be found in every other word."""
_LEAST_BY_NAME = 12
_OWN_MOST = 1_000

_WORD = r"(?<![A-Za-z0-9])"
_PREFIXES = (
    "gsk_|xai-|hf_|r8_|pplx-|csk-|nvapi-|fw_|tgp_v1_|gh[opsu]_|github_pat_|glpat-|xox[abeprs]-|dop_v1_|"
    "[rs]k_(?:live|test)_|fc-|tvly-|ls__|lsv2_|lin_api_|npm_|pypi-|SG\\."
)
_PROSE = (
    r"(?i:auth|token|realm|header|scheme|credential|key|error|is|was|and|or|not|access|required|missing|invalid|format"
    r"|type)[a-z]*\b"
)
_PATTERNS = (
    r"sk-or-[\w-]+",
    _WORD + r"sk-[\w-]{10,}",
    _WORD + rf"(?:{_PREFIXES})[\w-]{{10,}}",
    _WORD + r"AIza[\w-]{16,}",
    _WORD + r"A(?:KI|SI|RO|ID)A[0-9A-Z]{12,}",
    r"(?<![\w-])eyJ[\w-]{5,}+\.[\w-]{5,}+(?:\.[\w-]*+)?",
    # What stands between :// and @: a password may hold anything but these.
    r"(?<=://)[^\s/?#\"'<>\\]{1,512}@",
    rf"(?i:(?<![a-z])(?:bearer|basic)[ \t]{{1,8}})(?!{_PROSE})[\w.~+/=-]{{6,}}",
    r"(?i:(?<=[?&])(?:api[-_]?key|access[-_]?token|key|token|auth|secret|password|sig|signature)=)[^&\s\"'<>#\\]+",
    rf"(?i:(?<![a-z])(?:x-)?api[-_]?key[\"']?[ \t]{{0,4}}[:=][ \t]{{0,4}}[\"']?)(?!{_PROSE})[\w.~+/=-]{{8,}}",
)
_KEEPS = re.compile(r"(?i:bearer|basic)[ \t]+|[\w-]+=|(?i:(?:x-)?api[-_]?key)[\"']?[ \t]*[:=][ \t]*[\"']?")
_FRAGMENTS = """
    sk- :// eyj aiza akia asia aroa aida bearer basic key token= auth= secret= password= sig= signature= gsk_ xai- hf_
    r8_ pplx- nvapi- fw_ tgp_ ghp_ gho_ ghs_ ghu_ github_pat_ glpat- xox dop_v1_ k_live_ k_test_ fc- tvly- ls__ lsv2_
    lin_api_ npm_ pypi- sg.
"""
_MARKS = tuple(_FRAGMENTS.split())
"""What a text has in it that is worth a closer look, in small letters: most texts have none of these."""
_SECRET_NAME = re.compile(r"(?:KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)\Z", re.IGNORECASE)
_PASSWORD = re.compile(r"://[^\s/?#:@]{0,256}:([^\s/?#]{1,512})@")

_own: tuple[str, ...] = ()


def without_keys(text: str) -> str:
    """The text with ``[key]`` in place of each secret."""
    for secret in _own:
        if secret in text:
            text = text.replace(secret, HIDDEN)
    small = text.lower()
    return _any().sub(_hidden, text) if any(mark in small for mark in _MARKS) else text


def remember(secrets: Iterable[str]) -> None:
    """Hide these too from now on, wherever they appear: as they are, in an address or in JSON. Short ones are not."""
    global _own
    given = [secret for secret in map(str.strip, secrets) if secret]
    if not given:
        return
    # A probe of a Redis without a password has none, and can do without these.
    from json import dumps
    from urllib.parse import quote, quote_plus, unquote

    found = set(_own)
    for secret in given:
        plain = unquote(secret)
        forms = (secret, plain, quote(plain, safe=""), quote_plus(plain), dumps(plain)[1:-1])
        found.update(form for form in forms if len(form) >= _LEAST)
    # The longest first: one may be part of another.
    _own = tuple(sorted(found, key=len, reverse=True)[:_OWN_MOST])


def secrets_in(environ: Mapping[str, str]) -> list[str]:
    """The values in an environment whose names say that they are secret, and the passwords in addresses."""
    named = (value.strip() for name, value in environ.items() if _SECRET_NAME.search(name))
    found = [value for value in named if len(value) >= _LEAST_BY_NAME and not value.startswith(("/", "."))]
    passwords = [match[1] for value in environ.values() for match in _PASSWORD.finditer(value)]
    return [*found, *passwords]


@cache
def _any() -> re.Pattern[str]:
    # Not compiled before it is needed: a probe that starts every few seconds should not pay for it.
    return re.compile("|".join(f"(?:{pattern})" for pattern in _PATTERNS))


def _hidden(match: re.Match[str]) -> str:
    """What stands in for a secret; the word in front of it stays."""
    text = match[0]
    kept = _KEEPS.match(text)
    if text.endswith("@"):
        return f"{HIDDEN}@"
    return f"{kept[0]}{HIDDEN}" if kept and not text.startswith("sk-") else HIDDEN
