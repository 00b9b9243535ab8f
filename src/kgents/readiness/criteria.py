"""All criteria, in tracks: what must be true before an installation is launched, and the check that shows it."""

from __future__ import annotations

from kgents.readiness.checks import cluster, disruptive, observed, recorded, service
from kgents.readiness.model import DAY, HOUR, Criterion, Graph, Track

TRACKS = (
    Track("A", "API on Kubernetes"),
    Track("B", "Logs"),
    Track("C", "Autoscaling", needs=("A",)),
    Track("D", "Security"),
    Track("L", "Before launch"),
)

_API = (
    Criterion(
        "A1",
        "Every workload runs, with all its replicas",
        "Reads the status of each Deployment and StatefulSet of the namespace.",
        "kgents deploy status --overlay OVERLAY says what is not ready, and why.",
        cluster.workloads,
        max_age=HOUR,
        attention=30,
    ),
    Criterion(
        "A2",
        "/health/saas says that SQL, NATS and the meter are connected",
        "Asks the API, which asks each of them.",
        "docs/saas/runbook.md has a section for each component.",
        service.connected,
        needs=("A1",),
        max_age=HOUR,
        attention=20,
    ),
    Criterion(
        "A3",
        "And that is true: a usage event reaches the meter, once, with the right tokens",
        "Makes a run as a tenant of its own, and asks the meter until it has counted it.",
        "Look at the backlog in /health/saas and at the log of the workers.",
        service.event_is_metered,
        needs=("A2",),
        exploration=30,
    ),
    Criterion(
        "A4",
        "The same health page through the gateway",
        "Asks /health/saas through the Gateway or Ingress, by its host name and with its certificate.",
        "kubectl describe gateway kgents; is there a controller of its class?",
        service.through_gateway,
        needs=("A2",),
        attention=30,
        exploration=60,
    ),
    Criterion(
        "A5",
        "The gateway is Kong",
        "Looks for Kong's headers in an answer.",
        "Install Kong's ingress controller, and its GatewayClass `kong`.",
        service.through_kong,
        needs=("A4",),
        exploration=60,
    ),
    Criterion(
        "A6",
        "Pods are spread, so that no node takes a workload away",
        "Counts the nodes of the pods of API (2) and NATS (3).",
        "Are there three nodes that may be scheduled to? kubectl get nodes",
        cluster.spread,
        needs=("A1",),
    ),
    Criterion(
        "A7",
        "A killed pod fails no request",
        "Deletes a pod of the API under 10 requests a second, and counts the failed ones.",
        "Look at preStop, readiness and the gateway's retries.",
        disruptive.killed_pod,
        needs=("A2",),
        max_age=30 * DAY,
        disrupts=True,
        exploration=30,
    ),
    Criterion(
        "A8",
        "An update fails no request",
        "Replaces all pods of the API under 10 requests a second, and counts the failed ones.",
        "Look at preStop, readiness and maxUnavailable.",
        disruptive.rolling_restart,
        needs=("A7",),
        max_age=30 * DAY,
        disrupts=True,
    ),
)

_LOGS = (
    Criterion(
        "B1",
        "The log collector runs on every node of kgents",
        "Compares the nodes of the DaemonSet's pods with those of kgents' pods.",
        "kubectl describe daemonset of the collector says which node refuses it.",
        cluster.log_collector,
        attention=20,
    ),
    Criterion(
        "B2",
        "Loki keeps logs for seven days, and deletes what is older",
        "Reads Loki's own /config.",
        "Set limits_config.retention_period and compactor.retention_enabled.",
        observed.retention,
        attention=20,
    ),
    Criterion(
        "B3",
        "A request's log line is in Loki within 30 s, and nothing that it said",
        "Makes a request with a trace id, and looks in Loki for the trace, the message's text and the key.",
        "Look at the collector's log and its queue; docs/saas/runbook.md, logs.",
        observed.line_in_loki,
        needs=("A2", "B1", "B2"),
        exploration=30,
    ),
    Criterion(
        "B4",
        "The log panel's own query returns it through Grafana",
        "Asks Grafana's API with the query of the panel in dashboards/saas-overview.json.",
        "Is Loki a data source of Grafana with the uid that the dashboard names?",
        observed.line_in_panel,
        needs=("B3",),
        exploration=20,
    ),
)

_SCALING = (
    Criterion(
        "C1",
        "The autoscaler reads its metrics and may act",
        "Reads the status of the HorizontalPodAutoscaler.",
        "Does kubectl top pods answer? It needs metrics-server.",
        cluster.autoscaler,
        max_age=HOUR,
    ),
    Criterion(
        "C2",
        "Real load drives it up and back, and fails no request",
        "Reads what `make autoscaling` wrote in evidence/autoscaling.json, of the commit and machine that it names.",
        "make autoscaling",
        recorded.scaled,
        max_age=90 * DAY,
        exploration=60,
    ),
)

