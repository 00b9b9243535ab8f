"""The certificate, and whose gateway it is: asked of a real TLS server, with certificates of its own authority."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from kgents.clock import SystemClock
from kgents.deploy.health import WayIn
from kgents.readiness.checks import service
from kgents.readiness.model import Broken, NotShown
from kgents.readiness.target import Target
from tests.support.replies import Reply, replying

HOST = "agents.example.com"


class Authority:
    """An authority that this process trusts."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tests")])
        builder = self._builder(self._name, self._key.public_key(), 1)
        self.certificate = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True).sign(
            self._key, hashes.SHA256()
        )
        self.file = folder / "authority.pem"
        self.file.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePublicKey, days: float) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=100))
            .not_valid_after(now + timedelta(days=max(days, 0.01) if days > 0 else days))
        )

    def server(self, host: str, days: float) -> ssl.SSLContext:
        """A server's context, with a certificate for so many days."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
        certificate = (
            self._builder(name, key.public_key(), days)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        path = self._folder / f"{host}{days}.pem"
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + certificate.public_bytes(serialization.Encoding.PEM)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Authority:
    made = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(made.file))
    return made


@contextmanager
def behind(context: ssl.SSLContext | None, headers: dict[str, str] | None = None) -> Iterator[Target]:
    """A target whose gateway is such a server."""
    with replying(lambda _: Reply(200, {"status": "ok"}, headers or {}), context) as url:
        target = Target(SystemClock(), Path(), bytes, context="nowhere")
        port = int(url.rpartition(":")[2])
        target.__dict__["entrance"] = WayIn("gateway/kgents", "127.0.0.1", port, context is not None, HOST)
        yield target


def test_a_certificate_that_lasts_is_a_pass(authority: Authority) -> None:
    with behind(authority.server(HOST, 60)) as target:
        assert "60 days left" in service.certificate(target).detail


@pytest.mark.parametrize(("host", "days"), [(HOST, 3), (HOST, -1), ("other.example.com", 60)])
def test_one_that_ends_or_is_of_another_host_is_a_fail(authority: Authority, host: str, days: float) -> None:
    with behind(authority.server(host, days)) as target, pytest.raises(Broken, match="certificate"):
        service.certificate(target)


def test_one_of_an_unknown_authority_is_a_fail(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    with behind(authority.server(HOST, 60)) as target, pytest.raises(Broken, match="not accepted"):
        service.certificate(target)


def test_a_gateway_without_tls_is_a_fail() -> None:
    with behind(None) as target, pytest.raises(Broken, match="no TLS"):
        service.certificate(target)


def test_kong_is_known_by_its_headers() -> None:
    with behind(None, {"Via": "1.1 kong/3.9.1", "X-Kong-Upstream-Latency": "3"}) as target:
        assert "x-kong-upstream-latency" in service.through_kong(target).detail


def test_another_gateway_is_not_taken_for_kong() -> None:
    with behind(None, {"Server": "nginx"}) as target, pytest.raises(NotShown):
        service.through_kong(target)


def test_what_is_not_kgents_behind_a_gateway_is_a_fail() -> None:
    with behind(None) as target, pytest.raises(Broken, match="not kgents"):
        service.through_gateway(target)
