"""The bus's errors say to each reader what is for them."""

from __future__ import annotations

from kgents.bus.model import BusUnavailable, WrongLastSequence
from kgents.bus.nats import _micros


def test_unavailable_keeps_the_reason_from_users() -> None:
    error = BusUnavailable("the NATS server at 10.0.0.7:4222 is not running.")
    assert "10.0.0.7" in str(error)
    assert "10.0.0.7" not in error.detail
    assert error.status == 503


def test_wrong_last_sequence_names_both_sequences() -> None:
    error = WrongLastSequence("kgents.events.r", 7, 3)
    assert (error.expected, error.actual) == (7, 3)
    assert "3, not 7" in error.detail


def test_a_servers_time_is_read_to_the_microsecond() -> None:
    assert _micros("2026-11-23T23:40:25.922028561Z") == 1_795_477_225_922_028
    assert _micros("2026-11-23T23:40:25Z") == 1_795_477_225_000_000
    assert _micros("2026-11-23T23:40:25.5Z") == 1_795_477_225_500_000
