"""Stripes for the tests: the fake, and its official twin."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
import requests
from stripe import RequestsClient, StripeClient

from kgents.clock import ManualClock
from tests.support.stripe import FakeStripe
from tests.support.stripe_mock import serve_stripe_mock

Connect = Callable[[str, str], StripeClient]


@pytest.fixture
def fake(clock: ManualClock) -> Iterator[FakeStripe]:
    """A Stripe in memory, with the clock of the test."""
    with FakeStripe(clock) as running:
        yield running


@pytest.fixture(scope="session")
def stripe_mock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a stripe-mock."""
    with serve_stripe_mock(tmp_path_factory.mktemp("stripe-mock")) as url:
        yield url


@pytest.fixture
def connect() -> Iterator[Connect]:
    """A function that gives Stripe's own client of a URL and a key. It sends each request once."""
    with ExitStack() as stack:

        def made(url: str, key: str) -> StripeClient:
            session = stack.enter_context(requests.Session())
            session.trust_env = False
            return StripeClient(
                key,
                base_addresses={"api": url},
                http_client=RequestsClient(session=session, timeout=10),
                max_network_retries=0,
            )

        yield made
