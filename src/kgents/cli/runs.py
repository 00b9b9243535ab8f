"""`kgents run`: runs."""

from __future__ import annotations

import json
from typing import Annotated, Literal

import typer

from kgents.cli.options import ContextName, Most, Output, client, group, route
from kgents.cli.output import Format, note, progress, show

run = group("Runs.")

Status = Literal["queued", "running", "completed", "failed", "cancelled"]
COLUMNS = (
    "id",
    "agent_id",
    "mode",
    "status",
    "usage.input_tokens",
    "usage.output_tokens",
    "usage.tool_calls",
    "created_at",
)


@run.command("create")
def run_create(
    agent: str,
    text: str,
    background: Annotated[bool, typer.Option(help="Answer at once; follow it with: kgents run events ID")] = False,
    session: Annotated[str, typer.Option(help="Go on in this session instead of a new one.")] = "",
    output: Output = Format.TABLE,
    context: ContextName = "",
) -> None:
    """Run an agent. Exits with 1 when the run fails."""
    api = client(context)
    session = session or api.post("/v1/sessions", {"agent": agent})["id"]
    body = {"input": text, "mode": "background" if background else "wait"}
    with progress(f"{agent} is running"):
        found = api.post(route("sessions", session, "runs"), body)
    show(found, output)
    if found["status"] in ("failed", "cancelled"):
        note(f"kgents: {(found['error'] or {}).get('detail') or 'The run was cancelled.'}")
        raise typer.Exit(1)


@run.command("list")
def run_list(
    status: Annotated[Status | None, typer.Option(help="Only those of this status.")] = None,
    session: Annotated[str, typer.Option(help="Only this session's.")] = "",
    most: Most = 20,
    output: Output = Format.TABLE,
    context: ContextName = "",
) -> None:
    """List runs, newest first."""
    found = client(context).every("/v1/runs", most=most, status=status, session_id=session)
    show(found, output, COLUMNS)


@run.command("get")
def run_get(run_id: str, output: Output = Format.TABLE, context: ContextName = "") -> None:
    """Show a run."""
    show(client(context).get(route("runs", run_id)), output)


@run.command("cancel")
def run_cancel(run_id: str, output: Output = Format.TABLE, context: ContextName = "") -> None:
    """Ask for a run's end."""
    show(client(context).post(route("runs", run_id, "cancel")), output)


@run.command("events")
def run_events(
    run_id: str,
    after: Annotated[int, typer.Option(help="Begin after the event of this id.", min=0)] = 0,
    context: ContextName = "",
) -> None:
    """Follow a run's events to its end, one line of JSON each."""
    for event in client(context).follow(run_id, str(after or "")):
        typer.echo(json.dumps(event._asdict()))
