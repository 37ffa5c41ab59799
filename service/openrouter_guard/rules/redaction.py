"""Redacts keys, tokens and passwords in foreign text: they are never stored, shown or logged.

Two kinds are redacted: text that looks like a secret of any vendor, and the secrets of this process, passed to
:func:`remember`. Every pattern takes time in proportion to the text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache, lru_cache

__all__ = ["HIDDEN", "cached", "remember", "secrets_in", "redact"]

HIDDEN = "[key]"
_LEAST = 8
"""A shorter secret would match parts of ordinary words."""
_LEAST_BY_NAME = 12
_OWN_MOST = 1_000
_REMEMBERED_MOST = 128
_TEXT_MOST = 65_536

_WORD = r"(?:(?<![A-Za-z0-9])|(?<=%[0-9A-Fa-f]{2})|(?<=\\[nrt])|(?<=\\u[0-9A-Fa-f]{4}))"
"""The beginning of a word, also in an address and in quoted text."""
_DASH = r"(?:-|%(?:25)?2[dD]|\\u002[dD])"
_PREFIXES = (
    "gsk_|xai-|hf_|r8_|pplx-|csk-|nvapi-|fw_|tgp_v1_|gh[opsu]_|github_pat_|glpat-|xox[abeprs]-|dop_v1_|"
    "[rs]k_(?:live|test)_|fc-|tvly-|ls__|lsv2_|lin_api_|npm_|pypi-|SG\\.|ya29\\."
)
_PROSE = (
    r"(?i:auth|token|realm|header|scheme|credential|key|error|is|was|and|or|not|access|required|missing|invalid|format"
    r"|type|incorrect|expired|must|should|does|has|for|provided|undefined|null|none)[a-z]*\b"
)
_QUOTE = r"(?:\\?[\"'])"
_SCHEME = r"(?i:(?<![a-z])(?:bearer:?|basic)(?:[ \t\xa0]|%20|\+){1,8})"
_IS = rf"(?:{_QUOTE}?[ \t]{{0,4}}[:=][ \t]{{0,4}}b?{_QUOTE}?|{_QUOTE}[ \t]{{0,4}},[ \t]{{0,4}}b?{_QUOTE})"
_NAME = (
    r"(?i:(?<![a-z])(?:x-)?(?:(?:api|(?:secret[-_]?)?access|account|secret|private|subscription)[-_]?key"
    r"|(?:access|refresh|auth|id|session)?[-_]?token|(?:client)?[-_]?secret|password|passwd|passphrase))"
    rf"{_IS}"
)
"""The name of a field, a header or an argument, up to its value."""
_HEADER = rf"(?i:(?<![a-z])authorization{_IS}(?:[a-z]{{2,16}}[ \t]{{1,4}})?)"
"""The header with a credential, whatever its scheme."""
_IN_QUERY = (
    r"(?i:(?:(?<=[?&])|(?<=%3f)|(?<=%26))(?:api[-_]?key|access[-_]?token|key|token|auth|secret|password|sig"
    r"|(?:x-amz-)?signature|x-amz-security-token)(?:=|%3d))"
)
"""A parameter of an address, also of one inside another."""
_TOLD = r"(?:(?i:(?<![a-z])key)|(?<=[a-z])Key)(?i:(?: provided)?[\"']?[:= ]{1,3}[\"']?)"
_DIGIT_NEAR = r"(?=[A-Za-z_-]{0,64}[0-9])"
_PATTERNS = (
    rf"sk{_DASH}or{_DASH}(?:[\w-]|{_DASH})+",
    _WORD + rf"sk{_DASH}(?:[\w-]|{_DASH}){{10,}}",
    _WORD + r"SG\.[\w-]{10,}\.[\w-]{10,}",
    _WORD + rf"(?:{_PREFIXES})[\w-]{{10,}}",
    _WORD + r"AIza[\w-]{16,}",
    _WORD + r"A(?:KI|SI|RO|ID)A[0-9A-Z]{12,}",
    r"(?<![A-Za-z0-9_-])eyJ[\w-]{5,}+\.[\w-]{5,}+(?:\.[\w-]*+){0,3}",
    r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----[^-]*+",
    # The part between :// and @: a password may hold anything but these.
    r"(?<=://)[^\s/?#\"'<>\\]{1,512}@",
    r"(?<=\w:)(?<!mailto:)[^\s:/@\"'<>\\]{4,256}@(?=\w)",
    r"(?i:(?<=%3a%2f%2f)[\w.~%+-]{1,512}?%40)",
    rf"{_SCHEME}(?!{_PROSE})[\w.~+/=-]{{6,}}",
    rf"{_IN_QUERY}(?:(?!%26)[^&\s\"'<>#\\])+",
    rf"{_NAME}(?!{_PROSE})[\w.~+/=-]{{8,}}",
    rf"{_HEADER}(?!{_PROSE}){_DIGIT_NEAR}[\w.~+/=-]{{16,}}",
    rf"{_TOLD}{_DIGIT_NEAR}[\w.~+/=-]{{16,}}(?::[\w.~+/=-]{{8,}})?",
)
_KEEPS = re.compile(rf"{_SCHEME}|{_IN_QUERY}|{_HEADER}|{_NAME}|{_TOLD}")
_FRAGMENTS = """
    sk- sk%2 sk\\u002d :// @ %3a%2f%2f eyj aiza akia asia aroa aida bearer basic key token auth= auth%3d authorization
    secret passw passphrase sig= sig%3d signature ya29. gsk_ xai- hf_ r8_ pplx- nvapi- fw_ tgp_ ghp_ gho_ ghs_
    ghu_ github_pat_ glpat- xox dop_v1_ k_live_ k_test_ fc- tvly- ls__ lsv2_ lin_api_ npm_ pypi- sg.
