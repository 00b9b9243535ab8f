"""The alerts that are not on an objective. Each says what is broken; docs/saas/runbook.md says what to do."""

from __future__ import annotations

from typing import Any

from monitoring.durations import Times
from monitoring.objectives import BUS_AGE, OUTBOX_AGE, Rule, burn_alerts

RUNBOOK = "docs/saas/runbook.md"
COLLECTOR_NAMESPACE = "kgents-logs"
PAGE, TICKET = "page", "ticket"


def annotate(alert: str, summary: str, description: str) -> dict[str, str]:
    """The texts of an alert, with where its section of the runbook is."""
    return {"summary": summary, "description": description, "runbook_url": f"{RUNBOOK}#{alert.lower()}"}


def _alert(name: str, expr: str, wait: str, severity: str, summary: str, description: str) -> dict[str, Any]:
    rule: Rule = {"alert": name, "expr": expr}
    if wait:
        rule["for"] = wait
    return {**rule, "labels": {"severity": severity}, "annotations": annotate(name, summary, description)}


def groups(times: Times) -> dict[str, list[Rule]]:
    """The alerts by group."""
    return {
        "kgents-slo-alerts": burn_alerts(times, annotate),
        "kgents-processes": _processes(times),
        "kgents-usage": _usage(times),
        "kgents-bus": _bus(times),
        "kgents-cluster": _cluster(times),
    }


def _processes(times: Times) -> list[Rule]:
    up = 'count by (namespace) (kgents_build_info{{process="{kind}"}})'
    gone = 'count by (namespace) (last_over_time(kgents_build_info{{process="{kind}"}}[{week}])) unless ' + up
    alone = "{metric} == 0 and on (namespace) max by (namespace) ({metric}) == 1"
    reached = ("kgents_bus_connected", "kgents_meter_connected")
    return [
        _alert(
            f"Kgents{kind.capitalize()}Absent",
            gone.format(kind=kind, week=times("7d")),
            times("2m"),
            PAGE,
            f"No {kind} process of {{{{ $labels.namespace }}}} answers Prometheus",
            why,
        )
        for kind, why in (
            ("api", "Nothing is served."),
            ("worker", "Background runs stand still, and usage stays in the outbox. Requests are served."),
        )
    ] + [
        _alert(
            "KgentsProcessCutOff",
            " or ".join(alone.format(metric=metric) for metric in reached),
            times("5m"),
            TICKET,
            "{{ $labels.instance }} of {{ $labels.namespace }} does not reach the bus or the meter; others do",
            "It does part of its work only. What its requests used is kept in the database, and others send it.",
        )
    ]


