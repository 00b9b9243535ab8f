"""`kgents plan`, `kgents subscription` and `kgents invoice`."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from kgents.cli.billing import money
from tests.contract.cli.conftest import access, unique
from tests.support.cli import Cli
from tests.support.up import Up
from tests.support.waiting import wait_until

PRICES = ("--price", "input_tokens=300/1000", "--price", "output_tokens@kgents:echo=2", "--included", "input_tokens=1")


@pytest.fixture(scope="module")
def own_up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A kgents that makes an invoice as soon as a subscription ends."""
    running = Up(tmp_path_factory.mktemp("own_up"), environment={"KGENTS_INVOICE_DELAY": "0"}).start()
    yield running
    running.stop()


@pytest.fixture
def operator(own_up: Up, tmp_path: Path) -> Cli:
    return Cli(tmp_path, KGENTS_DATA_DIR=str(own_up.data), **access(own_up))


def test_a_plan_is_created_shown_and_archived(cli: Cli) -> None:
    made = cli.json("plan", "create", unique("plan"), "--currency", "eur", "--monthly-fee", "4900", *PRICES)
    assert made["prices"] == [
        {"meter": "input_tokens", "model": None, "amount": 300, "per": 1000, "included": 1},
        {"meter": "output_tokens", "model": "kgents:echo", "amount": 2, "per": 1, "included": 0},
    ]
    assert cli.json("plan", "get", made["id"]) == made
    assert made["id"] in cli("plan", "list").stdout
    assert cli.json("plan", "archive", made["id"])["archived_at"]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--price", "input_tokens"), "METER=AMOUNT/PER"),
        (("--price", "input_tokens=1.5"), "METER=AMOUNT/PER"),
        (("--price", "runs=1", "--price", "runs=2"), "second price"),
        (("--included", "runs=5"), "no --price"),
        (("--price", "runs=1", "--included", "runs=many"), "METER=NUMBER"),
        (("--price", "seats=1"), "meter"),
        (("--currency", "EURO"), "currency"),
    ],
)
def test_a_plan_that_is_none(cli: Cli, options: tuple[str, ...], complaint: str) -> None:
    currency = () if "--currency" in options else ("--currency", "eur")
    done = cli("plan", "create", unique("plan"), *currency, *options)
    assert done.status != 0
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr


def test_a_month_is_charged_shown_and_marked(operator: Cli) -> None:
    tenant = operator.json("tenant", "create", unique("tenant"))["id"]
    plan = operator.json("plan", "create", unique("plan"), "--currency", "eur", *PRICES)
    operator.json("subscription", "set", tenant, plan["id"])
    key = operator.json("key", "create", "first", "--role", "owner", "--tenant", tenant)["token"]
    customer = Cli(operator.folder, **{**operator.environment, "KGENTS_API_KEY": key})
    assert customer.json("subscription", "get")["plan"] == plan["id"]
    customer.json("agent", "create", "echo")
    assert customer("run", "create", "echo", "one two three").status == 0

    upcoming = customer("invoice", "upcoming").stdout
    assert "draft" in upcoming
    assert "3.00 eur / 1000" in upcoming

    ended = operator.json("subscription", "end", tenant)
    assert ended["ended_at"]
    found = wait_until(lambda: customer.json("invoice", "list"), seconds=30, what="the invoice is made")
    assert found[0]["total"] == sum(line["amount"] for line in found[0]["lines"]) > 0
    assert money(found[0]["total"], "eur") in customer("invoice", "get", found[0]["id"]).stdout
    assert found[0]["id"] in operator("invoice", "list", "--tenant", tenant).stdout
    assert operator.json("invoice", "mark", tenant, found[0]["id"], "paid")["status"] == "paid"
    assert operator("invoice", "mark", tenant, found[0]["id"], "void").status != 0
    revenue = {row["status"]: row for row in operator.json("invoice", "revenue", "--from", found[0]["period"])}
    assert revenue["paid"]["amount"] >= found[0]["total"]
    assert money(revenue["paid"]["amount"], "eur") in operator("invoice", "revenue").stdout


def test_invoices_are_compared_with_the_ledger(operator: Cli, own_up: Up) -> None:
    month = f"{datetime.now(UTC):%Y-%m}"
    done = operator("invoice", "reconcile", month)
    assert (done.status, "0 differ" in done.stderr) == (0, True), done
    tenant = operator.json("tenant", "create", unique("tenant"))["id"]
    plan = operator.json("plan", "create", unique("plan"), "--currency", "eur", *PRICES)
    operator.json("subscription", "set", tenant, plan["id"])
    started = operator.json("subscription", "end", tenant)["id"]
    wait_until(lambda: operator.json("invoice", "list", "--tenant", tenant), seconds=30, what="the invoice is made")
    with closing(sqlite3.connect(own_up.data / "kgents.db", timeout=30)) as database, database:
        (at,) = database.execute(
            "SELECT started_at FROM subscriptions WHERE subscription_id = ?", (started,)
        ).fetchone()
        database.execute(
            "INSERT INTO usage_events (event_id, tenant_id, meter, quantity, run_id, agent_id, model, estimated, "
            "occurred_at) VALUES ('run_late:0:runs', ?, 'runs', 3, 'run_late', 'agt_1', 'm', 0, ?)",
            (tenant, at),
        )
    done = operator("invoice", "reconcile", month)
    assert done.status == 1
    assert "1 differ" in done.stderr
    found = operator("invoice", "reconcile", month, "-o", "json").json()
    assert found["differences"] == [
        {
            "tenant": tenant,
            "invoice": operator.json("invoice", "list", "--tenant", tenant)[0]["id"],
            "what": "runs",
            "invoiced": 0,
            "found": 3,
        }
    ]
    assert (found["compared"] > 0, found["missing"]) == (True, [])


def test_a_month_that_is_none(operator: Cli) -> None:
    done = operator("invoice", "reconcile", "november")
    assert done.status != 0
    assert "2026-11" in done.stderr


@pytest.mark.parametrize(
    ("amount", "currency", "text"),
    [
        (0, "eur", "0.00 eur"),
        (5, "eur", "0.05 eur"),
        (1234, "usd", "12.34 usd"),
        (7, "jpy", "7 jpy"),
        (1, "kwd", "0.001 kwd"),
    ],
)
def test_an_amount_is_written_as_its_currency_is(amount: int, currency: str, text: str) -> None:
    assert money(amount, currency) == text
