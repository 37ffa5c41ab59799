"""The configured tokens of the HTTP API's clients."""

from __future__ import annotations

import re
from collections.abc import Mapping, Set
from dataclasses import dataclass, field

from .errors import ConfigurationError
from .variables import PREFIX as _PREFIX
from .variables import is_strict_x509

__all__ = ["ReportToken", "Reporters", "Tokens", "tokens_in"]

TOKEN_MIN = 16
AUDIENCE = "openrouter-guard"
_NAMESPACE = re.compile(r"([a-z0-9-]{1,63})(?:=([a-z0-9-]{1,40}(?:\+[a-z0-9-]{1,40})*))?")
_AUDIENCE = re.compile(r"[!-~]{1,200}")
_TOKEN = re.compile(rf"[!-~]{{{TOKEN_MIN},}}")
_BOUND = re.compile(r"([a-z0-9-]{1,40}(?:\+[a-z0-9-]{1,40})*)=(.*[^=].*)")
"""The scopes of a token; a token that ends in ``=``, as base64 may, names none."""


@dataclass(frozen=True, slots=True)
class ReportToken:
    """A report token.

    Attributes:
        token: Left out of every representation.
        scopes: Its scopes; empty: all.
    """

    token: str = field(repr=False)
    scopes: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Reporters:
    """ServiceAccounts of the cluster whose tokens act as report tokens.

    Attributes:
        namespaces: Their namespaces, each with its scopes; no scopes: all. None: such tokens are not accepted.
        audience: Audience that a token must have been issued for; a token for the API server must not be sent to
            others.
        server: The address of the API server, which checks tokens.
        strict_x509: Whether its certificate authority must have the extensions of RFC 5280.
    """

    namespaces: tuple[tuple[str, frozenset[str]], ...] = ()
    audience: str = AUDIENCE
    server: str = ""
    strict_x509: bool = True


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens required to read or write over HTTP. Left out of every representation.

    Attributes:
        read: Empty: every client may read.
        write: Empty: no client may write. Writing includes reading.
        report: Tokens that may report, take permits and ask the gate, and nothing else.
        reporters: ServiceAccounts with the same rights.
    """

    read: str = field(default="", repr=False)
    write: str = field(default="", repr=False)
    report: tuple[ReportToken, ...] = ()
    reporters: Reporters = Reporters()

    @property
    def all(self) -> tuple[str, ...]:
        return (self.read, self.write, *(each.token for each in self.report))


def tokens_in(environ: Mapping[str, str], scopes: Set[str]) -> Tokens:
    """Return the tokens; errors do not quote them.

    Args:
        environ: The environment.
        scopes: The service's scopes.

    Raises:
        ConfigurationError: If one is invalid, is set twice, or is for a scope that the service does not have.
    """
    read, write = (_token(environ, f"{_PREFIX}{name}_TOKEN") for name in ("READ", "WRITE"))
    if read and read == write:
        raise ConfigurationError(
            f"{_PREFIX}READ_TOKEN and {_PREFIX}WRITE_TOKEN are the same: choose two, or every reader may write"
        )
    report = _report_tokens(environ.get(f"{_PREFIX}REPORT_TOKEN", ""), scopes)
    tokens = Tokens(read, write, report, _reporters(environ, scopes))
    if any(each.token in (read, write) for each in tokens.report):
        raise ConfigurationError(
            f"A token of {_PREFIX}REPORT_TOKEN is that of {_PREFIX}READ_TOKEN or {_PREFIX}WRITE_TOKEN too: choose "
            "another one, or whoever reports may do more"
        )
    return tokens


def _report_tokens(text: str, scopes: Set[str]) -> tuple[ReportToken, ...]:
    """Parse tokens separated by spaces, each for all scopes or, written ``team-a+team-b=<token>``, for some."""
    found = tuple(map(_report_token, text.split()))
    _refuse_unknown(f"{_PREFIX}REPORT_TOKEN", {name for each in found for name in each.scopes}, scopes)
    if len({each.token for each in found}) < len(found):
        raise ConfigurationError(f"{_PREFIX}REPORT_TOKEN has a token twice: name all of its scopes in one place")
    return found


def _reporters(environ: Mapping[str, str], scopes: Set[str]) -> Reporters:
    """Parse namespaces separated by spaces, each for all scopes or, written ``workers=team-a+team-b``, for some."""
    name = f"{_PREFIX}REPORTER_NAMESPACES"
    found = [(text, _NAMESPACE.fullmatch(text)) for text in environ.get(name, "").split()]
    wrong = next((text for text, match in found if match is None), None)
    if wrong is not None:
        raise ConfigurationError(f"{name} has {wrong!r}: write namespaces such as workers or workers=team-a+team-b")
    namespaces = {match[1]: frozenset((match[2] or "").split("+")) - {""} for _, match in found if match}
    if len(namespaces) < len(found):
        raise ConfigurationError(f"{name} has a namespace twice: name all of its scopes in one place")
    _refuse_unknown(name, {scope for each in namespaces.values() for scope in each}, scopes)
    audience = environ.get(f"{_PREFIX}REPORTER_AUDIENCE", "").strip() or AUDIENCE
    if not _AUDIENCE.fullmatch(audience):
        raise ConfigurationError(f"{_PREFIX}REPORTER_AUDIENCE cannot be used: write one word, such as {AUDIENCE}")
    if not namespaces:
        return Reporters()
    return Reporters(tuple(namespaces.items()), audience, _api_server(name, environ), is_strict_x509(environ))


def _api_server(name: str, environ: Mapping[str, str]) -> str:
    host = environ.get("KUBERNETES_SERVICE_HOST", "")
    if not host:
        raise ConfigurationError(
            f"{name} is set, but this process runs in no cluster: KUBERNETES_SERVICE_HOST is not there"
        )
    port = environ.get("KUBERNETES_SERVICE_PORT") or "443"
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


def _refuse_unknown(name: str, named: Set[str], scopes: Set[str]) -> None:
    if unknown := named - scopes:
        raise ConfigurationError(
            f"{name} names the scope {min(unknown)!r}, which this service does not look after: "
            f"choose of {', '.join(sorted(scopes))}"
        )


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
