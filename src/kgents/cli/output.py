"""How commands print: `-o table|json|yaml`. Data goes to stdout, everything else to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any

import typer


class Format(StrEnum):
    """An output format."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


Output = Annotated[Format, typer.Option("-o", "--output", help="How to print.")]
ContextName = Annotated[str, typer.Option("--context", help="Which kgents to use; the current one by default.")]


def show(value: Any, format_: Format, columns: Sequence[str] = ()) -> None:
    """Print a document, or a list of them; a table shows `columns` of each (all fields of a single one)."""
    if format_ is Format.JSON:
        sys.stdout.write(json.dumps(value, indent=2) + "\n")
    elif format_ is Format.YAML:
        import yaml

        sys.stdout.write(yaml.safe_dump(value, sort_keys=False, allow_unicode=True))
    elif isinstance(value, Mapping):
        _table([{"field": key, "value": _cell(cell)} for key, cell in value.items()], ("field", "value"))
    else:
        _table(value, columns)


def note(text: str) -> None:
    """Say something that is not data."""
    sys.stderr.write(text + "\n")


def _table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column.replace("_", " ").upper(), overflow="fold")
    for row in rows:
        table.add_row(*(_cell(row.get(column)) for column in columns))
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    console.print(table, markup=False) if rows else note("none")


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(_cell(item) for item in value) or "-"
    return json.dumps(value) if isinstance(value, Mapping) else str(value)
