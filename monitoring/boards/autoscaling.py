"""The autoscaler: what it sees, and what it does."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard

from monitoring.build import OURS, PLACE, Query, board, graph, number, row

HPA = f'{PLACE},horizontalpodautoscaler="kgents-api"'
PODS = f'{PLACE},container="api"'
RATE = "$__rate_interval"


def autoscaling() -> dashboard.Dashboard:
    """Replicas against load. Needs kube-state-metrics and cAdvisor's metrics (see monitoring/external.py)."""
    cpu = f"rate(container_cpu_usage_seconds_total{{{PODS}}}[{RATE}])"
    requests = f'kube_pod_container_resource_requests{{{PODS},resource="cpu"}}'
    return board(
        "autoscaling",
        "kgents / Autoscaling",
        "What the autoscaler of the API sees and does. What it is expected to do: docs/saas/autoscaling.md.",
        [
            row("Now"),
            *(
                number(title, f"max(kube_horizontalpodautoscaler_{name}{{{HPA}}})", says=says)
                for title, name, says in (
                    ("Replicas", "status_current_replicas", "That there are."),
                    ("Wanted", "status_desired_replicas", "That the autoscaler wants."),
                    ("Least", "spec_min_replicas", "The autoscaler's lower bound."),
                    ("Most", "spec_max_replicas", "Its upper bound: at it, more load is refused."),
                )
            ),
            number(
                "CPU",
                f"sum({cpu}) / sum({requests})",
                says="Of what the pods request; the autoscaler aims at 70 %.",
                unit="percentunit",
                bad=0.9,
            ),
            number("At work", f"sum(kgents_requests_at_work{{{OURS}}})", says="Requests that hold a place."),
            number(
                "Not ready",
                f'max(kube_deployment_status_replicas_unavailable{{{PLACE},deployment="kgents-api"}})',
                says="Pods that can't serve yet, or any more.",
                bad=1,
            ),
            number(
                "Restarts",
                f"sum(increase(kube_pod_container_status_restarts_total{{{PLACE}}}[1h]))",
                says="Of all containers in the last hour.",
                bad=1,
            ),
            row("Scaling"),
            graph(
                "Replicas",
                *(
                    Query(f"max(kube_horizontalpodautoscaler_{name}{{{HPA}}})", legend)
                    for name, legend in (
                        ("status_current_replicas", "there"),
                        ("status_desired_replicas", "wanted"),
                        ("spec_max_replicas", "most"),
                    )
                ),
                Query(
                    f'max(kube_deployment_status_replicas_available{{{PLACE},deployment="kgents-api"}})', "available"
                ),
                says="Up within 15 s of load, down by one a minute after five calm ones.",
                width=12,
            ),
            graph(
                "Load",
                Query(f"sum(rate(kgents_http_requests_total{{{OURS}}}[{RATE}]))", "requests/s"),
                Query(f"sum(kgents_runs_in_flight{{{OURS}}})", "runs in flight"),
                Query(f"sum(kgents_requests_waiting{{{OURS}}})", "waiting"),
                says="What causes it.",
                width=12,
            ),
            row("Pods"),
            graph(
                "CPU of each pod",
                Query(f"sum by (pod) ({cpu})", "{{pod}}"),
                says="Cores.",
                width=6,
            ),
            graph(
                "Memory of each pod",
                Query(f"sum by (pod) (container_memory_working_set_bytes{{{PODS}}})", "{{pod}}"),
                Query(f'max(kube_pod_container_resource_limits{{{PODS},resource="memory"}})', "limit"),
                says="At the limit the kernel kills it.",
                unit="bytes",
                width=6,
            ),
            graph(
                "Throttled",
                Query(
                    f"sum by (pod) (rate(container_cpu_cfs_throttled_periods_total{{{PODS}}}[{RATE}]))"
                    f" / sum by (pod) (rate(container_cpu_cfs_periods_total{{{PODS}}}[{RATE}]))",
                    "{{pod}}",
                ),
                says="Share of periods in which a pod had to wait. The manifests set no CPU limit, so there is none.",
                unit="percentunit",
                width=6,
                line=0.25,
            ),
            graph(
                "Refused for overload",
                Query(f"sum by (reason) (rate(kgents_requests_refused_total{{{OURS}}}[{RATE}]))", "{{reason}}"),
                says="What the autoscaler came too late for.",
                unit="reqps",
                width=6,
            ),
        ],
    )
