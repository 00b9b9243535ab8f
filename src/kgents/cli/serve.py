"""`kgents serve`: one process of an installation, configured by KGENTS_* variables. And `kgents migrate`."""

from __future__ import annotations

import typer

from kgents.cli.output import note

serve = typer.Typer(help="One process of an installation, configured by KGENTS_* variables.", no_args_is_help=True)


@serve.command("api")
def serve_api() -> None:
    """The HTTP API."""
    from kgents import app, config

    app.run_api(config.load())


@serve.command("worker")
def serve_worker() -> None:
    """A worker: background runs, relay, meter sink and sweeper."""
    from kgents import app, config

    app.run_worker(config.load())


@serve.command("meter")
def serve_meter() -> None:
    """The embedded meter, which speaks OpenMeter's HTTP API."""
    from kgents import app, config

    app.run_meter(config.load())


def migrate() -> None:
    """Bring the database to this version's tables; running it twice, or twice at once, changes nothing more."""
    from kgents import config
    from kgents.store import migrate as migrations

    settings = config.load()
    applied = migrations.migrate(settings.database_owner_url or settings.database_url)
    note(f"applied {', '.join(applied)}" if applied else "nothing to do: the database is up to date")
