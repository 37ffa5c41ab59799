"""The service and the operator's probes behind TLS, with a certificate that is renewed meanwhile."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from openrouter_guard.api.http.acceptor import HANDSHAKE_S
from openrouter_guard.certificates import Certificate
from openrouter_guard.errors import ConfigurationError
from openrouter_guard.settings import Settings
from openrouter_guard.tls import RenewedContext
from openrouter_operator.serving.probes import serving as serving_probes
from tests.cli.commands import run, serving_on
from tests.controlplane.certificates import Authority
from tests.ports import free_port
from tests.waiting import until

pytestmark = pytest.mark.slow


class Files:
    """A certificate for 127.0.0.1 in a folder, and an authority that vouches for it."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority()
        self.ca_file = folder / "ca.crt"
        self.ca_file.write_bytes(self.authority.certificate)
        self.certificate = Certificate(str(folder / "tls.crt"), str(folder / "tls.key"))
        self.renew()

    def renew(self) -> None:
        cert, key = self.authority.issue_server()
        Path(self.certificate.cert_file).write_bytes(cert)
        Path(self.certificate.key_file).write_bytes(key)

    @property
    def environ(self) -> dict[str, str]:
        return {
            "OPENROUTER_GUARD_TLS_CERT_FILE": self.certificate.cert_file,
            "OPENROUTER_GUARD_TLS_KEY_FILE": self.certificate.key_file,
        }

    @property
    def trusted(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.ca_file))

    def get(self, url: str) -> bytes:
        """What it answers, where the certificate is right."""
        with urllib.request.urlopen(url, context=self.trusted, timeout=10) as answer:
            body: bytes = answer.read()
            return body

    def served(self, port: int) -> bytes:
        """The certificate that a new connection is shown, in DER format."""
        with (
            socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
            self.trusted.wrap_socket(plain, server_hostname="127.0.0.1") as connection,
        ):
            return connection.getpeercert(binary_form=True) or b""

    @property
    def written(self) -> bytes:
        return ssl.PEM_cert_to_DER_cert(Path(self.certificate.cert_file).read_text())


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@pytest.fixture
def port(files: Files, redis_url: str, tmp_path: Path) -> Iterator[int]:
    """Of a service in a process of its own."""
    port = free_port()
    with serving_on(port, tmp_path / "log", {"REDIS_URL": redis_url, **files.environ}, scheme="https"):
        yield port


def test_the_service_answers_over_tls_and_not_without(files: Files, port: int) -> None:
    assert b'"status"' in files.get(f"https://127.0.0.1:{port}/api/v1/openrouter/status")
    assert files.get(f"https://127.0.0.1:{port}/livez")
    with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
        plain.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert not plain.recv(100).startswith(b"HTTP/1.1 200")


class TestHandshakes:
    """Clients that connect and never shake hands."""

    def test_they_keep_nobody_out(self, files: Files, port: int) -> None:
        with ExitStack() as stack:
            silent = [stack.enter_context(socket.create_connection(("127.0.0.1", port), 30)) for _ in range(1100)]
            until(lambda: served_at_once(files, port), seconds=60)
            # The limit holds: for each new one, the oldest was closed.
            assert silent[0].recv(1) == b""

    def test_each_has_ten_seconds(self, files: Files, port: int) -> None:
        """asyncio would wait for a minute."""
        with socket.create_connection(("127.0.0.1", port), timeout=HANDSHAKE_S + 30) as silent:
            assert silent.recv(1) == b""

    def test_at_the_end_of_the_process_nobody_waits_for_them(
        self, files: Files, redis_url: str, tmp_path: Path
    ) -> None:
        port = free_port()
        environ = {"REDIS_URL": redis_url, **files.environ}
        with (
            serving_on(port, tmp_path / "other log", environ, scheme="https") as service,
            socket.create_connection(("127.0.0.1", port), timeout=30) as silent,
        ):
            files.get(f"https://127.0.0.1:{port}/livez")  # it came before, so it is accepted
            service.process.terminate()
            assert silent.recv(1) == b""
            service.process.wait(30)


def served_at_once(files: Files, port: int) -> bytes | None:
    with suppress(OSError):
        return files.get(f"https://127.0.0.1:{port}/livez")
    return None


def test_it_serves_a_renewed_certificate_without_a_new_start(files: Files, port: int) -> None:
    before = files.served(port)
    files.renew()
    until(lambda: files.served(port) == files.written, seconds=60)
    assert files.served(port) != before


async def test_the_operator_s_probes_are_served_with_it(files: Files) -> None:
    def metrics(_accept: str) -> tuple[bytes, str]:
        return b"up 1\n", "text/plain"

    async with serving_probes(
        "127.0.0.1", 0, alive=list, ready=list, metrics=metrics, certificate=files.certificate
    ) as port:
        found = await asyncio.to_thread(files.get, f"https://127.0.0.1:{port}/metrics")
    assert found == b"up 1\n"


def test_half_of_a_renewed_pair_leaves_the_old_one_in_place(files: Files, caplog: pytest.LogCaptureFixture) -> None:
    renewed = RenewedContext(files.certificate)
    with listener(renewed.context) as port:
        before = files.served(port)
        key = Path(files.certificate.key_file).read_bytes()
        files.renew()
        new_key = Path(files.certificate.key_file).read_bytes()
        Path(files.certificate.key_file).write_bytes(key)
        with caplog.at_level(logging.WARNING):
            renewed.look()
        assert "the renewed certificate cannot be used, the old one goes on" in caplog.text
        assert files.served(port) == before
        Path(files.certificate.key_file).write_bytes(new_key)
        renewed.look()
        assert files.served(port) == files.written


@contextmanager
def listener(context: ssl.SSLContext) -> Iterator[int]:
    """The port of a server that does nothing but shake hands."""
    with socket.create_server(("127.0.0.1", 0)) as listening, ThreadPoolExecutor(1) as pool:

        def shake_hands() -> None:
            with suppress(OSError):
                while True:
                    plain, _ = listening.accept()
                    with plain, context.wrap_socket(plain, server_side=True):
                        pass

        pool.submit(shake_hands)
        yield int(listening.getsockname()[1])
        listening.shutdown(socket.SHUT_RDWR)


class TestMistakes:
    def test_one_file_of_the_two_is_named(self) -> None:
        with pytest.raises(ConfigurationError, match="OPENROUTER_GUARD_TLS_KEY_FILE is not set: TLS needs both"):
            Settings.from_env({"REDIS_URL": "redis://r", "OPENROUTER_GUARD_TLS_CERT_FILE": "/tls.crt"})

    def test_a_file_that_is_missing_is_one_line(self, files: Files, redis_url: str) -> None:
        Path(files.certificate.key_file).unlink()
        done = run("serve", "--port", "0", REDIS_URL=redis_url, **files.environ)
        assert done.returncode == 1
        assert "openrouter-guard: the certificate" in done.stderr
        assert "cannot be used" in done.stderr
        assert "Traceback" not in done.stderr

    def test_a_key_that_is_another_s_is_refused(self, files: Files) -> None:
        key = Path(files.certificate.key_file).read_bytes()
        files.renew()
        Path(files.certificate.key_file).write_bytes(key)
        with pytest.raises(ConfigurationError, match="cannot be used"):
            RenewedContext(files.certificate)
