"""Chat completions that are passed on to a provider, beside Portkey's gateway before the same provider."""

from __future__ import annotations

from bench import load
from bench.against import CONNECTIONS, Contender, cpu_table, ratios, saturate, saturation_table
from bench.chat import contender
from bench.machine import rss
from bench.report import Figure, Scale, Section, Table, median, spread
from bench.sampling import sample
from bench.systems import Database, chat_request, kgents, module, portkey, tenants

KEY = "sk-upstream"  # any: the provider here asks for none


def run(database: Database, scale: Scale) -> Section:
    """Throughput of one process of each."""
    section = Section(
        title=f"Chat completions proxied to a provider, against Portkey's gateway ({database})",
        how=(
            "A provider on loopback that speaks OpenAI's API and answers at once. Before it kgents, with ten tenants' "
            "agents that use it: each request is authenticated, rate-limited, reserved from a quota, recorded and "
            "metered. Beside it, before the same provider, Portkey's gateway (npm `@portkey-ai/gateway` 1.15.2 on "
            "Node.js), which has no tenants, limits or ledger. One process each; kgents has its worker, meter and bus "
            "beside that, on the same cores."
        ),
    )
    with (
        module("bench.upstream") as upstream,
        portkey() as gateway,
        kgents(database, PROVIDERS__up__BASE_URL=f"{upstream.url}/v1", PROVIDERS__up__API_KEY=KEY) as up,
        tenants(up, 10) as owners,
    ):
        for owner in owners:
            owner.agent(name="proxied", model="up:fixed")
        theirs_request = chat_request(
            gateway.url,
            KEY,
            "fixed",
            **{"x-portkey-provider": "openai", "x-portkey-custom-host": f"{upstream.url}/v1"},
        )
        ours = contender(up, [owner.key for owner in owners], "proxied")
        gateways = Contender("Portkey", gateway.url, [theirs_request], {"gateway": gateway.pid})
        pair = [ours, gateways]
        mine, theirs = found = saturate(pair, scale)
        share = ratios(mine, theirs)
        memory = [["kgents, API process", f"{rss(up.pid('api')):.0f}"], ["Portkey", f"{rss(gateway.pid):.0f}"]]
        with sample(up.pid("api"), f"API process of kgents, {database}, proxying", scale.seconds(10), section.profiles):
            load.run(load.closed(up.url, pair[0].requests, connections=CONNECTIONS[0], seconds=scale.seconds(10)))
        alone = load.run(
            load.closed(upstream.url, [chat_request(upstream.url)], connections=32, seconds=scale.seconds(5))
        )
    errors = sum(run.errors for result in found for runs in result.runs.values() for run in runs)
    section.figures = [
        Figure(
            "throughput of one process, as a share of Portkey's",
            "at least 1",
            spread(share, 2),
            median(share) >= 1.0,
            f"Portkey's process takes {theirs.cpu_ms('gateway'):.2f} ms for a request, and keeps nothing of it. "
            f"kgents' takes {mine.cpu_ms('api'):.2f}: most of that is what any chat completion takes (the benchmark "
            "above), with two durable commits; the rest is the call, by way of pydantic-ai and aiohttp.",
        ),
        Figure("errors of both", "0", str(errors), errors == 0),
    ]
    section.tables = [
        saturation_table(pair, found),
        cpu_table(pair, found),
        Table(["resident memory after the load", "MiB"], memory),
    ]
    section.raw = {
        "saturation": {one.name: result.facts() for one, result in zip(pair, found, strict=True)},
        "provider alone": alone.facts(),
    }
    return section
