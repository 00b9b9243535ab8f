"""`kgents usage`: what was used, as a table and as a chart; and the comparison of ledger and meter."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from kgents.cli.output import ContextName, Format, Output, note, show

usage = typer.Typer(
    help="Usage: what was used, what is left, and whether ledger and meter agree.", no_args_is_help=True
)

Start = Annotated[str, typer.Option("--from", help="RFC 3339 or a day, such as 2026-11-01; this month by default.")]
End = Annotated[str, typer.Option("--to", help="RFC 3339 or a day; now by default.")]
Meter = Annotated[str, typer.Option(help="runs, input_tokens, output_tokens or tool_calls.")]
BLOCKS = " ▏▎▍▌▋▊▉█"


def _client(context: str) -> Any:
    from kgents.cli import context as contexts
    from kgents.cli.client import Client

    return Client(contexts.current(context))


def _moment(text: str) -> str:
    return f"{text}T00:00:00Z" if len(text) == 10 else text


@usage.command("show")
def usage_show(
    meter: Meter = "",
    start: Start = "",
    end: End = "",
    window: Annotated[str, typer.Option(help="hour, day or month.")] = "day",
    group_by: Annotated[str, typer.Option(help="agent, model or agent,model.")] = "",
    chart: Annotated[bool, typer.Option(help="Draw bars beside the table.")] = True,
    output: Output = Format.TABLE,
    context: ContextName = "",
) -> None:
    """Show usage by meter and window."""
    params = {"meter": meter, "from": _moment(start), "to": _moment(end), "window": window, "group_by": group_by}
    found = _client(context).get("/v1/usage", **params)
    if output is not Format.TABLE:
        show(found, output)
        return
    rows = found["data"]
    if chart:
        _draw(rows)
    columns = ["meter", "window_start", *(name for name in ("agent", "model") if name in group_by), "quantity"]
    show(rows, output, [*columns, "chart"] if chart else columns)


def _draw(rows: list[dict[str, Any]], width: int = 30) -> None:
    """Give each row a bar, as long as its quantity is against the most of its meter."""
    most: dict[str, int] = {}
    for row in rows:
        most[row["meter"]] = max(most.get(row["meter"], 0), row["quantity"])
    for row in rows:
        eighths = round(8 * width * row["quantity"] / most[row["meter"]]) if most[row["meter"]] else 0
        row["chart"] = BLOCKS[8] * (eighths // 8) + (BLOCKS[eighths % 8] if eighths % 8 else "")


@usage.command("balance")
def usage_balance(output: Output = Format.TABLE, context: ContextName = "") -> None:
    """Show this month's usage, reservations and limits."""
    found = _client(context).get("/v1/usage/balance")
    if output is Format.TABLE:
        show(found["meters"], output, ("meter", "used", "reserved", "limit", "remaining"))
    else:
        show(found, output)


@usage.command("events")
def usage_events(
    meter: Meter = "",
    run: Annotated[str, typer.Option(help="Only this run's.")] = "",
    most: Annotated[int, typer.Option(help="How many at most.", min=1)] = 50,
    output: Output = Format.TABLE,
    context: ContextName = "",
) -> None:
    """List usage events."""
    found = _client(context).every("/v1/usage/events", most=most, meter=meter, run=run)
    show(found, output, ("id", "meter", "quantity", "agent_id", "model", "occurred_at"))


@usage.command("reconcile")
def usage_reconcile(
    start: Annotated[str, typer.Option("--from", help="RFC 3339 or a day.")],
    end: Annotated[str, typer.Option("--to", help="RFC 3339 or a day.")],
    window: Annotated[str, typer.Option(help="hour, day or month.")] = "day",
    repair: Annotated[bool, typer.Option(help="Send what the meter misses, under its original ids.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """Compare ledger and meter per tenant, meter and window. Exits with 1 where they differ.

    An operator's command: it needs the settings of a kgents process (KGENTS_DATABASE_URL, KGENTS_METER_URL), or
    KGENTS_DATA_DIR of a running kgents up.
    """
    from kgents.cli import reconcile

    report = reconcile.run(_moment(start), _moment(end), window, repair=repair)
    show(report["differences"], output, ("tenant", "meter", "window_start", "ledger", "metered", "difference"))
    note(report["summary"])
    if report["differences"]:
        raise SystemExit(1)
