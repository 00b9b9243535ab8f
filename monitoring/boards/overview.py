"""SaaS overview: is it well, and where is it not?"""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard

from monitoring.build import LINES, OURS, PLACE, Query, board, graph, log_panel, number, row
from monitoring.objectives import HEALTH, LATENCY

RATE = "$__rate_interval"
API = f'{OURS},route!~"{HEALTH}"'
SECONDS = f"sum by (le) (rate(kgents_http_request_duration_seconds_bucket{{{API}}}[{RATE}]))"


def _quantile(share: float, buckets: str = SECONDS) -> str:
    return f"histogram_quantile({share}, {buckets})"


def overview() -> dashboard.Dashboard:
    """Traffic, errors, latency, saturation, the way of usage, and the logs of all that."""
    answered = f"sum(rate(kgents_http_requests_total{{{API}}}[{RATE}]))"
    failed = f'sum(rate(kgents_http_requests_total{{{API},status=~"5.."}}[{RATE}]))'
    return board(
        "saas-overview",
        "kgents / SaaS overview",
        "Traffic, errors, latency, saturation and the way of usage to the meter. Start here.",
        [
            row("Now"),
            number("Requests", answered, says="HTTP requests answered, without health checks.", unit="reqps"),
            number(
                "Failed",
                f"({failed} or vector(0)) / {answered}",
                says="Share answered with 5xx. Promised: at most 0.1 %.",
                unit="percentunit",
                bad=0.001,
            ),
            number("p95", _quantile(0.95), says="95 % of requests were answered faster.", unit="s"),
            number("At work", f"sum(kgents_requests_at_work{{{OURS}}})", says="Requests that hold a place now."),
            number("Runs", f"sum(rate(kgents_runs_total{{{OURS}}}[{RATE}]))", says="Runs that ended.", unit="ops"),
            number("Tokens", f"sum(rate(kgents_tokens_total{{{OURS}}}[{RATE}]))", says="Tokens recorded a second."),
            number(
                "Usage waits",
                f"max(namespace:kgents_usage_backlog_age:seconds{{{PLACE}}})",
                says="Age of the oldest usage that the meter does not have.",
                unit="s",
                bad=300,
            ),
            number(
                "Ledger - meter",
                f"sum(max by (meter) (kgents_reconcile_difference{{{PLACE}}}))",
                says="Units by which ledger and meter differ. 0 is right; while usage waits, it is what waits.",
                bad=1,
            ),
            number(
                "Revenue today",
                f"sum by (currency) (max by (namespace, currency) (kgents_revenue_today_minor_units{{{PLACE}}}))",
                says="Minor units (cents) since midnight UTC: each plan's fee by time, and what was used at its price.",
            ),
            row("Traffic"),
            graph(
                "Requests by route",
                Query(f"sum by (route) (rate(kgents_http_requests_total{{{API}}}[{RATE}]))", "{{route}}"),
                says="`unmatched` are requests that were refused before their route was known.",
                unit="reqps",
                stacked=True,
            ),
            graph(
                "Answers by status",
                Query(f"sum by (status) (rate(kgents_http_requests_total{{{API}}}[{RATE}]))", "{{status}}"),
                says="429 is a tenant's limit, 503 ours.",
                unit="reqps",
                stacked=True,
            ),
            graph(
                "Runs by how they ended",
                Query(f"sum by (mode, status) (rate(kgents_runs_total{{{OURS}}}[{RATE}]))", "{{mode}} {{status}}"),
                says="`mode` is how the client waits for the run.",
                unit="ops",
                stacked=True,
            ),
            row("Errors"),
            graph(
                "Failed, by route",
                Query(f'sum by (route) (rate(kgents_http_requests_total{{{API},status=~"5.."}}[{RATE}]))', "{{route}}"),
                says="Answers with 5xx.",
                unit="reqps",
            ),
            graph(
                "Refused",
                Query(
                    f"sum by (reason) (rate(kgents_requests_refused_total{{{OURS}}}[{RATE}]))", "overload: {{reason}}"
                ),
                Query(f"sum by (kind) (rate(kgents_rate_limited_total{{{OURS}}}[{RATE}]))", "rate limit: {{kind}}"),
                Query(f"sum by (meter) (rate(kgents_quota_exceeded_total{{{OURS}}}[{RATE}]))", "quota: {{meter}}"),
                says="Overload is ours; limits and quotas are the tenants' own.",
                unit="reqps",
            ),
            graph(
                "Runs continued",
                Query(f"sum(rate(kgents_runs_restarted_total{{{OURS}}}[{RATE}]))", "continued"),
                Query(f"sum by (kind) (rate(kgents_swept_total{{{OURS}}}[{RATE}]))", "swept: {{kind}}"),
                says="Runs that went on after their process ended, and what the sweeper settled.",
                unit="ops",
            ),
            row("Latency"),
            graph(
                "Requests",
                *(Query(_quantile(share), name) for share, name in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))),
                says="To the end of the answer; of a stream, to its end.",
                unit="s",
            ),
            graph(
                "p95 by route",
                Query(
                    "histogram_quantile(0.95, sum by (le, route)"
                    f" (rate(kgents_http_request_duration_seconds_bucket{{{API}}}[{RATE}])))",
                    "{{route}}",
                ),
                says=f"Those that wait for no model have {LATENCY} s.",
                unit="s",
                line=float(LATENCY),
            ),
            graph(
                "p95 of runs, models, commits",
                *(
                    Query(_quantile(0.95, f"sum by (le) (rate({name}_bucket{{{OURS}}}[{RATE}]))"), legend)
                    for name, legend in (
                        ("kgents_run_duration_seconds", "runs"),
                        ("kgents_model_request_duration_seconds", "model calls"),
                        ("kgents_store_commit_seconds", "commits"),
                    )
                ),
                says="Where the time goes: the model's is the provider's, the commits' the database's.",
                unit="s",
            ),
            row("Saturation"),
            graph(
                "Places",
                Query(f"sum(kgents_requests_at_work{{{OURS}}})", "at work"),
                Query(f"sum(kgents_requests_waiting{{{OURS}}})", "waiting"),
                Query(f"sum(kgents_requests_at_work_limit{{{OURS}}})", "places"),
                says="Once all places are taken requests wait, then are refused.",
                width=6,
            ),
            graph(
                "Runs in flight",
                Query(f"kgents_runs_in_flight{{{OURS}}}", "{{component}} {{pod}}"),
                says="Runs that each process carries out.",
                width=6,
            ),
            graph(
                "CPU",
                Query(f"rate(process_cpu_seconds_total{{{OURS}}}[{RATE}])", "{{component}} {{pod}}"),
                says="Cores in use. A process has one event loop: near 1 it is full.",
                width=6,
                line=0.9,
            ),
            graph(
                "Memory",
                Query(f"process_resident_memory_bytes{{{OURS}}}", "{{component}} {{pod}}"),
                says="The manifests' limit is 512 MiB.",
                unit="bytes",
                width=6,
                line=512 * 1024 * 1024,
            ),
            row("Usage"),
            graph(
                "Backlog",
                Query(f"max(kgents_outbox_backlog_messages{{{OURS}}})", "outbox"),
                Query(f'max(kgents_stream_messages{{{OURS},stream="KGENTS_USAGE"}})', "bus"),
                says="Messages that wait for the bus, and on it for the meter.",
            ),
            graph(
                "Flow",
                Query(f"sum by (topic) (rate(kgents_outbox_messages_relayed_total{{{OURS}}}[{RATE}]))", "{{topic}}"),
                Query(f"sum(rate(kgents_usage_events_metered_total{{{OURS}}}[{RATE}]))", "events metered"),
                says="Messages to the bus, events to the meter.",
                unit="ops",
            ),
            graph(
                "Connected",
                Query(f"max(kgents_bus_connected{{{OURS}}})", "bus"),
                Query(f"max(kgents_meter_connected{{{OURS}}})", "meter"),
                says="1 while it can be used.",
            ),
            row("Logs"),
            log_panel(
                "Logs of the chosen components",
                f"{LINES} | json",
                says="A line for each request and event. Open one: its trace id leads to the trace's lines.",
            ),
        ],
    )
