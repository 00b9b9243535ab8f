"""`kgents serve`: one process of an installation, configured by KGENTS_* variables. And `kgents migrate`."""

from __future__ import annotations

from kgents.cli.options import group
from kgents.cli.output import note

serve = group("One process, configured by KGENTS_* variables.")


@serve.command("api")
def serve_api() -> None:
    """The HTTP API."""
    from kgents import app, config
    from kgents.cli.bootstrap import peppers

    settings = config.load()
    peppers(settings)  # told before anything starts
    app.run_api(settings)


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
