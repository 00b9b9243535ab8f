"""What telemetry costs: chat completions with it as it is by default, beside a kgents that has none."""

from __future__ import annotations

from dataclasses import replace

from bench.against import cpu_table, ratios, saturate, saturation_table
from bench.chat import contender
from bench.report import Figure, Scale, Section, median, spread
from bench.systems import Database, kgents, tenants

MOST = 0.05  # of the throughput
TURNS = 4  # for each of another benchmark's


def run(database: Database, scale: Scale) -> Section:
    """Throughput with telemetry as a share of that without."""
    section = Section(
        title=f"Cost of telemetry ({database})",
        how=(
            "`POST /v1/chat/completions` with the agent `echo`, of ten tenants in turn, to two `kgents up`, each with "
            "its own bus, worker, meter and database. One has telemetry as it is by default: metrics, a line of the "
            "log for each request, and its trace context. The other has its metrics, its lines and its trace contexts "
            "replaced by nothing (bench/silent.py), and logs errors only."
        ),
    )
    with (
        kgents(database) as loud,
        kgents(database, program="bench.silent", LOG_LEVEL="error") as silent,
        tenants(loud, 10) as heard,
        tenants(silent, 10) as unheard,
    ):
        pair = [
            contender(loud, [owner.key for owner in heard], name="with telemetry"),
            contender(silent, [owner.key for owner in unheard], name="without"),
        ]
        # Far less than what two runs of the same system differ by: it takes many turns, and short ones, to see it.
        mine, theirs = found = saturate(pair, replace(scale, repeats=TURNS * scale.repeats), seconds=3.0)
    cost = [1 - share for share in ratios(mine, theirs)]
    took = f"{1000 * (mine.cpu_ms('api') - theirs.cpu_ms('api')):.0f} µs of {1000 * mine.cpu_ms('api'):.0f} µs"
    section.figures = [
        Figure(
            "throughput that telemetry costs",
            f"at most {MOST:.0%}",
            spread([100 * each for each in cost], 1, " %"),
            median(cost) <= MOST,
            f"A request's line, its metrics and its ids take {took} of the API process. That the turns differ by more "
            "than that says how far two systems on two shared cores can be compared.",
        ),
        Figure("processor time of the API process that telemetry costs for a request", "none set", took, None),
    ]
    section.tables = [saturation_table(pair, found), cpu_table(pair, found)]
    section.raw = {
        "saturation": {one.name: result.facts() for one, result in zip(pair, found, strict=True)},
    }
    return section
