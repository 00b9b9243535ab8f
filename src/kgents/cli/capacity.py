"""`kgents capacity`: how much a kgents can do, and what a deployment is to ask for."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from kgents.cli.loadtest import IsMine, Out, Pages, Pods, Program, Tenants, Up, Url, chosen, command_line, source
from kgents.cli.options import ContextName, Output, group
from kgents.cli.output import Format, note, show

capacity = group("How much a kgents can do, and what one is to ask for.")

Stress = Annotated[
    Path,
    typer.Option(exists=True, dir_okay=False, help="The report of kgents loadtest --profile stress, load-stress.json."),
]
Expected = Annotated[float, typer.Option(min=1, max=1e9, help="Requests a second that are expected.")]
Peak = Annotated[float, typer.Option(min=1, max=1e9, help="Requests a second at the peak.")]
Growth = Annotated[
    float, typer.Option(min=0.05, max=3, help="The share by which load may grow before new pods serve, in about 45 s.")
]
Evidence = Annotated[
    Path, typer.Argument(help="What kgents capacity wrote, capacity.json.", exists=True, dir_okay=False)
]
Component = Annotated[
    Path, typer.Argument(help="The component's folder, such as deploy/components/capacity.", file_okay=False)
]


@capacity.command("measure")
def measure(
    stress: Stress,
    url: Url = "",
    context: ContextName = "",
    up: Up = False,
    seconds: Annotated[float, typer.Option(min=1, help="How long, for each of 14 measurements.")] = 4.0,
    expected: Expected = 100.0,
    peak: Peak = 1000.0,
    growth: Growth = 0.4,
    tenants: Tenants = 4,
    metrics: Pages = None,
    pods: Pods = "",
    vegeta: Program = None,
    the_host_is_mine: IsMine = False,
    out: Out = Path("loadtest"),
) -> None:
    """Measure the throughput at several sizes, fit the scalability law, and propose numbers for a deployment.

    Writes capacity.json, .md and .png.
    """
    import asyncio

    from kgents.cli.load_progress import shown
    from kgents.load import capacity as rules
    from kgents.load import report
    from kgents.load import vegeta as programs
    from kgents.load.sizing import Demand

    demand, found = Demand(expected, peak, growth), report.read(stress, "load test")
    program = programs.find(vegeta)

    async def work() -> dict[str, Any]:
        async with chosen(url, context, up=up, seen=source(metrics, pods), is_mine=the_host_is_mine) as target:
            with shown() as watcher:
                return await rules.measure(
                    target, program, watcher, found, tenants=tenants, seconds=seconds, command=command_line()
                )

    measured = asyncio.run(work())
    with report.understood(stress):
        document = rules.conclude(measured, found, demand)
    _write(document, out)


@capacity.command("conclude")
def conclude(
    evidence: Evidence,
    expected: Expected = 100.0,
    peak: Peak = 1000.0,
    growth: Growth = 0.4,
    out: Out = Path("loadtest"),
) -> None:
    """Work out the numbers for another demand, from what was measured."""
    from kgents.load import capacity as rules
    from kgents.load import report
    from kgents.load.sizing import Demand

    found = report.read(evidence, "capacity")
    with report.understood(evidence):
        document = rules.conclude(found, found["stress"], Demand(expected, peak, growth))
    _write(document, out)


@capacity.command("write")
def write(evidence: Evidence, component: Component) -> None:
    """Write the kustomize component that brings the numbers into the manifests."""
    from kgents.load import capacity as rules
    from kgents.load import component as components
    from kgents.load import report

    with report.understood(evidence):
        proposal = rules.proposal(report.read(evidence, "capacity"))
    note(f"wrote {components.write(proposal, component)}")


@capacity.command("check")
def check(evidence: Evidence, component: Component, output: Output = Format.TABLE) -> None:
    """Say whether the component is what the evidence says. Exits with 1 when it is not."""
    from kgents.load import component as components
    from kgents.load import report

    with report.understood(evidence):
        found = components.drift(report.read(evidence, "capacity"), component)
    show([{"difference": text} for text in found], output, ["difference"])
    if found:
        note(f"kgents: the manifests drifted. Write them again: kgents capacity write {evidence} {component}")
        raise SystemExit(1)


def _write(document: dict[str, Any], out: Path) -> None:
    from kgents.load import capacity_report, charts

    out.mkdir(parents=True, exist_ok=True)
    files = [out / "capacity.json", out / "capacity.md"]
    picture = out / "capacity.png"
    if charts.draw_capacity(document, picture):
        files.append(picture)
    files[0].write_text(json.dumps(document, indent=1) + "\n")
    files[1].write_text(capacity_report.markdown(document, picture=picture.name if picture in files else ""))
    for path in files:
        note(f"wrote {path}")
    for reason in document["reasoning"]:
        sys.stdout.write(f"- {reason}\n")