def _usage(times: Times) -> list[Rule]:
    return [
        _alert(
            "KgentsOutboxOld",
            f"{OUTBOX_AGE} > {times.number('2m')}",
            times("1m"),
            PAGE,
            "Usage does not leave the database of {{ $labels.namespace }}",
            "The oldest message has been in the outbox for {{ $value | humanizeDuration }}.",
        ),
        _alert(
            "KgentsUsageBacklogOld",
            f"{BUS_AGE} > {times.number('5m')}",
            times("1m"),
            PAGE,
            "Usage does not get from the bus to the meter in {{ $labels.namespace }}",
            "The oldest message has been on the bus for {{ $value | humanizeDuration }}.",
        ),
        _alert(
            "KgentsMeterAway",
            "max by (namespace) (kgents_meter_connected) == 0",
            times("5m"),
            PAGE,
            "The meter of {{ $labels.namespace }} takes no usage",
            "Usage is kept and sent later; nothing is lost. Balances are enforced from the ledger meanwhile.",
        ),
        _alert(
            "KgentsUsageRefused",
            "sum by (namespace) (increase(kgents_usage_events_refused_total[1h])) > 0".replace("1h", times("1h")),
            "",
            TICKET,
            "The meter of {{ $labels.namespace }} refused usage for good",
            "It will not be billed unless somebody mends it: {{ $value | humanize }} events in the last hour.",
        ),
        _alert(
            "KgentsReconcileDifference",
            "max by (namespace, meter) (kgents_reconcile_difference) > 0"
            f" and on (namespace) {OUTBOX_AGE} < {times.number('1m')}"
            f" and on (namespace) {BUS_AGE} < {times.number('1m')}",
            times("15m"),
            PAGE,
            "Ledger and meter of {{ $labels.namespace }} differ",
            "By {{ $value | humanize }} units of {{ $labels.meter }}, and nothing is on its way.",
        ),
        _alert(
            "KgentsInvoiceDifference",
            "sum by (namespace) (increase(kgents_invoice_differences_total[1d])) > 0".replace("1d", times("1d")),
            "",
            PAGE,
            "A new invoice of {{ $labels.namespace }} is not what the ledger says",
            "{{ $value | humanize }} meters of invoices of the last day differ from the ledger's events.",
        ),
        *(
            _alert(
                name,
                f'max by (namespace) (kgents_stripe_oldest_age_seconds{{kind="{kind}"}}) > {times.number(most)}',
                times("5m"),
                TICKET,
                summary,
                description + " The oldest has waited for {{ $value | humanizeDuration }}.",
            )
            for name, kind, most, summary, description in (
                (
                    "KgentsInvoicesUncollected",
                    "invoices",
                    "1h",
                    "Invoices of {{ $labels.namespace }} do not get to Stripe",
                    "Nobody is asked to pay them.",
                ),
                (
                    "KgentsWebhookBacklog",
                    "webhooks",
                    "5m",
                    "What Stripe told {{ $labels.namespace }} is not looked at",
                    "Invoices that were paid still look open.",
                ),
            )
        ),
        _alert(
            "KgentsReconcileStale",
            "time() - max by (namespace) (kgents_reconcile_last_success_timestamp_seconds) > " + times.number("1h"),
            times("15m"),
            TICKET,
            "Ledger and meter of {{ $labels.namespace }} have not been compared for an hour",
            "A difference between them would not be seen.",
        ),
    ]


def _bus(times: Times) -> list[Rule]:
    wanted = "max by (namespace, stream) (kgents_stream_replicas)"
    current = "max by (namespace, stream) (kgents_stream_replicas_current)"
    return [
        _alert(
            "KgentsBusAway",
            "max by (namespace) (kgents_stream_replicas_current) == 0"
            " or max by (namespace) (kgents_bus_connected) == 0",
            times("1m"),
            PAGE,
            "The bus of {{ $labels.namespace }} can't be used",
            "Requests are served and usage is kept in the outbox; background runs wait.",
        ),
        _alert(
            "KgentsBusQuorumLost",
            f"{current} <= {wanted} / 2 and {wanted} > 1",
            times("1m"),
            PAGE,
            "{{ $labels.stream }} of {{ $labels.namespace }} has no majority of its servers",
            "Only {{ $value }} of its servers have the stream; nothing can be stored in it.",
        ),
        _alert(
            "KgentsBusReplicaMissing",
            f"{current} < {wanted}",
            times("10m"),
            TICKET,
            "{{ $labels.stream }} of {{ $labels.namespace }} is not on all its servers",
            "{{ $value }} of its servers have it. One more that fails may stop the stream.",
        ),
    ]


