"""A real browser, and a whole kgents with a Stripe for it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.support.stripe import FakeStripe
from tests.support.tenants import Tenant, tenant_of
from tests.support.up import Up

NAMES = ("chromium", "chromium-browser", "google-chrome")
# What Chromium would ask of others' servers by itself.
QUIET = ("--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run")
PATIENCE = 20_000.0  # milliseconds
expect.set_options(timeout=PATIENCE)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, as the system has it. For a module's tests only: while it is there, its event loop is the thread's."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip("there is no Chromium: on Debian, apt-get install chromium")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--disable-gpu", "--disable-quic", *QUIET]
        )
        yield running
        running.close()


@pytest.fixture(scope="module")
def stripe() -> Iterator[FakeStripe]:
    """A Stripe that collects."""
    with FakeStripe() as running:
        yield running


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory, stripe: FakeStripe) -> Iterator[Up]:
    """A kgents whose invoices are made once a subscription has ended, and are collected."""
    settings = {
        "KGENTS_INVOICE_DELAY": "0",
        "KGENTS_STRIPE_API_KEY": stripe.api_key,
        "KGENTS_STRIPE_URL": stripe.url,
    }
    running = Up(tmp_path_factory.mktemp("browser"), environment=settings).start()
    yield running
    running.stop()


@pytest.fixture
def tenant(up: Up) -> Iterator[Tenant]:
    """A tenant with an agent `echo`."""
    with tenant_of(up) as made:
        yield made


@pytest.fixture
def page(browser: Browser, up: Up) -> Iterator[Page]:
    """The console in a tab of its own. Nothing in it may fail but requests that are answered with a refusal."""
    context = browser.new_context(locale="de-DE")
    opened = context.new_page()
    opened.set_default_timeout(PATIENCE)
    failures: list[str] = []
    opened.on("pageerror", lambda error: failures.append(str(error)))
    opened.on("console", lambda said: failures.append(said.text) if said.type == "error" else None)
    opened.goto(f"{up.url}/console")
    yield opened
    context.close()
    assert [each for each in failures if not each.startswith("Failed to load resource")] == []
