"""`kgents invoice reconcile`: the operator's comparison of invoices with the ledger, and with what Stripe has."""

from __future__ import annotations

import asyncio
import os
from functools import partial
from pathlib import Path
from typing import Any

from kgents import config
from kgents.billing import invoicing
from kgents.billing.account import open_account
from kgents.billing.invoicing import Difference
from kgents.billing.model import Subscription
from kgents.cli import connections
from kgents.cli.client import Refused
from kgents.clock import SECOND, SystemClock, month_bounds
from kgents.config import Settings
from kgents.store.engine import Scope, open_store

PAGE = 100
LATE = 2 * 3600.0  # seconds after which an invoice is missed


def reconcile(period: str) -> dict[str, Any]:
    """Compare a month's invoices with the ledger, and given a key of Stripe's with what Stripe has of them.

    Answers how many were compared, the differences, the ids of subscriptions whose invoice is missing, and a summary.
    Raises Refused and Unavailable.
    """
    try:
        month_bounds(period)
    except ValueError as error:
        raise Refused("The month must be written as 2026-11.") from error
    settings = config.load()
    compared, found, missing = asyncio.run(_compare(_database_url(settings), settings, period))
    also = " with the ledger and Stripe" if settings.stripe_api_key.get_secret_value() else " with the ledger"
    summary = f"{compared} invoices compared{also}, {len({each.invoice_id for each in found})} differ"
    if missing:
        summary += f"; {len(missing)} are not made, such as that of {missing[0].tenant_id}: is a worker running?"
    differences = [
        {
            "tenant": each.tenant_id,
            "invoice": each.invoice_id,
            "what": each.what,
            "invoiced": each.invoiced,
            "found": each.found,
        }
        for each in found
    ]
    return {
        "compared": compared,
        "differences": differences,
        "missing": [each.subscription_id for each in missing],
        "summary": summary,
    }


async def _compare(url: str, settings: Settings, period: str) -> tuple[int, list[Difference], list[Subscription]]:
    store = open_store(url)
    stripe = open_account(settings)
    compared, found, after = 0, list[Difference](), ""
    try:
        while page := await store.read(
            Scope.system(), partial(invoicing.of_month, period=period, after=after, limit=PAGE)
        ):
            for each in page:
                compared += 1
                compare = partial(invoicing.differences, invoice=each)
                found += await store.read(Scope.tenant(each.tenant_id), compare)
                if stripe and each.total:
                    held = await stripe.get(each.stripe_id) if each.stripe_id else None
                    found += invoicing.at_stripe(each, held)
            after = page[-1].invoice_id or ""
        before = SystemClock().now() - round(LATE * SECOND)
        missing = await store.read(
            Scope.system(), partial(invoicing.due, period=period, before=before, after="", limit=PAGE)
        )
        return compared, found, missing
    finally:
        if stripe:
            await stripe.aclose()
        await store.close()


def _database_url(given: Settings) -> str:
    if "database_url" in given.model_fields_set:
        return given.database_url
    kept = connections.read(
        Path(os.environ.get("KGENTS_DATA_DIR", "data")) / "connections.json",
        "database_url",
        instead="Set KGENTS_DATA_DIR to the data folder of a kgents up, or KGENTS_DATABASE_URL to an installation's.",
    )
    return kept["database_url"]
