"""Every PromQL query of dashboards and rules, against a real Prometheus that looks at a running kgents."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from prometheus_client.parser import text_string_to_metric_families

from kgents.telemetry.metrics import Metrics
from monitoring import rules
from monitoring.durations import Times
from monitoring.external import EXTERNAL
from monitoring.queries import queries
from tests.support.prometheus import NAMESPACE, Prometheus, job_of
from tests.support.promql import names_in
from tests.support.up import Up
from tests.support.waiting import wait_until

HELLO = {"model": "echo", "messages": [{"role": "user", "content": "Hello"}]}
OF_PLACE = {"namespace", "component", "pod", "instance", "job"}
DASHBOARDS = [query for query in queries() if query.source == "prometheus"]
RULES = [rule for group in rules.groups() for rule in group["rules"]]
EXPRESSIONS = [query.filled(NAMESPACE, "10s") for query in DASHBOARDS] + [rule["expr"] for rule in RULES]


@dataclass(frozen=True, slots=True)
class Watched:
    """A Prometheus, and what it has seen: the labels of each metric. `never` are those of what never happened yet."""

    prometheus: Prometheus
    seen: dict[str, set[str]]
    never: dict[str, set[str]]


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A kgents that has had a little of everything to do."""
    folder = tmp_path_factory.mktemp("monitoring")
    up = Up(folder / "data", environment={"KGENTS_RECONCILE_INTERVAL": "1", "KGENTS_INVOICE_DELAY": "1"}).start()
    prometheus = Prometheus(folder / "prometheus", [job_of(up.facts)], rules.groups(Times(60)))
    try:
        with up.client() as client, up.admin() as admin:
            plan = admin.post("/v1/plans", json={"name": "pro", "currency": "eur"}).raise_for_status().json()
            tenant = client.get("/v1/tenant").raise_for_status().json()["id"]
            admin.put(f"/v1/tenants/{tenant}/subscription", json={"plan": plan["id"]}).raise_for_status()

            def is_recorded() -> bool:
                client.post("/v1/chat/completions", json=HELLO).raise_for_status()
                client.get("/v1/agents").raise_for_status()
                recorded = prometheus.query("namespace:kgents_slo_bad:ratio_rate5m")
                return len(recorded) == 3 and bool(prometheus.query("rate(kgents_usage_events_metered_total[10s]) > 0"))

            wait_until(is_recorded, seconds=60, what="Prometheus has seen what was done")
        yield Watched(prometheus, prometheus.metrics(), _never())
    finally:
        prometheus.stop()
        up.stop()


def _never() -> dict[str, set[str]]:
    """The metrics that have no series before they happen, made to happen."""
    metrics = Metrics("test")
    metrics.request_refused("queue")
    metrics.rate_limited("requests")
    metrics.quota_exceeded("runs")
    metrics.swept("processes", 1)
    return {
        sample.name: set(sample.labels) | OF_PLACE
        for family in text_string_to_metric_families(metrics.expose().decode())
        for sample in family.samples
        if sample.name.startswith(
            ("kgents_requests_refused", "kgents_rate_limited", "kgents_quota_exceeded", "kgents_swept")
        )
    }


def test_no_query_names_a_metric_or_a_label_that_does_not_exist(watched: Watched) -> None:
    external = {name: set(metric.labels) for name, metric in EXTERNAL.items()}
    known = {"ALERTS": set(), **watched.never, **external, **watched.seen}
    for expr in EXPRESSIONS:
        names = names_in(expr)
        assert names.metrics, expr
        assert names.metrics.keys() <= known.keys(), expr
        for metric, labels in names.metrics.items():
            assert labels <= known[metric], f"{metric}: {expr}"
        assert names.grouping <= set().union(*(known[metric] for metric in names.metrics)), expr


def test_every_query_can_be_evaluated(watched: Watched) -> None:
    for expr in EXPRESSIONS:
        watched.prometheus.query(expr)


def test_every_panel_on_what_has_happened_shows_something(watched: Watched) -> None:
    for query in DASHBOARDS:
        expr = query.filled(NAMESPACE, "10s")
        if names_in(expr).metrics.keys() <= watched.seen.keys() and 'status=~"5.."' not in expr:
            assert watched.prometheus.query(expr), f"{query.board}, {query.panel}: {expr}"


def test_what_is_external_is_not_ours_and_is_used() -> None:
    used = {metric for expr in EXPRESSIONS for metric in names_in(expr).metrics}
    assert not [name for name in EXTERNAL if name.startswith("kgents")]
    assert EXTERNAL.keys() <= used


@pytest.mark.parametrize(
    ("query", "metrics", "grouping"),
    [
        ("up", {"up": set()}, set()),
        ('sum by (a, b) (rate(x_total{c="by (d)",e!~"f"}[5m]))', {"x_total": {"c", "e"}}, {"a", "b"}),
        ("0 * x / on (n) group_left (m) y > bool 1e3 or vector(0)", {"x": set(), "y": set()}, {"n", "m"}),
        ("time() - max(a:b:c)", {"a:b:c": set()}, set()),
    ],
)
def test_the_names_in_a_query(query: str, metrics: dict[str, set[str]], grouping: set[str]) -> None:
    found = names_in(query)
    assert (found.metrics, found.grouping) == (metrics, grouping)
