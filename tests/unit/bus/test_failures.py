"""What operators read about a broken connection."""

from __future__ import annotations

import pytest
from nats import errors as nats_errors

from kgents.bus.failures import describe
from kgents.bus.model import BusUnavailable

SERVERS = ["nats://user:in-the-url@one:4222", "two:4333"]
PASSWORD = "the-password"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (nats_errors.Error("nats: 'Authorization Violation'"), "refused the user name or password"),
        (nats_errors.AuthorizationError(), "refused the user name or password"),
        (ConnectionRefusedError(111, "refused"), "nothing listens"),
        (TimeoutError(), "does not answer"),
        (nats_errors.TimeoutError(), "does not answer"),
        (nats_errors.UnexpectedEOF(), "closed the connection"),
        (ConnectionResetError(104, "reset"), "closed the connection"),
        (nats_errors.Error("nats: maximum connections exceeded"), "maximum connections exceeded"),
        (BusUnavailable("its own words."), "its own words."),
    ],
)
def test_each_failure_is_told_apart(error: Exception, text: str) -> None:
    assert text in describe(error, SERVERS, PASSWORD)


def test_the_servers_are_named() -> None:
    assert "one:4222, two:4333" in describe(TimeoutError(), SERVERS, PASSWORD)


@pytest.mark.parametrize("server", ["nats://u:secret@one:42222222", "nats://u:secret@one:port", "nats://u:secret@[::1"])
def test_a_url_that_is_none_is_said_without_its_credential(server: str) -> None:
    told = describe(ValueError("secret"), [server], PASSWORD)
    assert "Correct it" in told
    assert "secret" not in told


def test_no_credential_is_shown() -> None:
    error = RuntimeError("bad nats://user:in-the-url@one with the-password")
    told = describe(error, SERVERS, PASSWORD)
    assert "in-the-url" not in told
    assert "the-password" not in told
