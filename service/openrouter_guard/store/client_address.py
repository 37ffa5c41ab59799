"""Finds the address of a foreign redis-py client, and creates a client for an address.

The library opens connections of its own: a given client may decode its answers or not, wait for ever, or belong to
another event loop. Any object with a connection pool will do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import redis.asyncio as aioredis

from openrouter_guard.errors import ConfigurationError

__all__ = ["client_of", "url_of"]

_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")


def url_of(redis_client: Any) -> str:
    """Return the address of a client, or a given address itself.

    Raises:
        ConfigurationError: If it is neither, or no address can describe its connections.
    """
    if isinstance(redis_client, str):
        return redis_client
    pool = getattr(redis_client, "connection_pool", None)
    known = getattr(pool, "connection_kwargs", None)
    nodes = getattr(redis_client, "nodes_manager", None)
    if isinstance(getattr(nodes, "startup_nodes", None), Mapping):
        return _cluster(redis_client, nodes)
    if not isinstance(known, Mapping):
        raise ConfigurationError(
            f"{type(redis_client).__name__} is not a client of redis-py: give one, or the address of Redis"
        )
    return _sentinel(pool, known) if hasattr(pool, "sentinel_manager") else _server(pool, known)


def client_of(url: str) -> Any:
    """Return a redis-py client for the address of one server, which decodes its answers.

    None for any other address.
    """
    if not url.startswith(("redis://", "rediss://", "unix://")):
        return None
    return aioredis.Redis.from_url(url, decode_responses=True)


def _server(pool: Any, known: Mapping[str, Any]) -> str:
    query = {"db": str(known.get("db") or 0)}
    if known.get("path"):
        return f"unix://{_login(known)}{quote(str(known['path']))}{_query(query)}"
    tls = _tls(pool, known)
    scheme = "redis" if tls is None else "rediss"
    return f"{scheme}://{_login(known)}{_host(known, 6379)}/{query['db']}{_query(tls or {})}"


def _sentinel(pool: Any, known: Mapping[str, Any]) -> str:
    manager = pool.sentinel_manager
    asked = [each.connection_pool.connection_kwargs for each in manager.sentinels]
    if not asked:
        raise ConfigurationError("the client of Redis knows no Sentinels: give the address of Redis")
    tls = _tls(pool, known)
    options = dict(tls or {})
    for name in ("username", "password"):
        if asked[0].get(name):
            options[f"sentinel_{name}"] = str(asked[0][name])
    hosts = ",".join(_host(each, 26379) for each in asked)
    scheme = "redis+sentinel" if tls is None else "rediss+sentinel"
    return f"{scheme}://{_login(known)}{hosts}/{pool.service_name}/{known.get('db') or 0}{_query(options)}"


def _cluster(client: Any, nodes: Any) -> str:
    known = getattr(client, "connection_kwargs", None) or getattr(nodes, "connection_kwargs", {})
    started = list(nodes.startup_nodes.values())
    hosts = ",".join(_host({"host": node.host, "port": node.port}, 6379) for node in started)
    return f"redis+cluster://{_login(known)}{hosts}"


def _host(known: Mapping[str, Any], port: int) -> str:
    host = str(known.get("host") or "localhost")
    return f"{f'[{host}]' if ':' in host else quote(host)}:{known.get('port') or port}"


def _login(known: Mapping[str, Any]) -> str:
    username, password = known.get("username"), known.get("password")
    if provider := known.get("credential_provider"):
        username, password = ("", *provider.get_credentials())[-2:]
    if not username and not password:
        return ""
    return f"{quote(str(username or ''), safe='')}:{quote(str(password or ''), safe='')}@"


def _tls(pool: Any, known: Mapping[str, Any]) -> dict[str, str] | None:
    """Return the options of an encrypted connection; None for others."""
    if "SSL" not in getattr(pool.connection_class, "__name__", ""):
        return None
    if known.get("ssl_ca_data") or known.get("ssl_ca_path"):
        raise ConfigurationError(
            "the client of Redis has authorities that are in no file: give the address of Redis, with ssl_ca_certs"
        )
    options = {name: str(known[name]) for name in _FILES if known.get(name)}
    # A member of the standard library's enumeration, its name, its number, or a word.
    wanted = getattr(known.get("ssl_cert_reqs"), "name", str(known.get("ssl_cert_reqs"))).lower()
    if wanted in {"none", "cert_none", "0"} and "ssl_cert_reqs" in known and known["ssl_cert_reqs"] is not None:
        options["ssl_cert_reqs"] = "none"
    if known.get("ssl_check_hostname") is False:
        options["ssl_check_hostname"] = "false"
    return options


def _query(options: Mapping[str, str]) -> str:
    return "?" + "&".join(f"{name}={quote(value, safe='')}" for name, value in options.items()) if options else ""
