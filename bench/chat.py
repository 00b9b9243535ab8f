"""Chat completions with everything on, beside a bare FastAPI route."""

from __future__ import annotations

from collections.abc import Sequence

from bench import against, load
from bench.against import Contender, at_rate, cpu_table, ratios, row, saturate, saturation_table
from bench.report import Figure, Scale, Section, Table, median, spread
from bench.sampling import sample
from bench.systems import Database, chat_request, kgents, module, tenants
from tests.support.up import Up

SUSTAINED = 478.0  # requests a second
ADDED = 0.010  # seconds
DISK = "When the disk stands still for a moment, as this machine's does (see `The disk alone`), "


def contender(up: Up, keys: Sequence[str], model: str = "echo", name: str = "kgents") -> Contender:
    """A kgents, asked with these API keys in turn."""
    return Contender(
        name,
        up.url,
        [chat_request(up.url, key, model) for key in keys],
        {name: up.pid(name) for name in ("api", "worker", "meter", "nats")},
        lambda: up.settled(180),
    )


def run(database: Database, scale: Scale) -> Section:
    """Throughput against the bare route, the latency that is added at half of saturation, and a minute at 478/s."""
    section = Section(
        title=f"Chat completions against a bare FastAPI route ({database})",
        how=(
            "`POST /v1/chat/completions` with the agent `echo`, of ten tenants in turn: each request is authenticated, "
            "rate-limited, reserved from a quota, recorded and metered, in a `kgents up` with its bus (fsync on), "
            "worker and meter. Beside it a FastAPI route with a validated POST and a typed answer, on the same uvicorn "
            "settings. One API process each."
        ),
    )
    with kgents(database) as up, module("bench.bare") as bare, tenants(up, 10) as owners:
        pair = [
            contender(up, [owner.key for owner in owners]),
            Contender("bare FastAPI", bare.url, [chat_request(bare.url)], {"api": bare.pid}),
        ]
        mine, theirs = found = saturate(pair, scale)
        share = ratios(mine, theirs)
        saturation = median(mine.best())
        half = at_rate(pair, saturation / 2, scale)
        added = [one.percentile(0.99) - other.percentile(0.99) for one, other in zip(*half, strict=True)]
        minute = at_rate(pair[:1], SUSTAINED, scale, seconds=60.0, repeats=1)[0][0]
        with sample(up.pid("api"), f"API process of kgents, {database}", scale.seconds(10), section.profiles):
            load.run(
                load.closed(up.url, pair[0].requests, connections=against.CONNECTIONS[0], seconds=scale.seconds(10))
            )
    section.figures = [
        Figure(
            "throughput as a share of the bare route's",
            "at least 0.333",
            spread(share, 3),
            median(share) >= 1 / 3,
            f"A third of the rate is {3 * theirs.cpu_ms('api'):.2f} ms of the API process for a request, and kgents "
            f"takes {mine.cpu_ms('api'):.2f}. The bare route parses, validates and answers; kgents also knows who "
            "asks, limits, reserves, calls the model, and commits twice: the admission, and then the result with its "
            "rows of the ledger and the outbox.",
        ),
        Figure(
            f"p99 latency added to the bare route's at {saturation / 2:,.0f} requests/s, half of saturation",
            "under 10 ms",
            spread([seconds * 1000 for seconds in added], 1, " ms"),
            median(added) < ADDED,
            "A request waits for two commits, one after the other, each with those that came meanwhile; the bare route "
            f"waits for none. {DISK}all of them wait.",
        ),
        Figure(
            f"errors in {minute.seconds:.0f} s at {SUSTAINED:.0f} requests/s",
            "0, at that rate",
            f"{minute.errors}, at {minute.rate:,.0f} requests/s",
            minute.errors == 0 and minute.rate > 0.99 * SUSTAINED,
            f"{DISK}requests wait for a place: up to 512 of them, and for 2 s at most. Beyond that they are refused "
            "with a 503 (docs/decisions/0007-overload.md).",
        ),
    ]
    opened = [row(f"{one.name}, {saturation / 2:,.0f}/s", runs) for one, runs in zip(pair, half, strict=True)]
    opened.append(row(f"kgents, {SUSTAINED:.0f}/s for a minute", [minute]))
    section.tables = [
        saturation_table(pair, found),
        Table(["open loop", *against.HEAD[1:]], opened),
        cpu_table(pair, found),
    ]
    section.raw = {
        "saturation": {one.name: result.facts() for one, result in zip(pair, found, strict=True)},
        "half": {one.name: [each.facts() for each in runs] for one, runs in zip(pair, half, strict=True)},
        "minute": minute.facts(),
    }
    return section