"""
_MARKS = tuple(_FRAGMENTS.split())
"""Marks, in lower case, of text that needs a closer look: most texts have none of these."""
_SECRET_NAME = re.compile(r"(?:KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)\Z", re.IGNORECASE)
_PERCENT = re.compile(r"%[0-9A-F]{2}")
_PASSWORD = re.compile(r"://[^\s/?#:@]{0,256}:([^\s/?#]{1,512})@")

_own: tuple[str, ...] = ()
_forgotten: list[Callable[[], None]] = []


def cached(function: Callable[[str], str]) -> Callable[[str], str]:
    """Cache the results for recent texts, until there are more secrets."""
    kept = lru_cache(maxsize=1_024)(function)
    _forgotten.append(kept.cache_clear)
    return kept


def redact(text: str) -> str:
    """Return the text with ``[key]`` in place of each secret; no more than 64 Ki characters of it."""
    text = text[:_TEXT_MOST]
    # The same names recur, in each read of the history.
    return _hidden_before(text) if len(text) <= _REMEMBERED_MOST else _redact(text)


def _redact(text: str) -> str:
    for secret in _own:
        if secret in text:
            text = text.replace(secret, HIDDEN)
    small = text.lower()
    return _any().sub(_hidden, text) if any(mark in small for mark in _MARKS) else text


_hidden_before = cached(_redact)


def remember(secrets: Iterable[str]) -> None:
    """Redact these too from now on, wherever they appear: as they are, in an address or in JSON.

    Short ones are ignored.
    """
    global _own
    given = [secret for secret in map(str.strip, secrets) if secret]
    if not given:
        return
    # A probe of a Redis without a password has none, and skips this.
    from json import dumps
    from urllib.parse import quote, quote_plus, unquote

    found = set(_own)
    for secret in given:
        plain = unquote(secret)
        encoded = [encode(plain, safe, errors="replace") for encode in (quote, quote_plus) for safe in ("", "/")]
        forms = (secret, plain, dumps(plain)[1:-1], *encoded, *map(_in_small_hex, encoded))
        found.update(form for form in forms if len(form) >= _LEAST)
    # The longest first: one may be part of another.
    _own = tuple(sorted(found, key=len, reverse=True)[:_OWN_MOST])
    for forget in _forgotten:
        forget()


def secrets_in(environ: Mapping[str, str]) -> list[str]:
    """Return the values of an environment with secret names, and the passwords in addresses."""
    named = (value.strip() for name, value in environ.items() if _SECRET_NAME.search(name))
    found = [value for value in named if len(value) >= _LEAST_BY_NAME and not value.startswith(("/", "."))]
    passwords = [match[1] for value in environ.values() for match in _PASSWORD.finditer(value)]
    return [*found, *passwords]


def _in_small_hex(encoded: str) -> str:
    return _PERCENT.sub(lambda match: match[0].lower(), encoded)


@cache
def _any() -> re.Pattern[str]:
    # Compiled on first use: a probe that starts every few seconds should not pay for it.
    return re.compile("|".join(f"(?:{pattern})" for pattern in _PATTERNS))


def _hidden(match: re.Match[str]) -> str:
    """Return the replacement for a secret; the word before it stays."""
    text = match[0]
    kept = _KEEPS.match(match.string, match.start(), match.end())
    if text.endswith("@"):
        return f"{HIDDEN}@"
    if text.endswith("%40"):
        return f"{HIDDEN}%40"
    return f"{kept[0]}{HIDDEN}" if kept and not text.startswith("sk-") else HIDDEN
