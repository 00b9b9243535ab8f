"""`kgents context`: which kgents the commands use."""

from __future__ import annotations

from kgents.cli.options import Output, group
from kgents.cli.output import Format, note, show

context = group("Which kgents the commands use.")


@context.command("list")
def context_list(output: Output = Format.TABLE) -> None:
    """List the contexts."""
    from kgents.cli import context as contexts

    rows = [{"current": current, "name": found.name, "url": found.url} for found, current in contexts.every()]
    show(rows, output, ("current", "name", "url"))


@context.command("use")
def context_use(name: str) -> None:
    """Make a context the current one."""
    from kgents.cli import context as contexts

    contexts.use(name)
    note(f"Using {name}.")
