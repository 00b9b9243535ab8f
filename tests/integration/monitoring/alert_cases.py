"""For each alert, series on which it fires and series on which it does not: as promtool takes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

PLACE = 'namespace="kgents-agents"'
Series = dict[str, str]


@dataclass(frozen=True, slots=True)
class Case:
    """Series by name and labels, and whether the alert of this severity fires `at` that time."""

    alert: str
    severity: str
    what: str
    fires: bool
    series: Series
    at: str = "45m"

    def test(self) -> dict[str, Any]:
        """As promtool takes it."""
        expr = f'count(ALERTS{{alertname="{self.alert}",severity="{self.severity}",alertstate="firing"}}) > 0'
        samples = [{"labels": "{}", "value": 1}] if self.fires else []
        return {
            "name": f"{self.alert} ({self.severity}): {self.what}",
            "interval": "1m",
            "input_series": [{"series": name, "values": values} for name, values in self.series.items()],
            "promql_expr_test": [{"expr": expr, "eval_time": self.at, "exp_samples": samples}],
        }


def _answers(good: str, bad: str, route: str = "/v1/agents") -> Series:
    name = f'kgents_http_requests_total{{{PLACE},route="{route}",method="GET",status='
    return {f'{name}"200"}}': good, f'{name}"503"}}': bad}


def _durations(fast: str, every: str, route: str = "/v1/agents") -> Series:
    labels = f'{PLACE},route="{route}",method="GET"'
    name = "kgents_http_request_duration_seconds"
    return {f'{name}_bucket{{{labels},le="0.25"}}': fast, f"{name}_count{{{labels}}}": every}


def _ages(outbox: str, bus: str) -> Series:
    return {
        f'kgents_outbox_oldest_age_seconds{{{PLACE},component="worker"}}': outbox,
        f'kgents_stream_oldest_age_seconds{{{PLACE},component="worker",stream="KGENTS_USAGE"}}': bus,
    }


def _servers(wanted: int, current: int) -> Series:
    labels = f'{{{PLACE},stream="KGENTS_USAGE"}}'
    return {
        f"kgents_stream_replicas{labels}": f"{wanted}x90",
        f"kgents_stream_replicas_current{labels}": f"{current}x90",
    }


def _one(metric: str, values: str, /, **labels: str) -> Series:
    given = "".join(f',{key}="{value}"' for key, value in labels.items())
    place = "" if "namespace" in labels else PLACE
    return {f"{metric}{{{(place + given).lstrip(',')}}}": values}


def _autoscaler(current: int, most: int) -> Series:
    name = "kube_horizontalpodautoscaler_"
    of = {"horizontalpodautoscaler": "kgents-api"}
    return {
        **_one(f"{name}status_current_replicas", f"{current}x90", **of),
        **_one(f"{name}spec_max_replicas", f"{most}x90", **of),
    }


def _killed(restarts: str) -> Series:
    of = {"pod": "kgents-api-1", "container": "api"}
    return {
        **_one("kube_pod_container_status_last_terminated_reason", "1x90", **of, reason="OOMKilled"),
        **_one("kube_pod_container_status_restarts_total", restarts, **of),
    }


def _throttled(held: str) -> Series:
    of = {"pod": "kgents-api-1", "container": "api"}
    return {
        **_one("container_cpu_cfs_throttled_periods_total", held, **of),
        **_one("container_cpu_cfs_periods_total", "0+600x90", **of),
    }


def _free(hundredths: str) -> Series:
    """Of a volume."""
    of = {"persistentvolumeclaim": "data-kgents-nats-0"}
    return {
        **_one("kubelet_volume_stats_available_bytes", hundredths, **of),
        **_one("kubelet_volume_stats_capacity_bytes", "100x90", **of),
    }


def _pair(metric: str, one: str, other: str) -> Series:
    """Of two processes."""
    return _one(metric, one, instance="a:9464") | _one(metric, other, instance="b:9464")


def _queue(size: int) -> Series:
    of = {"namespace": "kgents-logs", "pod": "collector-1"}
    return {
        **_one("otelcol_exporter_queue_size", f"{size}x90", **of),
        **_one("otelcol_exporter_queue_capacity", "1000x90", **of),
    }


def _collectors_away(nodes: str) -> Series:
    of = {"namespace": "kgents-logs", "daemonset": "kgents-log-collector"}
    return _one("kube_daemonset_status_number_unavailable", nodes, **of)


def _lost(values: str) -> Series:
    return _one("otelcol_exporter_send_failed_log_records", values, namespace="kgents-logs", pod="collector-1")


UNKNOWN = " ".join(["NaN"] * 91)


def _difference(units: int, bus_age: str) -> Series:
    return {
        **_one("kgents_reconcile_difference", f"{units}x90", meter="input_tokens"),
        **_ages("0x90", bus_age),
    }


_CHAT, _RESPONSE = "/v1/chat/completions", "/v1/responses/{response_id}"
CASES = [
    Case("KgentsAvailabilityBurn", "page", "1 in 20 fails", True, _answers("0+95x90", "0+5x90"), "75m"),
    Case("KgentsAvailabilityBurn", "page", "nothing fails", False, _answers("0+95x90", "0x90"), "75m"),
    Case("KgentsAvailabilityBurn", "page", "it is over", False, _answers("0+95x90", "0+5x30 155x60"), "75m"),
    Case("KgentsAvailabilityBurn", "page", "readiness fails", False, _answers("0x90", "0+9x90", "/health/saas"), "75m"),
    Case(
        "KgentsAvailabilityBurn",
        "page",
        "1 in 20 is refused by its head",
        True,
        _answers("0+95x90", "0x90") | _one("kgents_requests_refused_total", "0+5x90", reason="queue"),
        "75m",
    ),
    Case("KgentsAvailabilityBurn", "ticket", "4 in 1000 fail", True, _answers("0+996x300", "0+4x300"), "200m"),
    Case("KgentsAvailabilityBurn", "page", "4 in 1000 fail", False, _answers("0+996x300", "0+4x300"), "200m"),
    Case("KgentsAvailabilityBurn", "ticket", "1 in 5000 fails", False, _answers("0+4999x300", "0+1x300"), "200m"),
    Case("KgentsLatencyBurn", "page", "nine in ten are slow", True, _durations("0+10x90", "0+100x90"), "75m"),
    Case("KgentsLatencyBurn", "page", "few are slow", False, _durations("0+97x90", "0+100x90"), "75m"),
    Case("KgentsLatencyBurn", "page", "a model is slow", False, _durations("0+10x90", "0+100x90", _CHAT), "75m"),
    Case("KgentsLatencyBurn", "page", "a stream is long", False, _durations("0+10x90", "0+100x90", _RESPONSE), "75m"),
    Case("KgentsLatencyBurn", "ticket", "a fifth is slow", True, _durations("0+80x300", "0+100x300"), "200m"),
    Case("KgentsLatencyBurn", "ticket", "few are slow", False, _durations("0+97x300", "0+100x300"), "200m"),
    Case("KgentsUsageFreshnessBurn", "page", "usage is old", True, _ages("0x90", "400x90"), "75m"),
    Case("KgentsUsageFreshnessBurn", "page", "usage is new", False, _ages("2x90", "3x90"), "75m"),
    Case("KgentsUsageFreshnessBurn", "page", "the bus tells nothing", False, _ages("2x90", UNKNOWN), "75m"),
    Case("KgentsUsageFreshnessBurn", "page", "only the outbox tells, old", True, _ages("400x90", UNKNOWN), "75m"),
    Case("KgentsUsageFreshnessBurn", "ticket", "it was old often", True, _ages("0x300", "400x8 1x150 400x150"), "200m"),
    Case("KgentsUsageFreshnessBurn", "ticket", "usage is new", False, _ages("2x300", "3x300"), "200m"),
    Case("KgentsApiAbsent", "page", "it is gone", True, _one("kgents_build_info", "1x10 _x80", process="api")),
    Case("KgentsApiAbsent", "page", "since days", True, _one("kgents_build_info", "1x10 _x4500", process="api"), "72h"),
    Case("KgentsApiAbsent", "page", "it is there", False, _one("kgents_build_info", "1x90", process="api")),
    Case("KgentsWorkerAbsent", "page", "it is gone", True, _one("kgents_build_info", "1x10 _x80", process="worker")),
    Case(
        "KgentsWorkerAbsent",
        "page",
        "since days",
        True,
        _one("kgents_build_info", "1x10 _x4500", process="worker"),
        "72h",
    ),
    Case("KgentsWorkerAbsent", "page", "it is there", False, _one("kgents_build_info", "1x90", process="worker")),
    Case("KgentsOutboxOld", "page", "nothing leaves it", True, _ages("200x90", "0x90")),
    Case("KgentsOutboxOld", "page", "the database is away", False, _ages("200x10 " + UNKNOWN, "0x90")),
    Case("KgentsOutboxOld", "page", "a minute's worth waits", False, _ages("60x90", "900x90")),
    Case("KgentsUsageBacklogOld", "page", "nothing leaves the bus", True, _ages("0x90", "400x90")),
    Case("KgentsUsageBacklogOld", "page", "the bus is away", False, _ages("0x90", "400x10 " + UNKNOWN)),
    Case("KgentsUsageBacklogOld", "page", "a minute's worth waits", False, _ages("900x90", "60x90")),
    Case("KgentsMeterAway", "page", "it takes nothing", True, _one("kgents_meter_connected", "0x90", pod="a")),
    Case(
        "KgentsMeterAway",
        "page",
        "one of two workers reaches it",
        False,
        _one("kgents_meter_connected", "0x90", pod="a") | _one("kgents_meter_connected", "1x90", pod="b"),
    ),
    Case("KgentsUsageRefused", "ticket", "some is", True, _one("kgents_usage_events_refused_total", "0x20 3x60")),
    Case("KgentsUsageRefused", "ticket", "none is", False, _one("kgents_usage_events_refused_total", "3x90")),
    Case("KgentsReconcileDifference", "page", "7 tokens are missing", True, _difference(7, "0x90")),
    Case("KgentsReconcileDifference", "page", "they are on their way", False, _difference(7, "500x90")),
    Case("KgentsReconcileDifference", "page", "none are missing", False, _difference(0, "0x90")),
    Case("KgentsReconcileDifference", "page", "the bus tells nothing", False, _difference(7, UNKNOWN)),
    Case("KgentsInvoiceDifference", "page", "one differs", True, _one("kgents_invoice_differences_total", "0x20 1x60")),
    Case("KgentsInvoiceDifference", "page", "none does", False, _one("kgents_invoice_differences_total", "0x90")),
    *(
        Case(
            name,
            "ticket",
            what,
            fires,
            _one("kgents_stripe_oldest_age_seconds", values, kind=kind),
            "120m",
        )
        for name, kind, fires, what, values in (
            ("KgentsInvoicesUncollected", "invoices", True, "Stripe is away", "0+60x200"),
            ("KgentsInvoicesUncollected", "invoices", False, "they go there within the hour", "0+20x200"),
            ("KgentsInvoicesUncollected", "webhooks", False, "webhooks wait", "0+60x200"),
            ("KgentsWebhookBacklog", "webhooks", True, "nobody looks at them", "0+60x200"),
            ("KgentsWebhookBacklog", "webhooks", False, "none wait", "0x200"),
            ("KgentsWebhookBacklog", "invoices", False, "invoices wait", "0+60x200"),
        )
    ),
    Case(
        "KgentsReconcileStale",
        "ticket",
        "never compared",
        True,
        _one("kgents_reconcile_last_success_timestamp_seconds", "0x200"),
        "120m",
    ),
    Case(
        "KgentsReconcileStale",
        "ticket",
        "just compared",
        False,
        _one("kgents_reconcile_last_success_timestamp_seconds", "0+60x200"),
        "120m",
    ),
    Case(
        "KgentsProcessCutOff", "ticket", "one of two from the bus", True, _pair("kgents_bus_connected", "0x90", "1x90")
    ),
    Case(
        "KgentsProcessCutOff",
        "ticket",
        "one of two from the meter",
        True,
        _pair("kgents_meter_connected", "1x90", "0x90"),
    ),
    Case(
        "KgentsProcessCutOff",
        "ticket",
        "the bus is away from all",
        False,
        _pair("kgents_bus_connected", "0x90", "0x90"),
    ),
    Case("KgentsProcessCutOff", "ticket", "none", False, _pair("kgents_bus_connected", "1x90", "1x90")),
    Case(
        "KgentsProcessCutOff", "ticket", "for a moment", False, _pair("kgents_bus_connected", "1x43 0x2 1x40", "1x90")
    ),
    Case("KgentsBusAway", "page", "no connection", True, _one("kgents_bus_connected", "0x90")),
    Case("KgentsBusAway", "page", "no stream answers", True, _servers(3, 0)),
    Case("KgentsBusAway", "page", "all is well", False, _servers(3, 3) | _one("kgents_bus_connected", "1x90")),
    Case("KgentsBusQuorumLost", "page", "one of three is left", True, _servers(3, 1)),
    Case("KgentsBusQuorumLost", "page", "two of three are left", False, _servers(3, 2)),
    Case("KgentsBusQuorumLost", "page", "there is but one", False, _servers(1, 0)),
    Case("KgentsBusReplicaMissing", "ticket", "two of three are left", True, _servers(3, 2)),
    Case("KgentsBusReplicaMissing", "ticket", "all are there", False, _servers(3, 3)),
    Case("KgentsAutoscalerAtMaximum", "ticket", "10 of 10", True, _autoscaler(10, 10)),
    Case("KgentsAutoscalerAtMaximum", "ticket", "9 of 10", False, _autoscaler(9, 10)),
    Case("KgentsContainerOutOfMemory", "page", "just now", True, _killed("0x40 1x50")),
    Case("KgentsContainerOutOfMemory", "page", "long ago", False, _killed("1x90")),
    Case("KgentsCpuThrottled", "ticket", "half of the time", True, _throttled("0+300x90")),
    Case("KgentsCpuThrottled", "ticket", "seldom", False, _throttled("0+30x90")),
    Case("KgentsVolumeFills", "ticket", "a tenth is free", True, _free("10x90")),
    Case("KgentsVolumeFills", "ticket", "a tenth was free for a moment", False, _free("20x40 10x2 20x50")),
    Case("KgentsVolumeFills", "page", "a tenth is free", False, _free("10x90")),
    Case("KgentsVolumeFills", "page", "a fiftieth is free", True, _free("20x30 2x60")),
    Case("KgentsVolumeFills", "ticket", "a fifth is free", False, _free("20x90")),
    Case(
        "KgentsCertificateExpires",
        "ticket",
        "in five days",
        True,
        _one("certmanager_certificate_expiration_timestamp_seconds", "432000x90", name="kgents"),
        "80m",
    ),
    Case(
        "KgentsCertificateExpires",
        "ticket",
        "in five days, as cert-manager's chart has it scraped",
        True,
        _one(
            "certmanager_certificate_expiration_timestamp_seconds",
            "432000x90",
            namespace="cert-manager",
            exported_namespace="kgents-agents",
            name="kgents",
        ),
        "80m",
    ),
    Case(
        "KgentsCertificateExpires",
        "ticket",
        "in thirty days",
        False,
        _one("certmanager_certificate_expiration_timestamp_seconds", "2592000x90", name="kgents"),
        "80m",
    ),
    Case("KgentsLogCollectorAway", "ticket", "from one node", True, _collectors_away("0x20 1x70")),
    Case("KgentsLogCollectorAway", "ticket", "for a rollout's minutes", False, _collectors_away("0x40 1x50")),
    Case("KgentsLogCollectorAway", "ticket", "from none", False, _collectors_away("0x90")),
    Case("KgentsLogsBehind", "ticket", "the queue is long", True, _queue(600)),
    Case("KgentsLogsBehind", "ticket", "the queue is short", False, _queue(20)),
    Case(
        "KgentsLogsLost",
        "ticket",
        "the first are",
        True,
        _lost("_x40 5x50"),
    ),
    Case("KgentsLogsLost", "ticket", "more are", True, _lost("5x40 8x50")),
    Case("KgentsLogsLost", "ticket", "they were lost long ago", False, _lost("_x10 5x80")),
]
