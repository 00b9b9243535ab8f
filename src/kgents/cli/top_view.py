"""How `kgents top` draws its figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from kgents.cli.output import cell

_GOOD = {"ok": "bold green", "connected": "green", "degraded": "yellow", "not_configured": "dim"}


def view(found: Mapping[str, Any]) -> Group:
    """The figures for a terminal of 80 columns or more."""
    status = found["status"]
    head = Text.assemble(
        ("kgents ", "bold"), (status, _style(status)), f"   {found['time']}   over {found['seconds']:.1f} s"
    )
    return Group(head, "", _rates(found), "", _processes(found["processes"]), "", _components(found["components"]))


def _style(status: str) -> str:
    return _GOOD.get(status, "bold red")


def _rates(found: Mapping[str, Any]) -> Table:
    requests, runs, tokens, backlog = (found[name] for name in ("requests", "runs", "tokens", "backlog"))
    failing = "bold red"
    left = (
        ("requests", _rate(requests["per_second"]), ""),
        ("errors", _rate(requests["errors_per_second"], failing), "5xx"),
        ("refused", _rate(requests["refused_per_second"], "yellow"), "by limits"),
        ("in flight", _count(requests["in_flight"]), ""),
        ("p50", _time(requests["p50_ms"]), ""),
        ("p95", _time(requests["p95_ms"]), ""),
    )
    other = (
        ("runs", _rate(runs["per_second"]), ""),
        ("failed", _rate(runs["failed_per_second"], failing), ""),
        ("running", _count(runs["in_flight"]), ""),
        ("tokens", _rate(tokens["input_per_second"] + tokens["output_per_second"]), _directions(tokens)),
        ("outbox", _count(backlog["outbox"]), f"oldest {backlog['oldest_seconds']:.1f} s"),
        ("bus", _count(backlog["bus"]), ""),
    )
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for style, right in (("bold cyan", False), ("", True), ("dim", False)) * 2:
        table.add_column(style=style, justify="right" if right else "left", no_wrap=True, min_width=10 if right else 9)
    for cells in zip(left, other, strict=True):
        table.add_row(*cells[0], *cells[1])
    return table


def _directions(tokens: Mapping[str, float]) -> str:
    return f"{tokens['input_per_second']:,.0f} in, {tokens['output_per_second']:,.0f} out"


def _rate(value: float, alarm: str = "") -> Text:
    return Text(f"{value:,.1f}/s", style=alarm if alarm and value else "")


def _count(value: float | None) -> Text:
    return Text("-" if value is None else f"{value:,.0f}")


def _time(value: float | None) -> Text:
    return Text("-" if value is None else f"{value:,.1f} ms")


def _processes(processes: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    table.add_column("PROCESS")
    table.add_column("CPU", justify="right")
    table.add_column("MEMORY", justify="right")
    for each in processes:
        table.add_row(each["process"], f"{each['cpu_percent']:.0f} %", f"{each['memory_mib']:,.0f} MiB")
    return table


def _components(components: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for heading, right in (("COMPONENT", False), ("STATUS", False), ("LATENCY", True), ("BACKLOG", True), ("", False)):
        table.add_column(heading, justify="right" if right else "left")
    for each in components:
        status = Text(each["status"], style=_style(each["status"]))
        detail = "" if each["detail"] is None else cell(each["detail"])
        table.add_row(each["component"], status, _time(each["latency_ms"]), _count(each["backlog"]), Text(detail))
    return table
