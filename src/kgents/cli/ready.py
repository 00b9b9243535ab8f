"""`kgents ready`: whether an installation is ready, shown by checks that run."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kgents.cli.options import Output, group
from kgents.cli.output import Format, note, printable, show, write
from kgents.errors import NotFound, Unprocessable

if TYPE_CHECKING:
    from kgents.readiness.ledger import Ledger
    from kgents.readiness.model import Criterion, Result

ready = group("Whether an installation is ready, shown by checks.")

Project = Annotated[
    Path, typer.Option(exists=True, file_okay=False, help="The checkout that holds deploy, docs and evidence.")
]
Waivers = Annotated[Path, typer.Option(help="Who answers for what does not hold yet.")]
_WAIVERS = Path("security/waivers.toml")
_LEDGER = Path("evidence/ready")
LedgerFolder = Annotated[Path, typer.Option("--ledger", help="The folder of the ledger and of what checks saw.")]


@ready.callback(invoke_without_command=True)
def run(
    call: typer.Context,
    context: Annotated[str, typer.Option("--context", help="kubectl's context; the current one by default.")] = "",
    namespace: Annotated[str, typer.Option(help="The installation's namespace.")] = "kgents-agents",
    url: Annotated[str, typer.Option(help="Where the API answers; otherwise kubectl forwards a port to it.")] = "",
    meter: Annotated[str, typer.Option(help="OpenMeter's address; its token is KGENTS_METER_TOKEN.")] = "",
    loki: Annotated[str, typer.Option(help="Loki's address.")] = "",
    grafana: Annotated[str, typer.Option(help="Grafana's address; its token is GRAFANA_TOKEN.")] = "",
    prometheus: Annotated[str, typer.Option(help="Prometheus' address.")] = "",
    only: Annotated[
        list[str] | None, typer.Option(help="A criterion or a track, and what it needs; may repeat.")
    ] = None,
    disrupt: Annotated[bool, typer.Option("--disrupt", help="Also run the checks that break something.")] = False,
    waivers: Waivers = _WAIVERS,
    ledger: LedgerFolder = _LEDGER,
    project: Project = Path(),
    output: Output = Format.TABLE,
) -> None:
    """Run the checks. Exits with 1 unless every criterion holds or is waived.

    KGENTS_ADMIN_KEY is a platform administrator's key: checks make tenants of their own, and delete them.
    """
    if call.invoked_subcommand:
        return
    from kgents.clock import SystemClock
    from kgents.readiness import waivers as of_waivers
    from kgents.readiness.criteria import GRAPH
    from kgents.readiness.engine import Engine
    from kgents.readiness.model import standing
    from kgents.readiness.target import Target
    from kgents.tenants.keys import parse_peppers

    for name in only or ():
        _check_name(name)
    clock = SystemClock()
    waived = of_waivers.load(project / waivers, clock.now())
    for name in waived:
        _check_name(name)
    kept, _ = _verified(project, ledger)
    with (
        _telling(output) as tell,
        Target(
            clock,
            project,
            parse_peppers,
            context=context,
            namespace=namespace,
            url=url,
            admin_key=os.environ.get("KGENTS_ADMIN_KEY", ""),
            grafana=grafana,
            grafana_token=os.environ.get("GRAFANA_TOKEN", ""),
            loki=loki,
            prometheus=prometheus,
            meter=meter,
            meter_token=os.environ.get("KGENTS_METER_TOKEN", ""),
            disrupt=disrupt,
        ) as target,
    ):
        results = Engine(GRAPH, target, kept, waived, clock, tell).run(only or ())
    for each in target.left_behind:
        note(f"a tenant of the checks is left: {each}. Delete it: kgents tenant update ID --status deleted")
    if output is not Format.TABLE:
        show([_row(GRAPH.get(name), each) for name, each in sorted(results.items())], output)
    open_ = standing(results.values())
    note(f"{len(results) - len(open_)} of {len(results)} criteria hold or are waived, {len(open_)} stand in the way")
    if open_:
        raise SystemExit(1)


def _check_name(name: str) -> None:
    from kgents.readiness.criteria import GRAPH

    if name not in GRAPH.names:
        raise NotFound(f"There is no criterion or track {name!r}. See: kgents ready plan")


@contextmanager
def _telling(output: Format) -> Iterator[Any]:
    """Tells each result when it is there: to stdout for a table, else to stderr; on a terminal also what runs now."""
    stream = sys.stdout if output is Format.TABLE else sys.stderr
    running: list[str] = []
    colours = {"pass": "\x1b[32m", "fail": "\x1b[31m", "unknown": "\x1b[33m", "waived": "\x1b[35m"}
    coloured = stream.isatty() and "NO_COLOR" not in os.environ
    status: Any = None
    if sys.stderr.isatty():
        from rich.console import Console

        status = Console(stderr=True).status("")

    def tell(criterion: Criterion, result: Result | None) -> None:
        if result is None:
            running.append(criterion.id)
        else:
            running.remove(criterion.id)
            colour, end = (colours[result.verdict], "\x1b[0m") if coloured else ("", "")
            text = printable(f"{criterion.claim}: {' '.join(result.detail.split())}")
            stream.write(f"{criterion.id:<3} {colour}{result.verdict:<8}{end} {text}\n")
            stream.flush()
        if status is not None:
            status.update(f"checking {', '.join(running)}")

    if status is None:
        yield tell
    else:
        with status:
            yield tell


def _row(criterion: Criterion, result: Result) -> dict[str, Any]:
    from kgents.clock import to_rfc3339

    return {
        "criterion": criterion.id,
        "claim": criterion.claim,
        "verdict": result.verdict.value,
        "detail": result.detail,
        "seen_at": to_rfc3339(result.time),
        "commit": result.commit,
        "evidence": result.evidence,
        "seconds": round(result.seconds, 1),
    }


@ready.command("plan")
def plan(
    ledger: LedgerFolder = _LEDGER,
    waivers: Waivers = _WAIVERS,
    target: Annotated[str, typer.Option(help="The installation, as the ledger names it; its last by default.")] = "",
    project: Project = Path(),
    output: Output = Format.TABLE,
) -> None:
    """Show the critical path, and planned against actual minutes."""
    from kgents.readiness import plan as of_plan
    from kgents.readiness.criteria import GRAPH

    kept, _, results = _latest(project, ledger, waivers, target)
    path, minutes = GRAPH.critical_path(of_plan.done(results))
    rows = [each._asdict() for each in of_plan.budgets(GRAPH, kept.lines(), results)]
    if output is not Format.TABLE:
        show({"tracks": rows, "critical_path": [each.id for each in path], "minutes": minutes}, output)
        return
    show(rows, output, list(rows[0]))
    sys.stdout.write(
        f"\ncritical path, {minutes} minutes planned: {' -> '.join(each.id for each in path) or 'nothing'}\n"
    )
    for each in path:
        sys.stdout.write(f"  {each.id}  {each.minutes:>3} min  {each.claim}\n")


@ready.command("spend")
def spend(
    track: Annotated[str, typer.Argument(help="The track, such as A.")],
    attention: Annotated[int, typer.Option(min=0, help="Minutes of a person.")] = 0,
    exploration: Annotated[int, typer.Option(min=0, help="Minutes of finding out.")] = 0,
    for_: Annotated[str, typer.Option("--for", help="What for.")] = "",
    ledger: LedgerFolder = _LEDGER,
    project: Project = Path(),
) -> None:
    """Enter minutes that were spent on a track."""
    from kgents.clock import SystemClock
    from kgents.readiness.criteria import GRAPH
    from kgents.readiness.ledger import Ledger

    if track not in {each.id for each in GRAPH.tracks}:
        raise NotFound(f"There is no track {track!r}: {', '.join(each.id for each in GRAPH.tracks)}.")
    if not attention and not exploration:
        raise Unprocessable("Say how many minutes: --attention or --exploration.", code="spend")
    fields = {"track": track, "attention": attention, "exploration": exploration, "for": for_}
    Ledger(project / ledger).add("spent", SystemClock().now(), **fields)


@ready.command("explain")
def explain(
    criterion: Annotated[str, typer.Argument(help="The criterion, such as C2.")], output: Output = Format.TABLE
) -> None:
    """Say what a criterion checks, and how to mend it."""
    from kgents.readiness.criteria import GRAPH
    from kgents.readiness.model import HOUR

    try:
        found = GRAPH.get(criterion)
    except KeyError:
        raise NotFound(f"There is no criterion {criterion!r}. See: kgents ready plan") from None
    show(
        {
            "criterion": found.id,
            "claim": found.claim,
            "check": found.how,
            "breaks_something": found.disrupts,
            "evidence_may_be": f"{found.max_age // HOUR} hours old",
            "needs": list(GRAPH.needs(found)),
            "blocks": [*GRAPH.blocks(found), "launch"],
            "to_mend_it": found.fix,
            "run_it": f"kgents ready --only {found.id}" + (" --disrupt" if found.disrupts else ""),
        },
        output,
    )


@ready.command("render")
def render(
    markdown: Annotated[Path | None, typer.Option(dir_okay=False, help="Write the checklist as Markdown.")] = None,
    html: Annotated[Path | None, typer.Option(dir_okay=False, help="Write it as a web page.")] = None,
    junit: Annotated[Path | None, typer.Option(dir_okay=False, help="Write it as JUnit's XML, for CI.")] = None,
    ledger: LedgerFolder = _LEDGER,
    waivers: Waivers = _WAIVERS,
    target: Annotated[str, typer.Option(help="The installation, as the ledger names it; its last by default.")] = "",
    project: Project = Path(),
) -> None:
    """Write the checklist from the ledger, as of its last results."""
    from kgents.clock import SystemClock
    from kgents.readiness import render as of_render
    from kgents.readiness.criteria import GRAPH

    kept, name, results = _latest(project, ledger, waivers, target)
    page = of_render.Page(GRAPH, results, name, kept.lines()[-1]["hash"], SystemClock().now())
    for path, rendered in ((markdown, of_render.markdown), (html, of_render.html), (junit, of_render.junit)):
        if path is not None:
            write(path, rendered(page))
    note(page.verdict)


@ready.command("verify")
def verify(ledger: LedgerFolder = _LEDGER, project: Project = Path()) -> None:
    """Check that no line of the ledger, and no evidence, was changed or taken out."""
    kept, count = _verified(project, ledger)
    if not count:
        raise NotFound(f"{kept.path} has no line yet. Run: kgents ready")
    note(f"{count} lines, each as it was written")


def _verified(project: Path, folder: Path) -> tuple[Ledger, int]:
    """The ledger, which was verified, and how many lines it has. The checklist is of the one in the usual folder."""
    from kgents.readiness.ledger import Ledger
    from kgents.readiness.render import CHECKLIST, last_line

    kept = Ledger(project / folder)
    return kept, kept.verify(last_line(project / CHECKLIST) if folder == _LEDGER else "")


def _latest(project: Path, folder: Path, waivers: Path, target: str) -> tuple[Ledger, str, dict[str, Result]]:
    """The ledger, which was verified, an installation in it, and its last results as they count now."""
    from kgents.clock import SystemClock
    from kgents.readiness import waivers as of_waivers
    from kgents.readiness.criteria import GRAPH
    from kgents.readiness.engine import aged, waived

    (kept, _), now = _verified(project, folder), SystemClock().now()
    names = [line["target"] for line in kept.lines() if line["kind"] == "result"]
    if not names or (target and target not in names):
        raise NotFound(f"{kept.path} has no result of {target or 'any installation'} yet. Run: kgents ready")
    name = target or names[-1]
    known = of_waivers.load(project / waivers, now)
    found = {
        each.id: waived(aged(each, result, now), known, now)
        for each in GRAPH.criteria
        if (result := kept.latest(name).get(each.id))
    }
    return kept, name, found
