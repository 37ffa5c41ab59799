"""The tokens that clients of the HTTP API send, as they are set."""

from __future__ import annotations

import re
from collections.abc import Mapping, Set
from dataclasses import dataclass, field

from .errors import ConfigurationError
from .variables import PREFIX as _PREFIX

__all__ = ["ReportToken", "Tokens", "tokens_in"]

TOKEN_MIN = 16
_TOKEN = re.compile(rf"[!-~]{{{TOKEN_MIN},}}")
_BOUND = re.compile(r"([a-z0-9-]{1,40}(?:\+[a-z0-9-]{1,40})*)=(.*[^=].*)")
"""Which scopes a token is for; one that ends in ``=``, as base64 may, says nothing of them."""


@dataclass(frozen=True, slots=True)
class ReportToken:
    """A token to report with.

    Attributes:
        token: Left out of every representation.
        scopes: Those that it is for; empty: all.
    """

    token: str = field(repr=False)
    scopes: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Tokens:
    """What those must send who read or write over HTTP. Left out of every representation.

    Attributes:
        read: Empty: everybody may read.
        write: Empty: nobody may write. Who writes may read.
        report: Those who send one of these may report and take permits, and nothing else.
    """

    read: str = field(default="", repr=False)
    write: str = field(default="", repr=False)
    report: tuple[ReportToken, ...] = ()

    @property
    def all(self) -> tuple[str, ...]:
        return (self.read, self.write, *(each.token for each in self.report))


def tokens_in(environ: Mapping[str, str], scopes: Set[str]) -> Tokens:
    """The tokens; what is wrong with one is said without it.

    Args:
        environ: Where they are set.
        scopes: What the service looks after.

    Raises:
        ConfigurationError: If one cannot be used, is set twice, or is for a scope that the service does not have.
    """
    read, write = (_token(environ, f"{_PREFIX}{name}_TOKEN") for name in ("READ", "WRITE"))
    if read and read == write:
        raise ConfigurationError(
            f"{_PREFIX}READ_TOKEN and {_PREFIX}WRITE_TOKEN are the same: choose two, or everybody who reads may write"
        )
    tokens = Tokens(read, write, _report_tokens(environ.get(f"{_PREFIX}REPORT_TOKEN", ""), scopes))
    if any(each.token in (read, write) for each in tokens.report):
        raise ConfigurationError(
            f"A token of {_PREFIX}REPORT_TOKEN is that of {_PREFIX}READ_TOKEN or {_PREFIX}WRITE_TOKEN too: choose "
            "another one, or whoever reports may do more"
        )
    return tokens


def _report_tokens(text: str, scopes: Set[str]) -> tuple[ReportToken, ...]:
    """Tokens between spaces, each for all scopes or, written ``team-a+team-b=<token>``, for some."""
    found = tuple(map(_report_token, text.split()))
    unknown = {name for each in found for name in each.scopes} - scopes
    if unknown:
        raise ConfigurationError(
            f"{_PREFIX}REPORT_TOKEN names the scope {min(unknown)!r}, which this service does not look after: "
            f"choose of {', '.join(sorted(scopes))}"
        )
    if len({each.token for each in found}) < len(found):
        raise ConfigurationError(f"{_PREFIX}REPORT_TOKEN has a token twice: name all of its scopes in one place")
    return found


def _report_token(text: str) -> ReportToken:
    bound = _BOUND.fullmatch(text)
    name = f"{_PREFIX}REPORT_TOKEN"
    if bound is None:
        return ReportToken(_token({name: text}, name))
    return ReportToken(_token({name: bound[2]}, name), frozenset(bound[1].split("+")))


def _token(environ: Mapping[str, str], name: str) -> str:
    token = environ.get(name, "").strip()
    if token and not _TOKEN.fullmatch(token):
        raise ConfigurationError(
            f"{name} cannot be used: write {TOKEN_MIN} or more of ASCII's letters, digits and signs, without spaces, "
            "such as what `openssl rand -hex 32` prints"
        )
    return token
