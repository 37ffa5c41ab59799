"""Redacts keys, tokens and passwords in foreign text: they are never stored, shown or logged.

Two kinds are redacted: text that looks like a secret of any vendor, and the secrets of this process, passed to
:func:`remember`. Every pattern takes time in proportion to the text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
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
_QUOTE = r"(?:\\{0,3}[\"']|\\{1,3}u0022|&quot;|%22)"
"""A quotation mark, also in JSON inside JSON, in HTML and in an address."""
_SCHEME = r"(?i:(?<![a-z])(?:bearer:?|basic)(?:[ \t\xa0]|%20|\+){1,8})"
_IS = rf"(?:{_QUOTE}?[ \t]{{0,4}}[:=][ \t]{{0,4}}b?{_QUOTE}?|{_QUOTE}[ \t]{{0,4}},[ \t]{{0,4}}b?{_QUOTE})"
_NAME = (
    r"(?i:(?<![a-z])(?:x-)?(?:(?:api|(?:secret[-_]?)?access|account|secret|private|subscription)[-_]?key"
    r"|(?:access|refresh|auth|id|session)?[-_]?token|(?:client)?[-_]?secret|credentials?))"
    rf"{_IS}"
)
"""The name of a field, a header or an argument, up to its value."""
_PASSWORD_NAME = rf"(?i:(?:password|passwd|passphrase){_IS}|(?<![a-z])pwd{_IS}(?![/~.]))"
"""The name of a password, up to its value. A path after PWD is a directory."""
_ALMOST_ANYTHING = (
    r"(?:(?<=[\"'])[^\"'\\\r\n]{4,}"
    r"|(?=[a-zA-Z]{8}|[a-zA-Z]{0,64}(?:[0-9_]|[^\w\s\"'<>\\,;&(){}\[\].:!?]))[^\s\"'<>\\,;&(){}\[\]]{4,})"
)
"""A password may hold almost anything: in quotes also spaces, without them at least no ordinary short word."""
_COOKIE = (
    rf"(?i:(?<![a-z])(?:set-)?cookie(?:{_IS}|[ \t]{{1,4}})(?:\[[ \t]{{0,4}}b?{_QUOTE})?)"
    r"(?=[\w.!#$%&*+^|~-]{1,128}=)"
)
"""A header with cookies, up to the first; also a list of such headers."""
_COOKIE_VALUE = r"(?:=\\{0,3}[\"'][^\s\"',;:{}\\]{1,4096}\\{0,3}[\"']|(?!&quot;)[^\"'\\<>\r\n])++"
_COOKIES = rf"{_COOKIE}{_COOKIE_VALUE}(?:{_QUOTE},[ \t]{{0,4}}b?{_QUOTE}{_COOKIE_VALUE}(?={_QUOTE}[\],]))*+"
_JAR = rf"(?i:(?<![a-z])cookies?(?:[_-]?jar)?{_IS}\{{)"
"""A mapping of cookies by name, up to the first."""
_SLASH = r"(?:\\{0,3}/|%(?:25)?2[fF])"
_HOOK = (
    rf"(?i:{_SLASH}(?:web)?hooks?(?:b2)?{_SLASH}|hooks\.slack(?:-gov)?\.com{_SLASH}"
    rf"|{_SLASH}bot(?=[0-9]{{6,16}}(?::|%3a)))"
)
"""The address of somebody's webhook or bot, up to the part that only they may know."""
_HOOK_VALUE = r"(?=[\w.~%/\\:=-]{0,256}[0-9])(?:[\w.~%@:=-]|\\{0,3}/){8,}"
_USER = (
    rf"(?:(?<![\w-])(?:-[uU]|--(?:proxy-)?user)(?:{_QUOTE}[ \t]{{0,4}},[ \t]{{0,4}}{_QUOTE}|[ \t=]{{0,4}}{_QUOTE}?)"
    r"[^\s:\"'<>\\]{1,128}:)(?![0-9]{1,10}(?![^\s\"']))"
)
"""An option of curl with a name, up to its password; two numbers are the ids of a user and a group."""
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
    r"(?i:(?<=%3a%2f%2f)(?:(?!%2f)[\w.~%+-]){1,512}?%40)",
    rf"{_SCHEME}(?!{_PROSE})[\w.~+/=-]{{6,}}",
    rf"{_IN_QUERY}(?:(?!%26)[^&\s\"'<>#\\])+",
    rf"{_NAME}(?!{_PROSE})[\w.~+/=-]{{8,}}",
    rf"{_PASSWORD_NAME}(?!{_PROSE}){_ALMOST_ANYTHING}",
    _COOKIES,
    rf"{_JAR}[^{{}}\r\n]{{4,}}",
    _HOOK + _HOOK_VALUE,
    rf"{_USER}[^\s\"'<>\\]+",
    rf"{_HEADER}(?!{_PROSE}){_DIGIT_NEAR}[\w.~+/=-]{{16,}}",
    rf"{_TOLD}{_DIGIT_NEAR}[\w.~+/=-]{{16,}}(?::[\w.~+/=-]{{8,}})?",
)
_KEEPS = re.compile(
    rf"{_SCHEME}|{_IN_QUERY}|{_HEADER}|{_NAME}|{_PASSWORD_NAME}|{_COOKIE}|{_JAR}|{_HOOK}|{_USER}|{_TOLD}"
)
_FRAGMENTS = """
    sk%2 sk\\u002d :// @ %3a%2f%2f eyj aiza akia asia aroa aida bearer basic key token auth= auth%3d authorization
    secret passw passphrase pwd credential cookie hook /bot 2fbot sig= sig%3d signature ya29. sg.
"""
_WITH_DASH = "sk- xai- pplx- csk- nvapi- glpat- xox fc- tvly- pypi- -user"
_WITH_LINE = "gsk_ hf_ r8_ fw_ tgp_ ghp_ gho_ ghs_ ghu_ github_pat_ dop_v1_ k_live_ k_test_ ls__ lsv2_ lin_api_ npm_"
_MARKS = tuple(_FRAGMENTS.split())
"""Marks, in lower case, of text that needs a closer look: most texts have none of these."""
_MARKS_BY_SIGN = {"-": (*_WITH_DASH.split(), " -u", "'-u", '"-u'), "_": tuple(_WITH_LINE.split())}
"""Further ones, for text with this sign."""
_SECRET_NAME = re.compile(r"(?:KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)\Z", re.IGNORECASE)
_BASE64 = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=_-%")
_PERCENT = re.compile(r"%[0-9A-F]{2}")
_PASSWORD = re.compile(r"://[^\s/?#:@]{0,256}:([^\s/?#]{1,512})@")

