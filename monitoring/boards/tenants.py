"""Tenants. No metric names one: what is told of them comes from the logs, and what they owe from the ledger."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard

from monitoring.build import LINES, LOKI, OURS, Query, board, graph, log_panel, row

REQUESTS = '{namespace=~"$namespace",app="kgents",component="api"} | tenant_id!="" | json | event="request"'
EVERY = "$__auto"


def tenants() -> dashboard.Dashboard:
    """Who asks, who fails, who waits, who is held back."""
    return board(
        "tenants",
        "kgents / Tenants",
        "The ten that ask most, fail most and wait longest, from the logs. Exact usage: `kgents usage show`.",
        [
            row("Who asks"),
            graph(
                "Requests",
                Query(f"topk(10, sum by (tenant_id) (rate({REQUESTS} [{EVERY}])))", "{{tenant_id}}"),
                says="Log lines of requests, a second.",
                unit="reqps",
                source=LOKI,
            ),
            graph(
                "Failed",
                Query(f"topk(10, sum by (tenant_id) (rate({REQUESTS} | status >= 500 [{EVERY}])))", "{{tenant_id}}"),
                says="Answers with 5xx.",
                unit="reqps",
                source=LOKI,
            ),
            graph(
                "p95",
                Query(
                    f'topk(10, quantile_over_time(0.95, {REQUESTS} | unwrap duration_ms | __error__="" [{EVERY}])'
                    " by (tenant_id))",
                    "{{tenant_id}}",
                ),
                says="95 % of the tenant's requests were answered faster.",
                unit="ms",
                source=LOKI,
            ),
            row("Who is held back"),
            graph(
                "429 by tenant",
                Query(f"topk(10, sum by (tenant_id) (rate({REQUESTS} | status = 429 [{EVERY}])))", "{{tenant_id}}"),
                says="A rate limit or a quota of the tenant's.",
                unit="reqps",
                source=LOKI,
            ),
            graph(
                "Rate limits",
                Query(f"sum by (kind) (rate(kgents_rate_limited_total{{{OURS}}}[$__rate_interval]))", "{{kind}}"),
                says="Requests refused, over all tenants.",
                unit="reqps",
            ),
            graph(
                "Quotas",
                Query(f"sum by (meter) (rate(kgents_quota_exceeded_total{{{OURS}}}[$__rate_interval]))", "{{meter}}"),
                says="Runs refused or ended, over all tenants.",
                unit="reqps",
            ),
            row("One tenant"),
            log_panel(
                "Logs of the tenant",
                f'{LINES} | tenant_id=~"$tenant" | json',
                says="All lines of the tenant whose id is above.",
                height=16,
            ),
        ],
        [dashboard.TextBoxVariable("tenant").label("Tenant id").default_value(".+")],
    )
