"""How commands print: `-o table|json|yaml`. Data goes to stdout, everything else to stderr."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any

from kgents.errors import Unprocessable


class Format(StrEnum):
    """An output format."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


_FRACTION = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.\d+Z")
_HEADINGS = {"requests_per_minute": "REQ/MIN", "tokens_per_minute": "TOK/MIN"}
# What a terminal would take as a command, such as an escape sequence in a model's answer, is shown instead.
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}
_NARROWEST = 16  # characters of a column whose cells may be broken


def show(value: Any, format_: Format, columns: Sequence[str] = ()) -> None:
    """Print a document, or a list of them.

    A table shows `columns` of each (`usage.runs`: a field of a field) and all fields of a single one. On a terminal it
    is fitted to the width, ids whole; elsewhere each row is one line.
    """
    if format_ is Format.JSON:
        sys.stdout.write(json.dumps(value, indent=2) + "\n")
    elif format_ is Format.YAML:
        import yaml

        sys.stdout.write(yaml.safe_dump(value, sort_keys=False, allow_unicode=True))
    elif isinstance(value, Mapping):
        _document(value)
    elif value:
        _table(value, columns)
    else:
        note("none")


def note(text: str) -> None:
    """Say something that is not data."""
    sys.stderr.write(printable(text) + "\n")


def printable(text: str) -> str:
    """The text with control characters, other than new lines and tabs, made visible."""
    return text.translate(_CONTROLS)


def make_folder(path: Path) -> None:
    """Make the folder in which a file is to be. Raises Unprocessable."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _not_written(path, error) from None


def write(path: Path, text: str) -> None:
    """Write a file, and make its folder. Raises Unprocessable."""
    make_folder(path)
    try:
        path.write_text(text)
    except OSError as error:
        raise _not_written(path, error) from None


def _not_written(path: Path, error: OSError) -> Unprocessable:
    return Unprocessable(f"{path} can't be written: {error.strerror}. Name another file.", code="not-written")


@contextmanager
def progress(text: str) -> Iterator[None]:
    """Show on a terminal that work is going on; nothing elsewhere."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(text):
        yield


def _document(document: Mapping[str, Any]) -> None:
    """One field a line, never broken: a long value, such as a token, can be copied."""
    width = max(map(len, document), default=0)
    for name, value in document.items():
        first, *more = cell(value).split("\n")
        sys.stdout.write(f"{name:<{width}}  {first}".rstrip() + "\n")
        for line in more:
            sys.stdout.write(f"{'':<{width}}  {line}".rstrip() + "\n")


def _table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    values = [[_field(row, column) for column in columns] for row in rows]
    cells = [[cell(value) for value in row] for row in values]
    numeric = [
        all(value is None or type(value) in (int, float) for value in column)
        and any(value is not None for value in column)
        for column in zip(*values, strict=True)
    ]
    headings = [
        _HEADINGS.get(column, column.rpartition(".")[2].replace("_", " ").upper()).replace("LATENCY MS", "LATENCY (MS)")
        for column in columns
    ]
    if sys.stdout.isatty() and _fitted(headings, cells, numeric):
        return
    lines = [headings, *([text.replace("\n", "\\n") for text in row] for row in cells)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        parts = [
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(line, widths, numeric, strict=True)
        ]
        sys.stdout.write("  ".join(parts).rstrip() + "\n")


def _fitted(headings: Sequence[str], cells: Sequence[Sequence[str]], numeric: Sequence[bool]) -> bool:
    """Print a table that fits the terminal, by breaking cells that consist of words; False when none can."""
    texts = list(zip(*cells, strict=True))
    breakable = [any(" " in text for text in column) for column in texts]
    widths = [
        max(len(heading), min(_NARROWEST, longest) if broken else longest)
        for heading, broken, longest in zip(
            headings, breakable, (max(map(len, column)) for column in texts), strict=True
        )
    ]
    if sum(widths) + 2 * (len(widths) - 1) > shutil.get_terminal_size().columns:
        return False
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading, broken, right, width in zip(headings, breakable, numeric, widths, strict=True):
        table.add_column(
            heading, overflow="fold", no_wrap=not broken, min_width=width, justify="right" if right else "left"
        )
    for row in cells:
        table.add_row(*map(Text, row))
    Console(highlight=False).print(table)
    return True


def _field(row: Mapping[str, Any], column: str) -> Any:
    value: Any = row
    for name in column.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def cell(value: Any) -> str:
    """A value as a table shows it: times to the second, fields as `name=value`, nothing as `-`."""
    if value is None or value in ("", {}, []):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(cell(item) for item in value)
    if isinstance(value, Mapping):
        if any(isinstance(item, Mapping | list) for item in value.values()):
            return json.dumps(value)
        return " ".join(f"{name}={cell(item)}" for name, item in value.items())
    text = str(value)
    if found := _FRACTION.fullmatch(text):
        return f"{found[1]}Z"
    return printable(text)