_own: tuple[str, ...] = ()
_own_twice: tuple[str, ...] = ()
"""Encoded twice: each has a percent sign or two backslashes."""
_own_in_base64: tuple[str, ...] = ()
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
    if "%" in text or "\\\\" in text:
        for secret in _own_twice:
            text = text.replace(secret, HIDDEN)
    for part in _own_in_base64:
        if part in text:
            text = _without_words(text, part)
    return _any().sub(_hidden, text) if _is_marked(text.lower()) else text


def _is_marked(small: str) -> bool:
    # Loops, since a generator takes as long as the search itself.
    for mark in _MARKS:
        if mark in small:
            return True
    for sign, marks in _MARKS_BY_SIGN.items():
        if sign in small:
            for mark in marks:
                if mark in small:
                    return True
    return False


_hidden_before = cached(_redact)


def remember(secrets: Iterable[str]) -> None:
    """Redact these too from now on, wherever they appear: as they are, in an address, in JSON or in Base64.

    An address inside an address, JSON inside JSON and the Base64 of ``user:secret`` count too. Short secrets are
    ignored.
    """
    global _own, _own_twice, _own_in_base64
    given = [secret for secret in map(str.strip, secrets) if secret]
    if not given:
        return
    once = {form for secret in given for text in (secret, _plain(secret)) for form in _encoded(text)}
    twice = {form for text in once for form in _encoded(text)}
    _own = _kept(once, _own)
    _own_twice = _kept(twice.difference(_own), _own_twice)
    _own_in_base64 = _kept((part for secret in given for part in _base64_parts(secret)), _own_in_base64)
    for forget in _forgotten:
        forget()


def _kept(new: Iterable[str], before: tuple[str, ...]) -> tuple[str, ...]:
    found = {form for form in new if len(form) >= _LEAST}.union(before)
    # The longest first: one may be part of another.
    return tuple(sorted(found, key=len, reverse=True)[:_OWN_MOST])


def _plain(secret: str) -> str:
    # A probe of a Redis without a password has none, and skips this import and those below.
    from urllib.parse import unquote

    return unquote(secret)


def _encoded(text: str) -> set[str]:
    """Return *text* as it is, and as addresses and JSON encode it."""
    from json import dumps
    from urllib.parse import quote, quote_plus

    in_addresses = [encode(text, safe, errors="replace") for encode in (quote, quote_plus) for safe in ("", "/")]
    in_json = [dumps(text, ensure_ascii=is_ascii)[1:-1] for is_ascii in (True, False)]
    return {text, *in_json, *in_addresses, *map(_in_small_hex, in_addresses)}


def _base64_parts(secret: str) -> Iterator[str]:
    """Yield the characters of Base64 that *secret* alone decides, wherever in the encoded text it begins."""
    from base64 import b64encode, urlsafe_b64encode

    if len(secret.encode(errors="replace")) < _LEAST:
        return
    for before in range(3):
        raw = bytes(before) + secret.encode(errors="replace")
        start, end = (before * 8 + 5) // 6, len(raw) * 8 // 6
        for encode in (b64encode, urlsafe_b64encode):
            yield from _encoded(encode(raw).decode()[start:end])


def _without_words(text: str, part: str) -> str:
    """Return *text* without the words of Base64 that contain *part*."""
    kept: list[str] = []
    end = 0
    while (found := text.find(part, end)) >= 0:
        start = found
        while start > end and text[start - 1] in _BASE64:
            start -= 1
        kept += (text[end:start], HIDDEN)
        end = found + len(part)
        while end < len(text) and text[end] in _BASE64:
            end += 1
    return "".join(kept) + text[end:]


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
