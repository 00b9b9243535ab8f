"""The certificate, and whose gateway it is: asked of a real TLS server, with certificates of its own authority."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kgents.clock import SystemClock
from kgents.deploy.health import WayIn
from kgents.readiness.checks import service
from kgents.readiness.model import Broken, NotShown
from kgents.readiness.target import Target
from tests.support.authority import Authority
from tests.support.replies import Reply, replying

HOST = "agents.example.com"


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


@pytest.mark.parametrize("status", [301, 308])
def test_plain_http_that_leads_to_https_is_a_pass(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    with (
        replying(lambda _: Reply(status, {}, {"Location": f"https://{HOST}/health"})) as plain,
        behind(authority.server(HOST, 60)) as target,
    ):
        monkeypatch.setattr(service, "PLAIN", int(plain.rpartition(":")[2]))
        assert "HTTP leads to HTTPS" in service.certificate(target).detail


@pytest.mark.parametrize(
    ("status", "headers"), [(200, {}), (301, {"Location": f"http://{HOST}/elsewhere"}), (301, {}), (404, {})]
)
def test_plain_http_that_is_served_or_led_elsewhere_is_a_fail(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, status: int, headers: dict[str, str]
) -> None:
    with (
        replying(lambda _: Reply(status, {"status": "ok"}, headers)) as plain,
        behind(authority.server(HOST, 60)) as target,
    ):
        monkeypatch.setattr(service, "PLAIN", int(plain.rpartition(":")[2]))
        with pytest.raises(Broken, match=f"Plain HTTP is answered {status}"):
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
