"""`kgents usage`: what was used, as a table and as a chart; and the comparison of ledger and meter."""

from __future__ import annotations

import sys
from typing import Annotated, Any, Literal

import typer

from kgents.cli.options import ContextName, MeterName, Most, Output, WindowName, client, group, moment
from kgents.cli.output import Format, note, progress, show

usage = group("What was used, what is left, what the meter says.")

Start = Annotated[
    str,
    typer.Option(
        "--from", parser=moment, metavar="TIME", help="RFC 3339 or a day, such as 2026-11-01; this month by default."
    ),
]
End = Annotated[str, typer.Option("--to", parser=moment, metavar="TIME", help="RFC 3339 or a day; now by default.")]
Meter = Annotated[MeterName | None, typer.Option(help="Only this meter.")]
Window = Annotated[WindowName, typer.Option(help="The length of the windows, in UTC.")]
Groups = Literal["agent", "model", "agent,model"]
BLOCKS = "▏▎▍▌▋▊▉█"
_SHOWN = {"hour": 16, "day": 10, "month": 7}  # characters of a window's start


@usage.command("show")
def usage_show(
    meter: Meter = None,
    start: Start = "",
    end: End = "",
    window: Window = "day",
    group_by: Annotated[Groups | None, typer.Option(help="One row for each agent or model, too.")] = None,
    chart: Annotated[bool, typer.Option(help="Draw bars beside the table.")] = True,
    output: Output = Format.TABLE,
    context: ContextName = "",
) -> None:
    """Show usage by meter and window."""
    params = {"meter": meter, "from": start, "to": end, "window": window, "group_by": group_by}
    found = client(context).get("/v1/usage", **params)
    if output is not Format.TABLE:
        show(found, output)
        return
    rows = found["data"]
    for row in rows:
        row["window_start"] = row["window_start"][: _SHOWN[window]]
    if chart:
        _draw(rows)
    columns = ["meter", "window_start", *(name for name in ("agent", "model") if name in (group_by or "")), "quantity"]
    show(rows, output, [*columns, "chart"] if chart else columns)


def _draw(rows: list[dict[str, Any]]) -> None:
    """Give each row a bar, as long as its quantity is against the most of its meter."""
    unicode = (sys.stdout.encoding or "").lower().startswith("utf")
    most: dict[str, int] = {}
    for row in rows:
        most[row["meter"]] = max(most.get(row["meter"], 0), row["quantity"])
    for row in rows:
        row["chart"] = bar(row["quantity"], most[row["meter"]], blocks=BLOCKS if unicode else "#")


def bar(quantity: int, most: int, *, blocks: str = BLOCKS, width: int = 24) -> str:
    """A bar whose length is to `width` as `quantity` is to `most`; the finest of `blocks` for the smallest share, and
    nothing where nothing, or less, was used.
    """
    if quantity <= 0 or most <= 0:
        return ""
    steps = max(1, min(quantity, most) * width * len(blocks) // most)
    whole, rest = divmod(steps, len(blocks))
    return blocks[-1] * whole + (blocks[rest - 1] if rest else "")


@usage.command("balance")
def usage_balance(output: Output = Format.TABLE, context: ContextName = "") -> None:
    """Show this month's usage, reservations and limits."""
    found = client(context).get("/v1/usage/balance")
    if output is Format.TABLE:
        show(found["meters"], output, ("meter", "used", "reserved", "limit", "remaining"))
    else:
        show(found, output)


@usage.command("events")
def usage_events(
    meter: Meter = None,
    run: Annotated[str, typer.Option(help="Only this run's.")] = "",
    most: Most = 50,
    output: Output = Format.TABLE,
    context: ContextName = "",
) -> None:
    """List usage events."""
    found = client(context).every("/v1/usage/events", most=most, meter=meter, run=run)
    show(found, output, ("id", "meter", "quantity", "agent_id", "model", "occurred_at"))


@usage.command("reconcile")
def usage_reconcile(
    start: Annotated[str, typer.Option("--from", parser=moment, metavar="TIME", help="RFC 3339 or a day.")],
    end: Annotated[str, typer.Option("--to", parser=moment, metavar="TIME", help="RFC 3339 or a day.")],
    window: Window = "day",
    repair: Annotated[bool, typer.Option(help="Send what the meter misses, under its original ids.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """Compare ledger and meter per tenant, meter and window. Exits with 1 where they differ.

    An operator's command: it needs the settings of a kgents process (KGENTS_DATABASE_URL, KGENTS_METER_URL), or
    KGENTS_DATA_DIR of a running kgents up.
    """
    from kgents.cli import reconcile

    with progress("comparing ledger and meter"):
        report = reconcile.run(start, end, window, repair=repair)
    if report["differences"] or output is not Format.TABLE:
        columns = ("tenant", "meter", "window_start", "ledger", "metered", "difference", "in_flight")
        show(report["differences"], output, columns)
    note(report["summary"])
    if report["differences"]:
        raise SystemExit(1)
