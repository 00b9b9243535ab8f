"""The `kgents` command. Each command is a module that is imported only when it is used, so that help is instant."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

import kgents
from kgents.cli import (
    agents,
    autoscale,
    billing,
    capacity,
    contexts,
    deploy,
    keys,
    loadtest,
    ready,
    runs,
    scan,
    secrets,
    serve,
    tenants,
    usage,
)
from kgents.cli.options import ContextName, DataFolder, KubeContext, Namespace, Output, cluster, group
from kgents.cli.output import Format, note
from kgents.errors import KgentsError

app = group("Serve AI agents to many tenants, with every token and run metered.")
app.pretty_exceptions_enable = False


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"kgents {kgents.__version__}")
        raise typer.Exit


@app.callback()
def kgents_command(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Serve AI agents to many tenants, with every token and run metered."""


@app.command()
def up(
    data: Annotated[Path, typer.Option(help="The folder that keeps everything.", envvar="KGENTS_DATA_DIR")] = Path(
        "data"
    ),
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port to listen on; 0 takes a free one.", min=0, max=65535)] = 8080,
    json: Annotated[bool, typer.Option("--json", help="Print one line of JSON once ready, for scripts.")] = False,
) -> None:
    """Run everything on this machine.

    That is the API, a worker, the event bus and the meter.
    """
    from kgents.cli import up as command

    command.run(data, host, port, as_json=json)


