"""NATS, as kgents sees it."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard

from monitoring.build import LINES, OURS, PLACE, Query, board, graph, log_panel, number, row


def nats() -> dashboard.Dashboard:
    """The streams, and on how many servers they are. nats-server itself has no page that Prometheus could read."""
    servers = f"max by (stream) (kgents_stream_replicas{{{PLACE}}})"
    return board(
        "nats",
        "kgents / NATS",
        "The three streams as the worker sees them. nats-server's own figures are at its port 8222, as JSON.",
        [
            row("Now"),
            number("Connected", f"min(kgents_bus_connected{{{OURS}}})", says="0: a process can't use the bus."),
            number(
                "Servers",
                f"min(max by (stream) (kgents_stream_replicas_current{{{PLACE}}}))",
                says="Servers that have all of a stream; of the stream with the fewest.",
            ),
            number(
                "Servers missing",
                f"max({servers} - max by (stream) (kgents_stream_replicas_current{{{PLACE}}}))",
                says="Servers that should have a stream and do not.",
                bad=1,
            ),
            number(
                "Usage waits",
                f'max(kgents_stream_oldest_age_seconds{{{PLACE},stream="KGENTS_USAGE"}})',
                says="Age of the oldest message for the meter.",
                unit="s",
                bad=300,
            ),
            number(
                "Runs wait",
                f'max(kgents_stream_oldest_age_seconds{{{PLACE},stream="KGENTS_RUNS"}})',
                says="Age of the oldest background run that is queued or carried out.",
                unit="s",
            ),
            number(
                "Queued runs",
                f'max(kgents_stream_messages{{{PLACE},stream="KGENTS_RUNS"}})',
                says="Background runs that are queued or carried out.",
            ),
            number(
                "Run events",
                f'max(kgents_stream_messages{{{PLACE},stream="KGENTS_EVENTS"}})',
                says="Events of runs of the last day.",
            ),
            number("Bytes", f"sum(max by (stream) (kgents_stream_bytes{{{PLACE}}}))", says="In all.", unit="bytes"),
            row("Streams"),
            graph(
                "Messages",
                Query(f"max by (stream) (kgents_stream_messages{{{PLACE}}})", "{{stream}}"),
                says="Usage and runs leave when they are done; events after a day.",
            ),
            graph(
                "Bytes",
                Query(f"max by (stream) (kgents_stream_bytes{{{PLACE}}})", "{{stream}}"),
                says="Each server may use 8 GiB of disk and 256 MiB of memory.",
                unit="bytes",
            ),
            graph(
                "Age of the oldest",
                Query(
                    f'max by (stream) (kgents_stream_oldest_age_seconds{{{PLACE},stream!="KGENTS_EVENTS"}})',
                    "{{stream}}",
                ),
                says="Of what waits to be done.",
                unit="s",
                line=300,
            ),
            row("Servers"),
            graph(
                "Servers that have the stream",
                Query(f"max by (stream) (kgents_stream_replicas_current{{{PLACE}}})", "{{stream}}"),
                Query(f"max({servers})", "wanted"),
                says="With fewer than a majority nothing can be stored.",
                width=12,
            ),
            graph(
                "Stored by the bus",
                Query(
                    f"sum by (topic) (rate(kgents_outbox_messages_relayed_total{{{OURS}}}[$__rate_interval]))",
                    "{{topic}}",
                ),
                says="Outbox messages, a second.",
                unit="ops",
                width=12,
            ),
            row("Logs"),
            log_panel("What kgents says of it", LINES + ' |~ "(?i)nats|bus|outbox|stream" | json', says="Reasons."),
        ],
    )
