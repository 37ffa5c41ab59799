"""A certificate authority that lives as long as one control plane."""

from __future__ import annotations

import datetime as dt
import ipaddress
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

__all__ = ["Authority", "write_service_account_keys"]

_LIFE = dt.timedelta(days=2)
_CLOCK_SKEW = dt.timedelta(minutes=5)
_SERVER_NAMES = ("localhost", "kubernetes.default.svc")
_SIGNS_CERTIFICATES = x509.KeyUsage(
    key_cert_sign=True,
    crl_sign=True,
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    encipher_only=False,
    decipher_only=False,
)


class Authority:
    """Vouches for the server and for every user."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _subject("openrouter-guard-tests")
        # Python 3.13 checks strictly: an authority has to say that it signs certificates.
        itself = self._draft(self._name, self._key.public_key(), is_authority=True)
        self.certificate = _pem(self._sign(itself.add_extension(_SIGNS_CERTIFICATES, critical=True)))

    def issue_server(self, addresses: Sequence[str] = ("127.0.0.1",)) -> tuple[bytes, bytes]:
        """The API server's certificate and key, as PEM; *addresses* are those that clients reach it by."""
        key = ec.generate_private_key(ec.SECP256R1())
        draft = self._draft(_subject("kube-apiserver"), key.public_key())
        names = [x509.DNSName(name) for name in _SERVER_NAMES]
        ips = [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
        draft = draft.add_extension(x509.SubjectAlternativeName([*names, *ips]), critical=False)
        draft = draft.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        return _pem(self._sign(draft)), _key_pem(key)

    def issue_user(self, user: str, groups: Sequence[str] = ()) -> tuple[bytes, bytes]:
        """Certificate and key, as PEM, with which a client is *user* in *groups*."""
        key = ec.generate_private_key(ec.SECP256R1())
        draft = self._draft(_subject(user, groups), key.public_key())
        draft = draft.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        return _pem(self._sign(draft)), _key_pem(key)

    def _draft(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, *, is_authority: bool = False
    ) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.UTC)
        issuer_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _CLOCK_SKEW)
            .not_valid_after(now + _LIFE)
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(issuer_key, critical=False)
        )

    def _sign(self, draft: x509.CertificateBuilder) -> x509.Certificate:
        return draft.sign(self._key, hashes.SHA256())


def write_service_account_keys(private_path: Path, public_path: Path) -> None:
    """Write the keys with which ServiceAccount tokens are signed and checked."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private_path.write_bytes(_key_pem(key))
    public_path.write_bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )


def _subject(user: str, groups: Sequence[str] = ()) -> x509.Name:
    """To Kubernetes the common name is the user and each organization a group."""
    organizations = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    return x509.Name([*organizations, x509.NameAttribute(NameOID.COMMON_NAME, user)])


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