@app.command()
def chat(
    agent: Annotated[str, typer.Argument(help="The agent's name or id.")],
    message: Annotated[str | None, typer.Argument(help="What to say; without it, type.")] = None,
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
    """Keep a kgents and an API key for it.

    The key is asked for, or read from KGENTS_API_KEY.
    """
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
def logs(
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on with what comes.")] = False,
    tenant: Annotated[str, typer.Option(help="Only lines of this tenant's id.")] = "",
    trace: Annotated[str, typer.Option(help="Only lines of this trace's id.")] = "",
    level: Annotated[
        Literal["debug", "info", "warning", "error", "critical"], typer.Option(help="This level and above.")
    ] = "debug",
    process: Annotated[list[str] | None, typer.Option(help="Only of this process, such as api or worker.")] = None,
    since: Annotated[str, typer.Option(help="From a time on, or so long ago: 30s, 10m, 2h, 1d.")] = "",
    until: Annotated[str, typer.Option(help="Until then.")] = "",
    output: Output = Format.TABLE,
    data: DataFolder = Path("data"),
    namespace: Namespace = None,
    kube_context: KubeContext = None,
) -> None:
    """Show logs, of this machine or of a cluster.

    Without --since they are the last hundred lines.
    """
    from kgents.cli import logs as command
    from kgents.cli.log_lines import Wanted

    wanted = Wanted(level=level, tenant=tenant, trace=trace, processes=process or ())
    place = cluster(kube_context, namespace)
    command.run(wanted, since=since, until=until, follow=follow, output=output, data=data, cluster=place)


@app.command()
def top(
    once: Annotated[bool, typer.Option("--once", help="Show it once and end.")] = False,
    interval: Annotated[float, typer.Option(min=0.2, max=3600, help="Seconds from one look to the next.")] = 2.0,
    output: Output = Format.TABLE,
    data: DataFolder = Path("data"),
    namespace: Namespace = None,
    kube_context: KubeContext = None,
) -> None:
    """Show what happens now, on this machine or in a cluster.

    That is requests, latency, runs, tokens, backlog and health. Ctrl-C ends it.
    """
    from kgents.cli import top as command

    place = cluster(kube_context, namespace)
    command.run(once=once, interval=interval, output=output, data=data, cluster=place)


@app.command()
def migrate() -> None:
    """Bring the database to this version's tables.

    It is the one of KGENTS_DATABASE_OWNER_URL, or else of KGENTS_DATABASE_URL.
    """
    from kgents.cli import serve as command

    command.migrate()


@app.command()
def backup(
    folder: Annotated[
        Path, typer.Argument(help="The folder of all copies; each has its time for a name.", file_okay=False)
    ],
    keep: Annotated[int, typer.Option(min=0, help="Remove the oldest beyond so many; 0 removes none.")] = 0,
) -> None:
    """Copy the event bus's streams.

    Every message that waits in them is in the copy. The bus is that of KGENTS_NATS_URL.
    """
    from kgents.cli import backup as command

    command.back_up(folder, keep)


@app.command()
def restore(
    copy: Annotated[Path, typer.Argument(help="A copy, or the folder of all copies for the newest.", exists=True)],
) -> None:
    """Bring the event bus's streams back from a copy.

    Streams that have messages are not replaced.
    """
    from kgents.cli import backup as command

    command.restore(copy)


@app.command()
def completion(shell: Annotated[Literal["bash", "zsh", "fish"], typer.Argument(help="Your shell.")]) -> None:
    """Print a shell's completion script. In bash: eval "$(kgents completion bash)" """
    from typer._completion_shared import get_completion_script

    typer.echo(get_completion_script(prog_name="kgents", complete_var="_KGENTS_COMPLETE", shell=shell))


app.add_typer(tenants.tenant, name="tenant")
app.add_typer(keys.key, name="key")
app.add_typer(agents.agent, name="agent")
app.add_typer(runs.run, name="run")
app.add_typer(contexts.context, name="context")
app.add_typer(usage.usage, name="usage")
app.add_typer(billing.plan, name="plan")
app.add_typer(billing.subscription, name="subscription")
app.add_typer(billing.invoice, name="invoice")
app.add_typer(serve.serve, name="serve")
app.add_typer(deploy.deploy, name="deploy")
app.add_typer(secrets.secrets, name="secrets")
app.add_typer(autoscale.autoscale, name="autoscale")
app.add_typer(ready.ready, name="ready")
app.add_typer(scan.scan, name="scan")
app.add_typer(loadtest.loadtest, name="loadtest")
app.add_typer(capacity.capacity, name="capacity")

_COMMANDS = {str(each.name or each.callback.__name__): each for each in app.registered_commands if each.callback}
_GROUPS = {str(each.name): each for each in app.registered_groups}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; ends by SystemExit.

    0: what was asked happened. 1: it did not, and one line says why and what to do. 2: it was asked for wrongly.
    130: Ctrl-C. A traceback comes only with --debug, which may stand anywhere.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    end = given.index("--") if "--" in given else len(given)
    debug = "--debug" in given[:end]
    given = [word for at, word in enumerate(given) if word != "--debug" or at > end]
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]  # a terminal that can't show a character
    _only(next((word for word in given if not word.startswith("-")), ""))
    try:
        try:
            app(given, prog_name="kgents")
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read has enough, as in `| head`; nothing may be written to it when Python ends, either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except KgentsError as error:
        _fail(error.detail, error, debug=debug)
    except Exception as error:
        _fail(_told(error), error, debug=debug)


def _only(name: str) -> None:
    """Have of all commands and groups only the one with this name, if there is one: to build them all takes longer than
    most commands do.
    """
    known = name in _COMMANDS or name in _GROUPS
    app.registered_commands = [each for own, each in _COMMANDS.items() if own == name or not known]
    app.registered_groups = [each for own, each in _GROUPS.items() if own == name or not known]


def _told(error: Exception) -> str:
    """What to say of an error that nobody expected: of a file it is the user's, who named it or the folder it is in."""
    if isinstance(error, OSError) and isinstance(error.filename, str | bytes | Path) and error.strerror:
        return f"{os.fsdecode(error.filename)}: {error.strerror}. Check the path and its permissions, and try again."
    return f"an error on our side: {type(error).__name__}; run again with --debug"


def _fail(text: str, error: Exception, *, debug: bool) -> None:
    if debug:
        import traceback

        traceback.print_exception(error)
    note(f"kgents: {text}")
    raise SystemExit(1)


if __name__ == "__main__":
    main()
