"""The `kgents` command. Each command is a module that is imported only when it is used, so that help is instant."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from kgents.cli import commands, serve, usage
from kgents.cli.output import ContextName, Format, Output

app = typer.Typer(
    name="kgents",
    help="Serve AI agents to many tenants, with every token and run metered.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.command()
def up(
    data: Annotated[Path, typer.Option(help="The folder that keeps everything.", envvar="KGENTS_DATA_DIR")] = Path(
        "data"
    ),
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port to listen on; 0 takes a free one.", min=0, max=65535)] = 8080,
    json: Annotated[bool, typer.Option("--json", help="Print one line of JSON once ready, for scripts.")] = False,
) -> None:
    """Run everything on this machine: API, workers, event bus and meter."""
    from kgents.cli import up as command

    command.run(data, host, port, as_json=json)


@app.command()
def chat(
    agent: Annotated[str, typer.Argument(help="The agent's name or id.")],
    message: Annotated[str, typer.Argument(help="What to say; without it, type.")] = "",
    context: ContextName = "",
) -> None:
    """Talk to an agent."""
    from kgents.cli import chat as command

    command.run(agent, message, context)


@app.command()
def login(
    url: Annotated[str, typer.Argument(help="The address of a kgents, such as https://agents.example.com")],
    name: Annotated[str, typer.Option(help="What to call it.")] = "default",
    admin_key: Annotated[str, typer.Option(envvar="KGENTS_ADMIN_KEY", help="A platform administrator's key.")] = "",
) -> None:
    """Keep a kgents and an API key for it; the key is asked for, or read from KGENTS_API_KEY."""
    from kgents.cli import login as command

    command.run(url, name, admin_key)


@app.command()
def health(
    output: Output = Format.TABLE,
    context: ContextName = "",
    url: Annotated[str, typer.Option(help="Ask this address instead of the context's.")] = "",
) -> None:
    """Show the health of every dependency. Exits with 1 unless all is well."""
    from kgents.cli import health as command

    command.run(output, context, url)


@app.command()
def migrate() -> None:
    """Bring the database of KGENTS_DATABASE_OWNER_URL (or KGENTS_DATABASE_URL) to this version's tables."""
    from kgents.cli import serve as command

    command.migrate()


app.add_typer(commands.tenant, name="tenant")
app.add_typer(commands.key, name="key")
app.add_typer(commands.agent, name="agent")
app.add_typer(commands.run, name="run")
app.add_typer(commands.context, name="context")
app.add_typer(usage.usage, name="usage")
app.add_typer(serve.serve, name="serve")


def main() -> None:
    """Run the command line. An expected error is one line that says what to do, and exit status 1."""
    from kgents.errors import KgentsError

    try:
        app()
    except KgentsError as error:
        sys.stderr.write(f"kgents: {error.detail}\n")
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
