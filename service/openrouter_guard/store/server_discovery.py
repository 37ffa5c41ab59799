"""Finds the server that holds our keys: by its address, by asking Sentinels, or through any node of a Cluster."""

from __future__ import annotations

import os
import random
import socket
from dataclasses import dataclass
from typing import Any, TypeAlias

import redis.asyncio as aioredis
from redis import exceptions as failures
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from openrouter_guard.address import Address, Topology
from openrouter_guard.errors import ConfigurationError, StoreRefused, StoreUnavailable

from .handshake import ByNetwork, ByNetworkTLS, BySocket, Distance, Greeting

__all__ = ["ServerDiscovery", "Host", "Timeouts"]

Host: TypeAlias = tuple[str, int]

_KEEPALIVE = {"TCP_KEEPIDLE": 4, "TCP_KEEPINTVL": 1, "TCP_KEEPCNT": 2}
"""After 4 s of silence the kernels probe each other.

After two more seconds without an answer the connection is dead: so a powered-off host, or a firewall that dropped us,
is noticed at no cost for Redis.
"""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long Redis may take, in seconds, before it counts as away; longer if it is far away."""

    connect_s: float = 1.0
    answer_s: float = 1.0


class ServerDiscovery:
    """Creates clients for one address.

    Attributes:
        distance: Measures its distance.

    Raises:
        ConfigurationError: If a file named by the address cannot be read.
    """

    def __init__(self, address: Address, timeouts: Timeouts) -> None:
        self._address = address
        self._timeouts = timeouts
        self.distance = Distance()
        # If all processes of a fleet asked the same one first, they would overload it.
        self._hosts = random.sample(address.hosts, len(address.hosts))
        tls = _tls_options(address)
        by_network = ByNetworkTLS if tls else ByNetwork
        self._by_network = {"connection_class": by_network, **_keepalive()} | tls
        self._by_socket = {"connection_class": BySocket}

    async def find(self) -> aioredis.Redis:
        """Return a client of the server, which may still turn out to be away.

        Raises:
            StoreError: If no Sentinel or node knows it.
        """
        match self._address.topology:
            case Topology.SENTINEL:
                return self.client(await self._primary())
            case Topology.CLUSTER:
                return await self._node()
            case _:
                return self.client(self._hosts[0] if self._hosts else None)

    def client(self, host: Host | None) -> aioredis.Redis:
        """Return a client of one server; without a host, the one behind the socket."""
        where = {"path": self._address.path} if host is None else {"host": host[0], "port": host[1]}
        return self._client(Greeting(self._address.login, self._address.database, self.distance), **where)

    def learn(self, host: Host) -> None:
        """Remember a node of the Cluster that is not in the address: it will be asked too."""
        if host not in self._hosts:
            self._hosts.append(host)

    async def _primary(self) -> Host:
        refusal: Exception | None = None
        silence: Exception | None = None
        for host in list(self._hosts):
            try:
                found = await self._ask_sentinel(host)
            except failures.AuthenticationError as error:
                refusal = error
            except (failures.ConnectionError, failures.TimeoutError, OSError) as error:
                silence = error
            except failures.ResponseError as error:
                refusal = error
            else:
                self._prefer(host)
                if found is not None:
                    return found
                refusal = failures.ResponseError(f"they watch nothing called {self._address.service!r}")
        if refusal is not None:
            raise StoreRefused(
                f"the Sentinels of {self._address} do not name the address of Redis ({refusal}): look at the name "
                "after their addresses, and at sentinel_username and sentinel_password in REDIS_URL"
            ) from refusal
        raise StoreUnavailable(
            f"none of the Sentinels of {self._address} answers: {silence}", is_silent=_is_timeout(silence)
        ) from silence

    async def _ask_sentinel(self, host: Host) -> Host | None:
        question = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._address.service)
        greeting = Greeting(self._address.sentinel_login, 0, self.distance)
        async with self._client(greeting, host=host[0], port=host[1]) as sentinel:
            found = await sentinel.execute_command(*question)  # type: ignore[no-untyped-call]
        return (str(found[0]), int(found[1])) if found else None

    async def _node(self) -> aioredis.Redis:
        """Return the first node that answers; it redirects us to the one with our keys."""
        last: Exception | None = None
        for host in list(self._hosts):
            client = self.client(host)
            try:
                await client.ping()
            except failures.AuthenticationError:
                await client.aclose()
                raise
            except (failures.ConnectionError, failures.TimeoutError, OSError) as error:
                await client.aclose()
                last = error
            else:
                self._prefer(host)
                return client
        raise StoreUnavailable(f"no node of {self._address} answers: {last}", is_silent=_is_timeout(last)) from last

    def _prefer(self, host: Host) -> None:
        self._hosts.remove(host)
        self._hosts.insert(0, host)

    def _client(self, greeting: Greeting, **where: Any) -> aioredis.Redis:
        # Our own pool: the client's default asks each server for notices of maintenance, at every connection.
        pool = aioredis.ConnectionPool(
            **(self._by_socket if "path" in where else self._by_network),
            **where,
            **greeting.options,
            decode_responses=True,
            # Any client may write anything: an invalid byte costs only the field that it is in.
            encoding_errors="replace",
            socket_connect_timeout=self._timeouts.connect_s,
            socket_timeout=self._timeouts.answer_s,
            # A retry inside the client would multiply the timeouts; the caller knows when to retry.
            retry=Retry(NoBackoff(), 0),
        )
        return aioredis.Redis.from_pool(pool)


def _is_timeout(error: Exception | None) -> bool:
    return isinstance(error, failures.TimeoutError | TimeoutError)


def _keepalive() -> dict[str, Any]:
    """Options for redis-py; not every system has all of them."""
    options = {getattr(socket, name): value for name, value in _KEEPALIVE.items() if hasattr(socket, name)}
    return {"socket_keepalive": True, "socket_keepalive_options": options}


def _tls_options(address: Address) -> dict[str, Any]:
    tls = address.tls
    if tls is None:
        return {}
    for option, file in tls.files.items():
        if not os.access(file, os.R_OK):
            raise ConfigurationError(f"REDIS_URL has {option}={file}: there is no such file, or it cannot be read")
    return {
        "ssl_ca_certs": tls.ca_certs or None,
        "ssl_certfile": tls.certfile or None,
        "ssl_keyfile": tls.keyfile or tls.certfile or None,
        "ssl_cert_reqs": "required" if tls.verifies else "none",
        "ssl_check_hostname": tls.verifies and tls.checks_hostname,
    }
