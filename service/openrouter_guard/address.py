"""The address in ``REDIS_URL``: parsed by one pure function, and shown without its secrets.

    redis://user:password@host:6379/0                              one server
    unix:///run/redis.sock?db=0                                    one server, by its socket
    redis+sentinel://user:password@host:26379,host2:26379/name/0   whichever server the Sentinels name
    redis+cluster://user:password@host:6379,host2:6379             a Cluster

``rediss…`` is the same over TLS. docs/redis.md lists the options that may follow a ``?``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from .errors import ConfigurationError
from .keys import DEFAULT_SCOPE

__all__ = ["Address", "Login", "Tls", "Topology", "parse_address"]

REDIS_PORT, SENTINEL_PORT = 6379, 26379
_FORMS = (
    "write redis://host:6379/0, rediss://… for TLS, unix:///path, "
    "redis+sentinel://host:26379,host2:26379/name/0, or redis+cluster://host:6379,host2:6379"
)
_ESCAPE = "; in a password, / is written %2F, @ %40, # %23 and ? %3F"
_OPTIONS = frozenset(
    {
        "db",
        "username",
        "password",
        "sentinel_username",
        "sentinel_password",
        "ssl_ca_certs",
        "ssl_certfile",
        "ssl_keyfile",
        "ssl_cert_reqs",
        "ssl_check_hostname",
    }
)
_OF_OTHERS = frozenset(
    {
        "client_name",
        "decode_responses",
        "encoding",
        "encoding_errors",
        "health_check_interval",
        "max_connections",
        "protocol",
        "retry_on_timeout",
        "socket_connect_timeout",
        "socket_keepalive",
        "socket_timeout",
        "timeout",
    }
)
"""Options of other clients that share the address; this product uses its own settings."""
_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_VERIFY = {"required": True, "cert_required": True, "none": False, "cert_none": False}


class Topology(Enum):
    """The kind of server behind an address."""

    SERVER = "redis"
    SOCKET = "unix"
    SENTINEL = "redis+sentinel"
    CLUSTER = "redis+cluster"


@dataclass(frozen=True, slots=True)
class Login:
    """User and password; both empty if none are needed."""

    username: str = ""
    password: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Tls:
    """Encryption of the connection; the files are PEM.

    Attributes:
        ca_certs: File of the authorities to trust; empty: those of the system.
        certfile: File of our own certificate, if the server asks for one.
        keyfile: File of its key; empty: in the same file.
        verifies: Whether the server's certificate is checked.
        checks_hostname: … and the name in it.
    """

    ca_certs: str = ""
    certfile: str = ""
    keyfile: str = ""
    verifies: bool = True
    checks_hostname: bool = True

    @property
    def files(self) -> Mapping[str, str]:
        """Return the set options by name."""
        named = {"ssl_ca_certs": self.ca_certs, "ssl_certfile": self.certfile, "ssl_keyfile": self.keyfile}
        return {option: file for option, file in named.items() if file}


@dataclass(frozen=True, slots=True)
class Address:
    """The parsed ``REDIS_URL``; as text it has no users and passwords.

    Attributes:
        hosts: Hosts of the server, the Sentinels, or some nodes of the Cluster, with ports.
        path: Path of the socket.
        service: Name of the server at the Sentinels.
        login: For Redis itself.
        sentinel_login: For the Sentinels.
        tls: None if the connection is not encrypted.
    """

    topology: Topology
    hosts: tuple[tuple[str, int], ...] = ()
    path: str = ""
    database: int = 0
    service: str = ""
    login: Login = Login()
    sentinel_login: Login = Login()
    tls: Tls | None = None

    def for_scope(self, scope: str) -> Address:
        """Return itself, if it can hold the keys of *scope*.

        Raises:
            ConfigurationError: If it cannot.
        """
        if self.topology is Topology.CLUSTER and scope == DEFAULT_SCOPE:
            raise ConfigurationError(
                "REDIS_URL names a Cluster, where the keys of the default scope would lie on different nodes: "
                "give the fleet a scope with a name, such as OPENROUTER_GUARD_SCOPE=main"
            )
        return self

    def __str__(self) -> str:
        scheme = self.topology.value.replace("redis", "rediss") if self.tls else self.topology.value
        hosts = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts)
        match self.topology:
            case Topology.SOCKET:
                path = self.path
            case Topology.SENTINEL:
                path = f"/{self.service}/{self.database}"
            case Topology.CLUSTER:
                path = ""
            case Topology.SERVER:
                path = f"/{self.database}"
        return f"{scheme}://{hosts}{path}"


def parse_address(url: str) -> Address:
    """Read an address.

    Raises:
        ConfigurationError: If it is not an address of Redis; the message never holds a secret.
    """
    scheme, there, rest = url.partition("://")
    if not there:
        raise ConfigurationError(f"REDIS_URL is not an address: {_FORMS}")
    topology = _topology(scheme)
    netloc, path, query = _split(rest)
    options = _options(query)
    user, _, hosts = netloc.rpartition("@")
    database, service = _where(topology, path, options)
    tls = _tls(options, is_on=scheme.startswith("rediss"))
    return Address(
        topology=topology,
        hosts=_hosts(topology, hosts),
        path=_unquoted(path) if topology is Topology.SOCKET else "",
        database=database,
        service=service,
        login=_login(user, options),
        sentinel_login=_sentinel_login(topology, options),
        tls=tls,
    )


def _topology(scheme: str) -> Topology:
    for topology in Topology:
        if scheme in (topology.value, topology.value.replace("redis", "rediss")):
            return topology
    shown = f"starts with {scheme!r}" if re.fullmatch(r"[a-z][a-z+]{0,20}", scheme) else "is not an address"
    raise ConfigurationError(f"REDIS_URL {shown}: {_FORMS}")


def _split(rest: str) -> tuple[str, str, str]:
    """Return host, path and query. Text after the host may be part of a password, so it is never shown."""
    cut = re.search(r"[/?#]", rest)
    end = cut.start() if cut else len(rest)
    netloc, tail = rest[:end], rest[end:]
    if "@" in tail or "#" in tail:
        raise ConfigurationError(f"REDIS_URL has no usable host and port: {_FORMS}{_ESCAPE}")
    path, _, query = tail.partition("?")
    return netloc, path, query


def _options(query: str) -> dict[str, str]:
    options = {}
    for pair in filter(None, query.split("&")):
        name, _, value = pair.partition("=")
        if name not in _OPTIONS | _OF_OTHERS:
            shown = repr(name) if re.fullmatch(r"[a-z_]{1,30}", name) else "an option"
            raise ConfigurationError(f"REDIS_URL has {shown}, which is none of {', '.join(sorted(_OPTIONS))}")
        options[name] = _unquoted(value.replace("+", " "))
    return options


def _hosts(topology: Topology, text: str) -> tuple[tuple[str, int], ...]:
    if topology is Topology.SOCKET:
        if text:
            raise ConfigurationError("REDIS_URL names a host and a socket: write unix:///path, with three slashes")
        return ()
    is_many = topology is not Topology.SERVER
    port = SENTINEL_PORT if topology is Topology.SENTINEL else REDIS_PORT
    hosts = tuple(_host(part, port) for part in text.split(",")) if is_many else (_host(text, port),)
    if is_many and not all(host for host, _ in hosts):
        raise ConfigurationError(f"REDIS_URL names a host without a name: {_FORMS}")
    return tuple((host or "localhost", port) for host, port in hosts)


def _host(text: str, default_port: int) -> tuple[str, int]:
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.%]+)\]|([^\[\]:,@\s]*))(?::(\d{1,5}))?", text)
    if not found or not 0 < int(found[3] or default_port) < 65536:
        # This may be a piece of a password.
        raise ConfigurationError(f"REDIS_URL has no usable host and port: {_FORMS}{_ESCAPE}")
    return _unquoted(found[1] or found[2] or ""), int(found[3] or default_port)


def _where(topology: Topology, path: str, options: Mapping[str, str]) -> tuple[int, str]:
    """Return the database, and the service of the Sentinels."""
    if topology is Topology.SOCKET:
        if not path.strip("/"):
            raise ConfigurationError("REDIS_URL names no socket: write unix:///path")
        return _database(options.get("db", "")), ""
    service, database = path[1:].partition("/")[::2] if topology is Topology.SENTINEL else ("", path[1:])
    if topology is Topology.SENTINEL and not re.fullmatch(r"[A-Za-z0-9._-]+", service):
        raise ConfigurationError(
            "REDIS_URL lacks the name of the server at the Sentinels: "
            "write redis+sentinel://host:26379/name/0, with the name of their 'sentinel monitor'"
        )
    found = _database(options.get("db", database))
    if found and topology is Topology.CLUSTER:
        raise ConfigurationError("REDIS_URL names a database of a Cluster, which has one: leave the number out")
    return found, service


def _database(text: str) -> int:
    if not re.fullmatch(r"\d{0,9}", text):
        raise ConfigurationError(f"REDIS_URL does not end in a database number: {_FORMS}{_ESCAPE}")
    return int(text or 0)


def _login(user: str, options: Mapping[str, str]) -> Login:
    name, _, password = user.partition(":")
    return Login(
        _unquoted(name) or options.get("username", ""),
        _unquoted(password) or options.get("password", ""),
    )


def _sentinel_login(topology: Topology, options: Mapping[str, str]) -> Login:
    login = Login(options.get("sentinel_username", ""), options.get("sentinel_password", ""))
    if login != Login() and topology is not Topology.SENTINEL:
        raise ConfigurationError("REDIS_URL has a login for Sentinels, but names none: write redis+sentinel://…")
    return login


def _tls(options: Mapping[str, str], *, is_on: bool) -> Tls | None:
    wanted = sorted(name for name in options if name.startswith("ssl_"))
    if not is_on:
        if wanted:
            raise ConfigurationError(f"REDIS_URL has {wanted[0]}, and no TLS: begin it with rediss")
        return None
    tls = Tls(
        ca_certs=options.get("ssl_ca_certs", ""),
        certfile=options.get("ssl_certfile", ""),
        keyfile=options.get("ssl_keyfile", ""),
        verifies=_word(options, "ssl_cert_reqs", _VERIFY),
        checks_hostname=_word(options, "ssl_check_hostname", _BOOLEANS),
    )
    if tls.keyfile and not tls.certfile:
        raise ConfigurationError("REDIS_URL has ssl_keyfile, and no ssl_certfile that the key belongs to")
    return tls


def _unquoted(text: str) -> str:
    if "%" not in text:
        return text
    # Imported here: a probe that starts every few seconds should not pay for it.
    from urllib.parse import unquote

    return unquote(text)


def _word(options: Mapping[str, str], name: str, words: Mapping[str, bool]) -> bool:
    if name not in options:
        return True
    try:
        return words[options[name].lower()]
    except KeyError:
        raise ConfigurationError(f"REDIS_URL has {name}={options[name]!r}: write one of {', '.join(words)}") from None
