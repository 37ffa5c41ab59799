"""Clusters whose certificate authority lacks X.509 extensions that Python requires since 3.13."""

from __future__ import annotations

import asyncio
import datetime as dt
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import kopf
import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from kubernetes.aio.client import Configuration

from openrouter_operator.kubernetes.client import Cluster
from openrouter_operator.kubernetes.errors import Unavailable
from openrouter_operator.kubernetes.login import login

DEPLOYMENTS = ("apps", "v1", "deployments")
HINT = "set OPENROUTER_GUARD_STRICT_X509=false"


@pytest.fixture(autouse=True)
def of_python_3_13(monkeypatch: pytest.MonkeyPatch) -> None:
    """Older versions of Python have the rules, and do not apply them by default."""
    create = ssl.create_default_context

    def strict(*words: Any, **named: Any) -> ssl.SSLContext:
        context = create(*words, **named)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        return context

    monkeypatch.setattr(ssl, "create_default_context", strict)


@pytest.fixture
def old(tmp_path: Path) -> tuple[Path, Path]:
    """PEM files: an authority of an old cluster, without key usage and key identifiers, and a server certificate."""
    authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "old")])
    now = dt.datetime.now(dt.UTC)

    def draft(of: ec.EllipticCurvePrivateKey, subject: str) -> x509.CertificateBuilder:
        named = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
        builder = x509.CertificateBuilder().subject_name(named).issuer_name(name).public_key(of.public_key())
        builder = builder.serial_number(x509.random_serial_number())
        return builder.not_valid_before(now - dt.timedelta(hours=1)).not_valid_after(now + dt.timedelta(hours=1))

    itself = draft(authority_key, "old").add_extension(x509.BasicConstraints(True, None), critical=False)
    names = x509.SubjectAlternativeName([x509.DNSName("localhost")])
    signed = draft(key, "localhost").add_extension(names, critical=False)
    authority, server = tmp_path / "ca.crt", tmp_path / "server.pem"
    authority.write_bytes(_pem(itself.sign(authority_key, hashes.SHA256())))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    server.write_bytes(_pem(signed.sign(authority_key, hashes.SHA256())) + private)
    return authority, server


@pytest.fixture
async def url(old: tuple[Path, Path]) -> AsyncIterator[str]:
    async def answer(_request: web.Request) -> web.Response:
        return web.json_response({"kind": "APIGroup", "resources": []})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(old[1])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    yield f"https://localhost:{runner.addresses[0][1]}"
    await runner.cleanup()


def cluster(url: str, authority: Path, *, strict: bool) -> Cluster:
    configuration = Configuration(host=url)
    configuration.ssl_ca_cert = str(authority)
    configuration.disable_strict_ssl_verification = not strict
    return Cluster(configuration)


async def test_the_refusal_names_the_setting(url: str, old: tuple[Path, Path]) -> None:
    async with cluster(url, old[0], strict=True) as strict:
        with pytest.raises(Unavailable, match=HINT):
            await strict.serves(DEPLOYMENTS)


async def test_with_the_setting_our_client_accepts_it(url: str, old: tuple[Path, Path]) -> None:
    async with cluster(url, old[0], strict=False) as lenient:
        assert not lenient.strict_x509
        await lenient.serves(DEPLOYMENTS)


async def test_another_authority_is_still_refused(url: str, tmp_path: Path, old: tuple[Path, Path]) -> None:
    async with cluster(url, _foreign(tmp_path), strict=False) as lenient:
        with pytest.raises(Unavailable) as refused:
            await lenient.serves(DEPLOYMENTS)
    assert HINT not in str(refused.value)


@pytest.mark.parametrize(("strict", "is_accepted"), [(True, False), (False, True)])
async def test_kopf_does_as_our_client_does(
    url: str, old: tuple[Path, Path], strict: bool, is_accepted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = kopf.ConnectionInfo(server="https://kubernetes.default.svc", ca_path=str(old[0]), token="t")
    monkeypatch.setattr(kopf, "login_with_service_account", lambda **_: found)
    memo = SimpleNamespace(operator=SimpleNamespace(host=url, strict_x509=strict))
    info = login(memo)  # type: ignore[arg-type]
    assert info is not None
    assert (info.server, info.token) == (url, "t")
    async with aiohttp.ClientSession() as session:
        asking = session.get(url, ssl=await asyncio.to_thread(info.as_ssl_context))
        if is_accepted:
            async with asking as answer:
                assert answer.status == 200
        else:
            with pytest.raises(aiohttp.ClientConnectorCertificateError):
                await asking


def _foreign(folder: Path) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "foreign")])
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - dt.timedelta(hours=1))
    builder = builder.not_valid_after(now + dt.timedelta(hours=1))
    path = folder / "foreign.crt"
    path.write_bytes(_pem(builder.sign(key, hashes.SHA256())))
    return path


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
