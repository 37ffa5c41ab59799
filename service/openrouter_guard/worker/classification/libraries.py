"""The meaning of client libraries' exceptions, by their names: none of the libraries is imported.

A name stands for a class and its subclasses, alone or with its package. Seen in httpx 0.28, httpx2 2.16, httpcore
1.0, requests 2.34, urllib3 2.8, aiohttp 3.14, openai 3.54, openrouter 1.3, litellm 1.110, pydantic-ai 2.38,
instructor 1.17, tenacity 9.2, langchain-openai 1.7.
"""

from __future__ import annotations

import errno
from enum import Enum, auto

from .causes import package

__all__ = ["FOREIGN", "Meaning", "meaning_of", "meaning_of_kind"]


class Meaning(Enum):
    """The meaning of an exception without a status."""

    OWN = auto()
    """The caller's own mistake: nothing was sent."""
    TIMEOUT = auto()
    NETWORK = auto()
    WRAPPER = auto()
    """A network error, unless its cause says more."""
    UNREADABLE = auto()
    """The answer does not fit its encoding."""
    RETRIES = auto()
    """A library's retries failed; its text names the status."""
    SERVER = auto()
    """An answer of a web framework: its status is not the upstream's."""
    IN_STREAM = auto()
    """An error inside a stream that had begun well."""


_MEANINGS = {
    Meaning.OWN: (
        "PoolTimeout LocalProtocolError UnsupportedProtocol InvalidURL CookieConflict httpx.StreamError "
        "httpx2.StreamError "
        "MissingSchema InvalidSchema InvalidHeader InvalidProxyURL NonHttpUrlClientError UnrewindableBodyError "
        "urllib3.PoolError urllib3.LocationValueError urllib3.ProxySchemeUnknown urllib3.ProxySchemeUnsupported "
        "openrouter_guard.OpenRouterGuardError http.CannotSendRequest http.CannotSendHeader http.NotConnected "
        "http.UnknownProtocol"
    ),
    Meaning.TIMEOUT: (
        "TimeoutException APITimeoutError ReadTimeout ConnectTimeout ServerTimeoutError trio.TooSlowError "
        "builtins.TimeoutError requests.Timeout openai.Timeout niquests.Timeout curl_cffi.Timeout litellm.Timeout "
        "urllib3.TimeoutError"
    ),
    Meaning.NETWORK: (
        "TransportError httpcore.NetworkError httpcore2.NetworkError "
        "RemoteProtocolError ClientConnectionError ClientPayloadError NoResponseError "
        "ChunkedEncodingError IncompleteRead builtins.ConnectionError socket.gaierror ssl.SSLError "
        "http.BadStatusLine http.LineTooLong asyncio.IncompleteReadError anyio.EndOfStream "
        "anyio.BrokenResourceError urllib3.ProtocolError urllib3.NewConnectionError urllib3.ProxyError "
        "urllib3.SSLError aiohttp.PayloadEncodingError tornado.StreamClosedError"
    ),
    Meaning.WRAPPER: (
        "APIConnectionError urllib3.MaxRetryError requests.ConnectionError niquests.ConnectionError "
        "curl_cffi.ConnectionError urllib.URLError"
    ),
    Meaning.UNREADABLE: "DecodingError ContentDecodingError urllib3.DecodeError",
    Meaning.RETRIES: "requests.RetryError urllib3.ResponseError",
    Meaning.SERVER: (
        "starlette.HTTPException fastapi.HTTPException werkzeug.HTTPException aiohttp.HTTPException "
        "rest_framework.APIException tornado.HTTPError sanic.SanicException litestar.HTTPException "
        "falcon.HTTPError bottle.HTTPError"
    ),
    Meaning.IN_STREAM: "openai.APIError",
}
_BY_NAME = {name: meaning for meaning, names in _MEANINGS.items() for name in names.split()}

_FOREIGN = """
    redis valkey coredis sqlalchemy sqlite3 psycopg psycopg2 asyncpg pymysql MySQLdb mysql aiomysql
    asyncmy oracledb pyodbc pymongo motor cassandra clickhouse_connect clickhouse_driver elasticsearch
    elastic_transport opensearchpy kombu amqp pika aio_pika aiormq kafka aiokafka confluent_kafka nats
    grpc grpclib google botocore boto3 aiobotocore s3transfer azure kubernetes kubernetes_asyncio kr8s
    docker paramiko ldap3 smtplib aiosmtplib ftplib imaplib poplib pymemcache aiomcache etcd3 consul
    hvac filelock selenium playwright snowflake pinecone qdrant_client weaviate chromadb psycopg_pool
"""
FOREIGN = frozenset(_FOREIGN.split())
"""Packages whose exceptions, and their causes, are about something else: databases, queues, clouds."""


_UNREACHED = frozenset({errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EHOSTUNREACH})
"""Network errors without a class in Python."""
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EADDRNOTAVAIL})
"""The machine has no more files, memory or ports: nothing was sent."""


def meaning_of(error: BaseException) -> Meaning | None:
    """Return the meaning of an exception: by its error number if it has one, else by its class."""
    number = error.errno if isinstance(error, OSError) else None
    if number in _EXHAUSTED:
        return Meaning.OWN
    return meaning_of_kind(type(error)) or (Meaning.NETWORK if number in _UNREACHED else None)


def meaning_of_kind(kind: type) -> Meaning | None:
    """Return the meaning of this class: that of its nearest known base class; None if there is none."""
    for each in kind.__mro__:
        found = _BY_NAME.get(each.__name__) or _BY_NAME.get(f"{package(each)}.{each.__name__}")
        if found is not None:
            return found
    return None
