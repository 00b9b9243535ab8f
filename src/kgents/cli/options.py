"""What the commands have in common: options that many take, and the client of the chosen context."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import quote

import typer

from kgents.cli.output import Format

if TYPE_CHECKING:
    from kgents.cli.client import Client

Output = Annotated[Format, typer.Option("-o", "--output", help="How to print.")]
ContextName = Annotated[str, typer.Option("--context", help="Which kgents to use; the current one by default.")]
Most = Annotated[int, typer.Option(help="How many at most.", min=1)]
KubeContext = Annotated[
    str | None, typer.Option("--kube-context", help="A cluster: kubectl's context; the current one by default.")
]
Namespace = Annotated[
    str | None, typer.Option("-n", "--namespace", help="A cluster: the namespace; kgents-agents by default.")
]
DataFolder = Annotated[Path, typer.Option("--data", help="The folder of a kgents up.", envvar="KGENTS_DATA_DIR")]
NAMESPACE = "kgents-agents"
"""The one that all overlays of deploy/ have."""
MeterName = Literal["runs", "input_tokens", "output_tokens", "tool_calls"]
WindowName = Literal["hour", "day", "month"]


def group(help_: str) -> typer.Typer:
    """A group of commands. Its help is plain text: Rich's takes longer to import than the rest of the help."""
    return typer.Typer(help=help_, no_args_is_help=True, rich_markup_mode=None)


def client(context: str, *, admin: bool = False) -> Client:
    """The API of a context, or of the current one."""
    from kgents.cli import context as contexts
    from kgents.cli.client import Client

    return Client(contexts.current(context), admin=admin)


def route(*parts: str) -> str:
    """A path of the API: names and ids are data in it, whatever they hold. Raises BadParameter for what is none."""
    for part in parts:
        if part in ("", ".", ".."):
            raise typer.BadParameter(f"{part!r} is not a name or an id")
    return "/v1/" + "/".join(quote(part, safe="", errors="surrogateescape") for part in parts)


def cluster(kube_context: str | None, namespace: str | None) -> tuple[str, str] | None:
    """kubectl's context and a namespace where either was given, or None: then this machine is meant."""
    if kube_context is None and namespace is None:
        return None
    return kube_context or "", namespace or NAMESPACE


def moment(value: Any) -> str:
    """A time as the API takes it, from RFC 3339 or a day (its start, UTC). Raises BadParameter; "" stays ""."""
    text = str(value or "")
    if not text:
        return ""
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is not a day (2026-11-01) or a time (2026-11-01T12:00:00Z)") from error
    if len(text) == 10:
        return f"{text}T00:00:00Z"
    if found.tzinfo is None:
        raise typer.BadParameter(f"{text!r} has no offset: add Z for UTC")
    return text
