"""``rediss://``: trust, client certificates, and error messages, with a real Valkey."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from openrouter_guard.address import parse_address
from openrouter_guard.errors import ConfigurationError, StoreError, StoreRefused
from openrouter_guard.probe import read
from openrouter_guard.store import Store
from tests.controlplane.certificates import Authority
from tests.relay import relaying
from tests.store.batches import report, store_at


@dataclass(frozen=True, slots=True)
class Files:
    """PEM files; the server is ``localhost`` and ``127.0.0.1``."""

    authority: Path
    stranger: Path
    server: Path
    client: Path
    client_key: Path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("tls")
    authority, stranger = Authority(), Authority()
    files = Files(*(folder / f"{name}.pem" for name in ("ca", "stranger", "server", "client", "client-key")))
    files.authority.write_bytes(authority.certificate)
    files.stranger.write_bytes(stranger.certificate)
    files.server.write_bytes(b"".join(authority.issue_server()))
    certificate, key = authority.issue_user("worker")
    files.client.write_bytes(certificate)
    files.client_key.write_bytes(key)
    return files


@contextmanager
def encrypted(files: Files, redis_url: str, *, asks_for_certificate: bool = False) -> Iterator[int]:
    """Valkey behind TLS; yields the port."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(files.authority))
    context.load_cert_chain(files.server)
    if asks_for_certificate:
        context.verify_mode = ssl.CERT_REQUIRED
    port = int(redis_url.rpartition(":")[2].partition("/")[0])
    with relaying(lambda: port, tls=context) as encrypted_port:
        yield encrypted_port


async def works(url: str) -> bool:
    """Whether a worker and the probe come through."""
    async with store_at(url) as store:
        await report(store, 3)
    record, _ = await asyncio.to_thread(read, parse_address(url), "default", 2.0)
    return record is not None and record.breaker.failures % 3 == 0


async def is_refused(url: str, words: str) -> bool:
    """Whether both are told so."""
    async with store_at(url) as store:
        with pytest.raises(StoreRefused, match=words):
            await report(store)
    with pytest.raises(StoreRefused, match=words):
        await asyncio.to_thread(read, parse_address(url), "default", 2.0)
    return True


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(lambda files: f"ssl_ca_certs={files.authority}", id="an authority of one's own"),
        pytest.param(lambda _: "ssl_cert_reqs=none", id="none at all"),
    ],
)
async def test_the_server_is_trusted(files: Files, redis_url: str, options: Callable[[Files], str]) -> None:
    with encrypted(files, redis_url) as port:
        assert await works(f"rediss://localhost:{port}/0?{options(files)}")


async def test_a_server_that_nobody_vouches_for_is_not(files: Files, redis_url: str) -> None:
    with encrypted(files, redis_url) as port:
        url = f"rediss://:hunter2@localhost:{port}/0?ssl_ca_certs={files.stranger}"
        assert await is_refused(url, r"TLS failed \(.*\): look at the ssl_… options of REDIS_URL")


async def test_nor_one_with_another_name_unless_that_is_what_one_wants(files: Files, redis_url: str) -> None:
    with encrypted(files, redis_url) as port:
        url = f"rediss://127.0.0.2:{port}/0?ssl_ca_certs={files.authority}"
        assert await is_refused(url, r"TLS failed \(IP address mismatch.*127\.0\.0\.2")
        assert await works(f"{url}&ssl_check_hostname=false")


async def test_who_must_show_a_certificate_shows_it(files: Files, redis_url: str) -> None:
    with encrypted(files, redis_url, asks_for_certificate=True) as port:
        url = f"rediss://localhost:{port}/0?ssl_ca_certs={files.authority}"
        assert await works(f"{url}&ssl_certfile={files.client}&ssl_keyfile={files.client_key}")
        # Where the server ends the connection in the middle, that may be all there is to say.
        async with store_at(url) as store:
            with pytest.raises(StoreError):
                await report(store)
        with pytest.raises(StoreError):
            await asyncio.to_thread(read, parse_address(url), "default", 2.0)


async def test_sentinels_and_cluster_are_asked_over_tls_too(files: Files, redis_url: str) -> None:
    with encrypted(files, redis_url) as port:
        tls = f"ssl_ca_certs={files.authority}"
        async with store_at(f"rediss+cluster://localhost:{port}?{tls}", "main") as store:
            await report(store)
        async with store_at(f"rediss+sentinel://localhost:{port}/main?{tls}") as store:
            # It answers, over TLS, that it is none.
            with pytest.raises(StoreRefused, match="unknown command 'SENTINEL'"):
                await report(store)


@pytest.mark.parametrize("option", ["ssl_ca_certs=/nowhere.pem", "ssl_certfile=/nowhere.pem"])
def test_a_file_that_is_not_there_is_said_at_once(option: str) -> None:
    url = f"rediss://:hunter2@localhost/0?{option}"
    with pytest.raises(ConfigurationError, match=f"REDIS_URL has {option}: there is no such file") as caught:
        Store.from_url(url)
    with pytest.raises(ConfigurationError, match="a file that REDIS_URL names cannot be used"):
        read(parse_address(url), "default", 0.1)
    assert "hunter2" not in str(caught.value)
