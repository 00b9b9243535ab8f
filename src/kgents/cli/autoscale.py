"""`kgents autoscale`: what an autoscaler makes of a load, before there is a cluster."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from kgents.cli.options import Output, group
from kgents.cli.output import Format, note, show
from kgents.errors import Unprocessable

autoscale = group("What an autoscaler makes of a load.")

Hpa = Annotated[
    Path | None,
    typer.Option(
        exists=True, dir_okay=False, help="A manifest with a HorizontalPodAutoscaler; kgents' own by default."
    ),
]
Trace = Annotated[
    Path, typer.Option("--load", exists=True, dir_okay=False, help="A CSV file: second,requests_per_second.")
]
Capacity = Annotated[
    Path | None,
    typer.Option(
        exists=True,
        dir_okay=False,
        help="What a pod can do: a JSON file with cpu_per_request (s), request and limit (thousandths of a core), or "
        "the capacity.json of kgents capacity.",
    ),
]


@autoscale.command("simulate")
def simulate(
    load: Trace,
    hpa: Hpa = None,
    capacity: Capacity = None,
    png: Annotated[Path | None, typer.Option(help="Draw it into this file.")] = None,
    sync: Annotated[float, typer.Option(min=1, help="Seconds between two looks of the autoscaler.")] = 15.0,
    resolution: Annotated[float, typer.Option(min=1, help="Seconds between two samples of metrics-server.")] = 15.0,
    output: Output = Format.TABLE,
) -> None:
    """Show replicas, utilization and latency over time, as Kubernetes' own algorithm would have them."""
    from kgents.load import picture, simulation

    settings = _settings(hpa)
    can = _capacity(capacity)
    try:
        moments = simulation.simulate(settings, can, _trace(load), simulation.Timing(sync, resolution))
    except ValueError as error:
        raise Unprocessable(f"{load}: {error}.", code="load") from None
    steps = [{"second": second, "replicas": replicas} for second, replicas in simulation.steps(moments)]
    figures = simulation.summary(moments)
    if png is not None:
        target = next((metric.target for metric in settings.metrics if metric.name == "cpu"), 0)
        picture.write_png(png, moments, target=target, title=f"{load.name}: {settings.least} to {settings.most} pods")
        note(f"wrote {png}")
    if output is not Format.TABLE:
        show({"summary": figures, "steps": steps}, output)
        return
    unicode = (sys.stdout.encoding or "").lower().startswith("utf")
    for line in picture.lines(moments, shutil.get_terminal_size().columns, unicode=unicode):
        sys.stdout.write(line + "\n")
    sys.stdout.write("\n")
    show(steps, output, ["second", "replicas"])
    sys.stdout.write("\n")
    show({name: round(value, 1) for name, value in figures.items()}, output)


def _settings(path: Path | None) -> Any:
    from kgents.load import autoscaler

    if path is None:
        return autoscaler.OURS
    import yaml

    try:
        documents = [each for each in yaml.safe_load_all(path.read_text()) if isinstance(each, dict)]
        wanted = [each for each in documents if each.get("kind") == "HorizontalPodAutoscaler"]
        if len(wanted) != 1:
            raise ValueError(f"it has {len(wanted)} HorizontalPodAutoscalers, and is to have one")
        return autoscaler.Settings.parse(wanted[0])
    except KeyError as error:
        raise Unprocessable(f"{path} can't be used: it has no {error}.", code="hpa") from None
    except (yaml.YAMLError, ValueError) as error:
        raise Unprocessable(f"{path} can't be used: {error}.", code="hpa") from None
    except (TypeError, AttributeError, RecursionError):
        raise Unprocessable(f"{path} can't be used: it is not built as an autoscaler's manifest.", code="hpa") from None


def _capacity(path: Path | None) -> Any:
    from kgents.load.simulation import Capacity as Can

    if path is None:
        return Can(cpu_per_request=0.001, request=500, limit=1000)
    try:
        found = json.loads(path.read_text())
        return Can.parse(found.get("simulation", found))
    except ValueError as error:
        raise Unprocessable(f"{path} can't be used: {error}.", code="capacity") from None
    except (TypeError, AttributeError, RecursionError):
        raise Unprocessable(f"{path} can't be used: it is not a JSON object of numbers.", code="capacity") from None


def _trace(path: Path) -> list[Any]:
    from kgents.load.simulation import MOST, Point

    points = []
    with path.open(newline="") as file:
        try:
            rows = list(csv.reader(file))
        except csv.Error as error:
            raise Unprocessable(f"{path} is not CSV: {error}.", code="load") from None
    for number, row in enumerate(rows, 1):
        if not row or row[0].lstrip().startswith("#") or (number == 1 and not row[0][:1].isdigit()):
            continue
        try:
            point = Point(float(row[0]), float(row[1]))
            if not (abs(point.second) < MOST and 0 <= point.rate < MOST):
                raise ValueError
        except (ValueError, IndexError):
            text = ",".join(row)
            raise Unprocessable(
                f"{path}, line {number}: {text!r} is not second,requests_per_second.", code="load"
            ) from None
        points.append(point)
    return points