def _cluster(times: Times) -> list[Rule]:
    ours = 'namespace="kgents-agents"'
    certificate = "certmanager_certificate_expiration_timestamp_seconds"
    hpa = "max by (namespace, horizontalpodautoscaler)"
    pods = "by (namespace, pod, container)"
    claims = "by (namespace, persistentvolumeclaim)"
    lost = f'otelcol_exporter_send_failed_log_records{{namespace="{COLLECTOR_NAMESPACE}"}}'
    recently = times("15m")
    return [
        _alert(
            "KgentsAutoscalerAtMaximum",
            f"{hpa} (kube_horizontalpodautoscaler_status_current_replicas{{{ours}}})"
            f" >= {hpa} (kube_horizontalpodautoscaler_spec_max_replicas{{{ours}}})",
            times("15m"),
            TICKET,
            "{{ $labels.horizontalpodautoscaler }} can't grow any more",
            "It has been at its maximum of {{ $value }} replicas for 15 minutes.",
        ),
        _alert(
            "KgentsContainerOutOfMemory",
            f'max {pods} (kube_pod_container_status_last_terminated_reason{{{ours},reason="OOMKilled"}}) > 0'
            f" and sum {pods} (increase(kube_pod_container_status_restarts_total{{{ours}}}[{times('15m')}])) > 0",
            "",
            PAGE,
            "{{ $labels.pod }} ran out of memory",
            "Its container {{ $labels.container }} was killed at its limit and started again.",
        ),
        _alert(
            "KgentsCpuThrottled",
            f"sum {pods} (rate(container_cpu_cfs_throttled_periods_total{{{ours}}}[{times('5m')}]))"
            f" / sum {pods} (rate(container_cpu_cfs_periods_total{{{ours}}}[{times('5m')}])) > 0.25",
            times("15m"),
            TICKET,
            "{{ $labels.pod }} is held back by its CPU limit",
            "{{ $labels.container }} had to wait in {{ $value | humanizePercentage }} of its periods.",
        ),
        *(
            _alert(
                "KgentsVolumeFills",
                f"min {claims} (kubelet_volume_stats_available_bytes{{{ours}}})"
                f" / min {claims} (kubelet_volume_stats_capacity_bytes{{{ours}}}) < {free}",
                times(wait),
                severity,
                "The volume {{ $labels.persistentvolumeclaim }} is nearly full",
                "{{ $value | humanizePercentage }} of it is free.",
            )
            for severity, free, wait in ((TICKET, 0.15, "15m"), (PAGE, 0.05, "2m"))
        ),
        _alert(
            "KgentsCertificateExpires",
            # As cert-manager's chart has it scraped, the certificate's namespace is not the label `namespace`.
            f'min by (namespace, name) (label_replace({certificate}{{exported_{ours}}}, "namespace", "$1",'
            f' "exported_namespace", "(.*)") or {certificate}{{{ours}}}) - time() < {times.number("14d")}',
            times("1h"),
            TICKET,
            "The certificate {{ $labels.name }} expires in {{ $value | humanizeDuration }}",
            "cert-manager renews a certificate a month before that, so it could not.",
        ),
        _alert(
            "KgentsLogCollectorAway",
            "max by (namespace, daemonset)"
            f' (kube_daemonset_status_number_unavailable{{namespace="{COLLECTOR_NAMESPACE}"}}) > 0',
            times("10m"),
            TICKET,
            "{{ $labels.daemonset }} does not run on every node",
            "Of {{ $value }} nodes nothing is collected; their lines are lost when the kubelet removes the files.",
        ),
        _alert(
            "KgentsLogsBehind",
            f'max by (namespace, pod) (otelcol_exporter_queue_size{{namespace="{COLLECTOR_NAMESPACE}"}})'
            f' / max by (namespace, pod) (otelcol_exporter_queue_capacity{{namespace="{COLLECTOR_NAMESPACE}"}}) > 0.5',
            times("10m"),
            TICKET,
            "The log collector {{ $labels.pod }} does not keep up",
            "{{ $value | humanizePercentage }} of the room on its disk is taken by lines that wait for Loki.",
        ),
        _alert(
            "KgentsLogsLost",
            # The first failure makes the series, which has grown by nothing then.
            f"sum by (namespace, pod) (increase({lost}[{recently}])) > 0"
            f" or sum by (namespace, pod) ({lost} unless {lost} offset {recently}) > 0",
            "",
            TICKET,
            "The log collector {{ $labels.pod }} gave up on lines",
            "Loki refused {{ $value | humanize }} lines for good in the last 15 minutes.",
        ),
    ]
