"""`kgents usage reconcile`: the operator's comparison of ledger and meter."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any, cast

import typer
from pydantic import SecretStr

from kgents import config
from kgents.cli import connections
from kgents.cli.client import Refused
from kgents.clock import to_rfc3339
from kgents.config import Settings
from kgents.meter.client import MeterClient
from kgents.store.engine import open_store
from kgents.usage import reconcile, service
from kgents.usage.service import Window


def run(start: str, end: str, window: str, *, repair: bool) -> dict[str, Any]:
    """Compare, and repair if asked: the differences that are left, and a summary. Raises Refused, Unprocessable,
    Unavailable, and BadParameter for a period without a length.
    """
    try:
        first, last = service.parse_moment(start), service.parse_moment(end)
    except ValueError as error:
        raise Refused("--from and --to must be RFC 3339 times with an offset, or days.") from error
    if first >= last:
        raise typer.BadParameter("--from must be earlier than --to")
    report = asyncio.run(_reconcile(_settings(), first, last, cast("Window", window), repair=repair))
    differences = [
        {
            "tenant": found.tenant_id,
            "meter": found.meter,
            "window_start": to_rfc3339(found.window_start),
            "ledger": found.ledger,
            "metered": found.metered,
            "difference": found.missing,
            "in_flight": found.in_flight,
        }
        for found in report.differences
    ]
    summary = f"{report.compared} windows compared, {len(differences)} differ"
    if report.sent:
        summary += f"; {report.sent} events were sent to the meter again"
    for event in report.refused:
        summary += f"; the meter refused {event.event_id}: {event.reason}"
    if differences and report.in_flight:
        summary += f"; {report.in_flight} messages are still on their way: wait for them and compare again"
    elif differences and not repair:
        summary += "; send what the meter misses with --repair"
    return {"differences": differences, "summary": summary}


async def _reconcile(settings: Settings, start: int, end: int, window: Window, *, repair: bool) -> reconcile.Report:
    store = open_store(settings.database_url)
    meter = MeterClient(
        settings.meter_url, settings.meter_token.get_secret_value(), events_path=settings.meter_events_path
    )
    try:
        return await reconcile.reconcile(
            store, meter, start=start, end=end, window=window, source=settings.meter_source, repair=repair
        )
    finally:
        await meter.aclose()
        await store.close()


def _settings() -> Settings:
    """The settings of the installation: those of the environment and the folder of secrets where they name database and
    meter, or those of the kgents up on the data folder.
    """
    given = config.load()
    if {"database_url", "meter_url"} <= given.model_fields_set:
        return given
    kept = connections.read(
        Path(os.environ.get("KGENTS_DATA_DIR", "data")) / "connections.json",
        *("database_url", "meter_url", "meter_token"),
        instead="Set KGENTS_DATA_DIR to the data folder of a kgents up, or KGENTS_DATABASE_URL and KGENTS_METER_URL to "
        "an installation's.",
    )
    return Settings(
        database_url=kept["database_url"], meter_url=kept["meter_url"], meter_token=SecretStr(kept["meter_token"])
    )
