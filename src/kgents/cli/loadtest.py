"""`kgents loadtest`: load on a kgents, and whether what was measured may be believed."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kgents.cli.options import ContextName, group
from kgents.cli.output import note
from kgents.errors import Unprocessable
from kgents.load.profiles import Name

if TYPE_CHECKING:
    from kgents.load.resources import Source
    from kgents.load.target import Target

loadtest = group("Load a kgents, and say whether the figures may be believed.")

Url = Annotated[str, typer.Option(help="The kgents' address; its administrator's key is that of the context.")]
Up = Annotated[bool, typer.Option("--up", help="Start a kgents up of its own, and load that.")]
Program = Annotated[Path | None, typer.Option("--vegeta", help="The vegeta to use; that on the PATH by default.")]
Pages = Annotated[
    list[str] | None,
    typer.Option("--metrics", help="The page of metrics of one of its processes (/metrics); may be given again."),
]
Pods = Annotated[
    str,
    typer.Option(
        "--pods", help="The namespace of its pods, in kubectl's current context, instead of pages of metrics."
    ),
]
IsMine = Annotated[
    bool, typer.Option("--the-host-is-mine", help="It is not this machine, and may be loaded all the same.")
]
Out = Annotated[Path, typer.Option(file_okay=False, help="The folder for the reports.")]
TargetMs = Annotated[float, typer.Option("--target-ms", min=1, help="What 99 of 100 answers are to keep to.")]
Tenants = Annotated[int, typer.Option(min=1, max=100, help="How many tenants to make for the test.")]


@loadtest.callback(invoke_without_command=True)
def run(
    call: typer.Context,
    url: Url = "",
    context: ContextName = "",
    up: Up = False,
    profile: Annotated[Name, typer.Option(help="What load comes when.")] = Name.SMOKE,
    rate: Annotated[float, typer.Option(min=0, help="Requests a second; each profile has its own.")] = 0.0,
    seconds: Annotated[float, typer.Option(min=0, help="How long, for each step; each profile has its own.")] = 0.0,
    target_ms: TargetMs = 100.0,
    tenants: Tenants = 4,
    metrics: Pages = None,
    pods: Pods = "",
    vegeta: Program = None,
    expect_version: Annotated[str, typer.Option(help="The version that it is to have.")] = "",
    expect_commit: Annotated[str, typer.Option(help="The commit that it is to run from.")] = "",
    expect_mode: Annotated[str, typer.Option(help="embedded or external: its bus, meter and database.")] = "",
    the_host_is_mine: IsMine = False,
    out: Out = Path("loadtest"),
) -> None:
    """Load a kgents and write a report: load-PROFILE.json, .md and .png.

    Exits with 1 when the run is not valid: when the generator was the bottleneck, an integration was off, or the target
    was not what it was said to be.
    """
    if call.invoked_subcommand:
        return
    import asyncio

    from kgents.cli.load_progress import shown
    from kgents.load import profiles, report
    from kgents.load import vegeta as programs
    from kgents.load.run import Plan
    from kgents.load.run import run as run_load

    expected = {"version": expect_version, "commit": expect_commit, "mode": expect_mode}
    plan = Plan(
        profiles.profile(profile, rate, seconds),
        target_ms,
        tenants,
        command_line(),
        {k: v for k, v in expected.items() if v},
    )
    program = programs.find(vegeta)

    async def work() -> dict[str, object]:
        async with chosen(url, context, up=up, seen=source(metrics, pods), is_mine=the_host_is_mine) as target:
            with shown() as watcher:
                return await run_load(plan, target, program, watcher)

    document = asyncio.run(work())
    for path in report.write(document, out):
        note(f"wrote {path}")
    sys.stdout.write(report.summary(document))
    if not document["valid"] and not report.is_only_closed_loop(document):
        raise SystemExit(1)


@contextlib.asynccontextmanager
async def chosen(url: str, context: str, *, up: bool, seen: Source, is_mine: bool) -> AsyncIterator[Target]:
    """The kgents to load. Raises KgentsError when it may not be loaded, or when it can't be said which."""
    from kgents.cli import context as contexts
    from kgents.load import target

    if up:
        if url or context:
            raise typer.BadParameter("it starts one of its own: leave --url and --context out", param_hint="--up")
        note("starting a kgents up")
        async with target.own() as own:
            yield own
        return
    found = contexts.current(context)
    address = (url or found.url).rstrip("/")
    target.allow(address, is_mine=is_mine)
    if not found.admin_key:
        raise Unprocessable(
            f"The test makes tenants of its own, and the context {found.name!r} has no platform administrator's key. "
            "Set KGENTS_URL and KGENTS_ADMIN_KEY, or log in with: kgents login URL --admin-key KEY",
            code="no-admin-key",
        )
    yield target.Target(address, found.admin_key, seen)


def source(metrics: list[str] | None, pods: str) -> Source:
    """Where the target's processes can be seen. Raises Unprocessable for a page that is no address."""
    from kgents.load import target
    from kgents.load.pods import Pods as OfNamespace
    from kgents.load.resources import Pages as OfMetrics

    for url in metrics or []:
        target.host_of(url)

    return OfNamespace(pods) if pods else OfMetrics(metrics or [])


def command_line() -> str:
    """What was typed, as far as it may be shown."""
    return shlex.join(["kgents", *sys.argv[1:]])


@loadtest.command("page")
def page(
    evidence: Annotated[
        Path, typer.Argument(help="The folder with the reports, load-*.json.", exists=True, file_okay=False)
    ],
    to: Annotated[Path, typer.Argument(help="The page to write, with its pictures beside it.", dir_okay=False)],
) -> None:
    """Write the baseline's page from reports. One that is not valid is not taken."""
    from kgents.load.page import write
    from kgents.load.report import understood

    with understood(evidence):
        files = write(evidence, to)
    for path in files:
        note(f"wrote {path}")
