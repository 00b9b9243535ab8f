"""What a request costs in a small installation, and in one with many tenants and a long ledger."""

from __future__ import annotations

import contextlib

from bench import load
from bench.against import Contender, Saturation, cpu_table, saturate, saturation_table
from bench.chat import contender
from bench.fill import Filler
from bench.load import Load
from bench.machine import rss
from bench.report import Figure, Scale, Section, Table, median, spread
from bench.systems import Database, kgents_on, postgres, tenants

TENANTS, EVENTS = 100_000, 1_000_000
ACTIVE = 10
WITHIN = 0.20


def run(database: Database, scale: Scale) -> Section:
    """Three ways to ask, turn by turn."""
    many, long = scale.count(TENANTS), scale.count(EVENTS)
    section = Section(
        title=f"Cost of a request, small and large ({database})",
        how=(
            f"Two installations on one machine: one with {ACTIVE} tenants, and one with {many:,} tenants (each with an "
            f"API key, quotas and an agent), {long:,} ledger rows and their runs, written with SQL. Chat completions "
            f"as above. The large one is asked by {ACTIVE} of its tenants in turn, and by all of them in turn, after "
            "each had asked once. The first request of a key reads it and its agent from the database; what that costs "
            "stands by itself. Cost is the "
            "time for a request at saturation."
        ),
    )
    with (
        contextlib.ExitStack() as stack,
        postgres(database) as (server, name),
        kgents_on(server, name) as large,
        tenants(large, 1) as (model,),
    ):
        model.http.post("/v1/chat/completions", json={"model": "echo", "messages": [{"role": "user", "content": "Hi"}]})
        large.settled()
        large.stop()
        filler = Filler(large, model, server, name)
        filler.fill(many, long)
        rows = [[table, f"{filler.count(table):,}"] for table in ("tenants", "api_keys", "runs", "usage_events")]
        large.start()
        other = server.create_empty_database() if server else ""
        small = stack.enter_context(kgents_on(server, other))
        owners = stack.enter_context(tenants(small, ACTIVE))
        contenders = [
            contender(small, [owner.key for owner in owners], name="small"),
            contender(large, filler.tokens[:ACTIVE], name=f"large, {ACTIVE} active"),
            contender(large, filler.tokens[ACTIVE:], name="large, all active"),
        ]
        cold = _ask_once(contenders[2])
        found = saturate(contenders, scale, seconds=6.0)
        memory = [[one, f"{rss(up.pid('api')):.0f}"] for one, up in (("small", small), ("large", large))]
    base, few, all_ = found
    section.figures = [
        _figure(
            f"cost with {many:,} tenants, {ACTIVE} active, against {ACTIVE} tenants",
            few,
            base,
            "The requests touch as many rows in both; tables, indexes and the process's caches are larger.",
        ),
        _figure(
            f"cost with {many:,} tenants, all active, against {ACTIVE} tenants",
            all_,
            base,
            "Each request is another tenant's, and so are the pages of tables and indexes that it reads and writes: "
            f"those of {ACTIVE} tenants are in every cache, and are shared by the requests of a commit.",
        ),
        Figure("cost of the first request of a key", "none set", f"{1000 / cold.rate:.2f} ms at saturation", None),
    ]
    section.tables = [
        saturation_table(contenders, found),
        cpu_table(contenders, found),
        Table(["rows of the large installation", ""], rows),
        Table(["API process at the end", "resident MiB"], memory),
    ]
    section.raw = {one.name: result.facts() for one, result in zip(contenders, found, strict=True)}
    section.raw["first requests"] = cold.facts()
    return section


def _ask_once(all_: Contender) -> Load:
    """Every key's first request."""
    done = load.run(load.once(all_.url, all_.requests, connections=32))
    all_.settled()
    return done


def _figure(what: str, result: Saturation, base: Saturation, why: str) -> Figure:
    costs = [few / rate for few, rate in zip(base.best(), result.best(), strict=True)]
    return Figure(what, f"at most {1 + WITHIN:.2f} times", spread(costs, 2, " times"), median(costs) <= 1 + WITHIN, why)
