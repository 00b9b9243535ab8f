"""Metrics of other programs in a cluster that dashboards and rules ask for.

They can't be seen on a `kgents up`, so queries are held against this list: each is here with the labels that are used,
and where its program documents it. tests/cluster/test_pressure.py sees those of kube-state-metrics and cAdvisor.
"""

from __future__ import annotations

from dataclasses import dataclass

KUBE_STATE_METRICS = "https://github.com/kubernetes/kube-state-metrics/tree/v2.18.0/docs/metrics/workload"
CADVISOR = "https://github.com/google/cadvisor/blob/v0.53.0/docs/storage/prometheus.md"
KUBELET = "https://kubernetes.io/docs/reference/instrumentation/metrics/"
CERT_MANAGER = "https://cert-manager.io/docs/devops-tips/prometheus-metrics/"
COLLECTOR = "https://opentelemetry.io/docs/collector/internal-telemetry/"
"""As its configuration in deploy/components/log-collector names them: without suffixes."""


@dataclass(frozen=True, slots=True)
class External:
    """A metric: its name, the labels of it that queries name, and its source."""

    name: str
    labels: frozenset[str]
    source: str


def _of(source: str, **metrics: str) -> list[External]:
    return [External(name, frozenset(labels.split()), source) for name, labels in metrics.items()]


EXTERNAL = {
    metric.name: metric
    for metric in (
        *_of(
            KUBE_STATE_METRICS,
            kube_horizontalpodautoscaler_status_current_replicas="namespace horizontalpodautoscaler",
            kube_horizontalpodautoscaler_status_desired_replicas="namespace horizontalpodautoscaler",
            kube_horizontalpodautoscaler_spec_min_replicas="namespace horizontalpodautoscaler",
            kube_horizontalpodautoscaler_spec_max_replicas="namespace horizontalpodautoscaler",
            kube_deployment_status_replicas_available="namespace deployment",
            kube_deployment_status_replicas_unavailable="namespace deployment",
            kube_daemonset_status_number_unavailable="namespace daemonset",
            kube_pod_container_resource_requests="namespace pod container resource",
            kube_pod_container_resource_limits="namespace pod container resource",
            kube_pod_container_status_last_terminated_reason="namespace pod container reason",
            kube_pod_container_status_restarts_total="namespace pod container",
        ),
        *_of(
            CADVISOR,
            container_cpu_usage_seconds_total="namespace pod container",
            container_cpu_cfs_periods_total="namespace pod container",
            container_cpu_cfs_throttled_periods_total="namespace pod container",
            container_memory_working_set_bytes="namespace pod container",
        ),
        *_of(
            KUBELET,
            kubelet_volume_stats_available_bytes="namespace persistentvolumeclaim",
            kubelet_volume_stats_capacity_bytes="namespace persistentvolumeclaim",
        ),
        *_of(CERT_MANAGER, certmanager_certificate_expiration_timestamp_seconds="namespace exported_namespace name"),
        *_of(
            COLLECTOR,
            otelcol_exporter_queue_size="namespace pod",
            otelcol_exporter_queue_capacity="namespace pod",
            otelcol_exporter_send_failed_log_records="namespace pod",
        ),
    )
}