_SECURITY = (
    Criterion(
        "D1",
        "Scans of what runs have no open HIGH or CRITICAL finding",
        "Reads the report of `kgents scan` in evidence/scan.json: of all scanners, over HEAD and the image that runs.",
        "kgents scan says what is open; an exception needs a reason, an owner and an end.",
        recorded.scanned,
        needs=("A1",),
        max_age=7 * DAY,
        attention=60,
    ),
    Criterion(
        "D2",
        "The namespace enforces Pod Security restricted",
        "Reads the label of the namespace.",
        "kgents deploy applies deploy/base/namespace.yaml.",
        cluster.pod_security,
    ),
    Criterion(
        "D3",
        "Network policies deny all but the flows of docs/saas/security.md",
        "Looks for a policy that denies all, for one for each workload, and for none that allows anyone.",
        "Add deploy/components/network-policies to the overlay.",
        cluster.network_policies,
    ),
    Criterion(
        "D4",
        "Every secret is there and well-formed",
        "As kgents secrets check: it tells verdicts, never values.",
        "kgents secrets check",
        cluster.complete_secrets,
    ),
    Criterion(
        "D5",
        "TLS at the gateway, with a certificate that lasts",
        "Opens TLS with the system's authorities, reads the certificate's end, and asks over plain HTTP.",
        "kubectl describe certificate kgents",
        service.certificate,
        needs=("A4",),
    ),
    Criterion(
        "D6",
        "Nothing is answered without a key",
        "Asks each protected operation of the API's document with no key and with a wrong one.",
        "This is a defect of the API: SECURITY.md says how to report it.",
        service.keys_are_asked_for,
        needs=("A2",),
    ),
    Criterion(
        "D7",
        "A tenant does not see another's objects",
        "Makes two tenants, and asks for one's objects with the other's key.",
        "This is a defect of the API: SECURITY.md says how to report it.",
        service.tenants_are_apart,
        needs=("A2",),
    ),
    Criterion(
        "D8",
        "Every image is named by its digest",
        "Reads the images of all pods.",
        "kustomize edit set image NAME=REGISTRY/NAME@sha256:DIGEST",
        cluster.images,
        needs=("A1",),
    ),
)

_LAUNCH = (
    Criterion(
        "L1",
        "Disruption budgets let a node be drained, and no more",
        "Reads the status of the PodDisruptionBudgets: one pod may go, and of NATS no more, of the others not all.",
        "kubectl get poddisruptionbudget says how many pods are healthy.",
        cluster.disruption_budgets,
        needs=("A1",),
        max_age=HOUR,
    ),
    Criterion(
        "L2",
        "There is a load baseline, valid and without errors",
        "Reads the report of `kgents loadtest` in evidence/load-baseline.json: 100 requests/s for 60 s, in the target.",
        "make loadtest",
        recorded.loaded,
        max_age=90 * DAY,
        attention=30,
    ),
    Criterion(
        "L3",
        "The event bus is copied every hour",
        "Reads when the CronJob kgents-nats-backup last succeeded.",
        "kubectl get jobs; docs/operations/backup.md",
        cluster.backups,
        max_age=2 * HOUR,
    ),
    Criterion(
        "L4",
        "A restored backup holds every message",
        "Reads what the restore drill wrote in evidence/restore.json, of the commit and machine that it names.",
        "make restore-drill",
        recorded.restored,
        max_age=90 * DAY,
        attention=30,
        exploration=30,
    ),
    Criterion(
        "L5",
        "Every alert is evaluated, over every process",
        "Asks Prometheus for its rules, and for kgents_build_info of the API and the workers in the namespace.",
        "Add deploy/components/prometheus to the overlay.",
        observed.alerts,
        attention=20,
    ),
    Criterion(
        "L6",
        "Every alert leads to a section of the runbook",
        "Compares the alerts' runbook_url with the headings of docs/saas/runbook.md.",
        "Write the section.",
        observed.runbook,
    ),
    Criterion(
        "L7",
        "Ledger and meter agree to the token",
        "Runs kgents usage reconcile in a pod of the API.",
        "kgents usage reconcile --repair",
        cluster.reconciled,
        needs=("A3",),
        attention=20,
    ),
)

GRAPH = Graph(TRACKS, (*_API, *_LOGS, *_SCALING, *_SECURITY, *_LAUNCH))
"""What `kgents ready` checks."""
