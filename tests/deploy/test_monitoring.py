"""Dashboards, rules and Grafana, as they are written and rendered."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from kgents.telemetry.metrics import Metrics
from monitoring.external import EXTERNAL
from monitoring.files import BOARDS, written
from monitoring.queries import boards
from tests.support.manifests import ROOT, objects_of, rendered
from tests.support.prometheus import program

COMPONENTS = ROOT / "deploy" / "components"
ADAPTER = COMPONENTS / "autoscaling-runs" / "rules.yaml"


@pytest.mark.parametrize("path", list(written()), ids=lambda path: path.name)
def test_what_is_written_is_what_the_code_says(path: Path) -> None:
    assert path.read_text() == written()[path], "write it anew with: make dashboards"


@pytest.mark.parametrize("name", list(BOARDS))
def test_panels_fit_beside_each_other(name: str) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in boards()[name]["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24, panel["title"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells


@pytest.mark.parametrize("name", list(BOARDS))
def test_every_panel_says_what_it_shows_and_takes_the_chosen_sources(name: str) -> None:
    board = boards()[name]
    variables = {variable["name"] for variable in board["templating"]["list"]}
    assert {"namespace", "component", "level"} <= variables
    for panel in board["panels"]:
        if panel["type"] != "row":
            assert panel["description"]
            assert panel["datasource"]["uid"] in {"prometheus", "loki"}
            assert all(target["datasource"] == panel["datasource"] for target in panel["targets"]), panel["title"]
            assert all("$namespace" in target["expr"] for target in panel["targets"]), panel["title"]


def test_the_logs_of_the_overview_take_its_choice() -> None:
    panels = [panel for panel in boards()["saas-overview"]["panels"] if panel["type"] == "logs"]
    assert len(panels) == 1
    assert all(name in panels[0]["targets"][0]["expr"] for name in ("$namespace", "$component", "$level"))


def test_grafana_gets_every_dashboard_and_both_sources() -> None:
    maps = {each["metadata"]["name"]: each for each in rendered("production") if each["kind"] == "ConfigMap"}
    dashboards = next(each for name, each in maps.items() if name.startswith("kgents-dashboards"))
    assert {name: json.loads(text) for name, text in dashboards["data"].items()} == {
        f"{name}.json": board for name, board in boards().items()
    }
    configuration = next(each for name, each in maps.items() if name.startswith("kgents-grafana"))
    sources = yaml.safe_load(configuration["data"]["datasources.yaml"])["datasources"]
    assert {(source["type"], source["uid"]) for source in sources} == {("prometheus", "prometheus"), ("loki", "loki")}
    derived = next(source for source in sources if source["type"] == "loki")["jsonData"]["derivedFields"]
    assert {field["matcherRegex"] for field in derived} == {"trace_id", "run_id"}
    assert {field["datasourceUid"] for field in derived} == {"loki"}


def test_no_secret_of_grafana_is_in_a_manifest() -> None:
    for each in rendered("production"):
        if each["metadata"]["name"].startswith("kgents-grafana") and each["kind"] == "Deployment":
            volumes = each["spec"]["template"]["spec"]["volumes"]
            assert {"secretName": "kgents-grafana-secrets", "defaultMode": 0o440} in [
                volume.get("secret") for volume in volumes
            ]
            environment = {
                entry["name"]: entry["value"] for entry in each["spec"]["template"]["spec"]["containers"][0]["env"]
            }
            assert environment["GF_SECURITY_ADMIN_PASSWORD__FILE"].startswith("/etc/kgents/secrets/")
            assert "GF_SECURITY_ADMIN_PASSWORD" not in environment


def test_the_object_of_the_operator_has_the_rules_of_the_file() -> None:
    resource = yaml.safe_load((COMPONENTS / "prometheus/prometheus-rule.yaml").read_text())
    plain = yaml.safe_load((COMPONENTS / "prometheus-rules/kgents.rules.yaml").read_text())
    assert resource["spec"] == plain


def test_the_monitor_finds_the_metrics_of_api_and_worker() -> None:
    objects = rendered("production")
    monitor = next(each for each in objects if each["kind"] == "ServiceMonitor")
    service = next(each for each in objects if each["metadata"]["name"] == "kgents-metrics")
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert [end["port"] for end in monitor["spec"]["endpoints"]] == [port["name"] for port in service["spec"]["ports"]]
    for name in ("kgents-api", "kgents-worker"):
        pod: Any = next(each for each in objects if each["kind"] == "Deployment" and each["metadata"]["name"] == name)[
            "spec"
        ]["template"]
        assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
        ports = {port["name"]: port["containerPort"] for port in pod["spec"]["containers"][0]["ports"]}
        assert str(ports["metrics"]) == pod["metadata"]["annotations"]["prometheus.io/port"]


def test_the_relabelling_of_the_scrape_job_is_prometheus_own(tmp_path: Path) -> None:
    """Without its discovery, which Debian's Prometheus is built without."""
    job = yaml.safe_load((COMPONENTS / "prometheus-rules/kgents.scrape.yaml").read_text())
    for each in job["scrape_configs"]:
        assert each.pop("kubernetes_sd_configs")
    (tmp_path / "prometheus.yaml").write_text(yaml.safe_dump(job))
    command = [program("promtool"), "check", "config", str(tmp_path / "prometheus.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_metrics_of_others_are_listed_with_their_labels_and_source() -> None:
    assert all(metric.source.startswith("https://") for metric in EXTERNAL.values())
    assert all(metric.labels for metric in EXTERNAL.values())


def test_the_second_metric_of_the_autoscaler_is_what_the_adapter_reads_of_each_pod(tmp_path: Path) -> None:
    assert misread(ADAPTER.read_text(), _second_metric(tmp_path)) == []


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('__name__="kgents_runs_in_flight"', '__name__="kgents_running"', "the API has no series kgents_running"),
        ('pod!=""', 'tenant!=""', "no label is called tenant"),
        ("pod: { resource: pod }", "name: { resource: pod }", "no label is called name"),
        ("pod: { resource: pod }", "component: { resource: node }", "pods are not told apart"),
        ("matches: kgents_runs_in_flight", "as: runs", "the autoscaler asks for kgents_runs_in_flight, not runs"),
        ("by (<<.GroupBy>>)", "", "the sum is not for what is asked for"),
    ],
)
def test_a_rule_that_gives_the_autoscaler_nothing_is_seen(tmp_path: Path, old: str, new: str, complaint: str) -> None:
    """The control of the test above."""
    text = ADAPTER.read_text()
    assert old in text
    assert misread(text.replace(old, new), _second_metric(tmp_path)) == [complaint]


def misread(text: str, wanted: str) -> list[str]:
    """Why the rule of prometheus-adapter, as it is set here, does not give the metric that is wanted of the API's pods;
    empty where it does.
    """
    (rule,) = yaml.safe_load(text)["rules"]["custom"]
    matchers = dict(re.findall(r'(\w+)!?="([^"]*)"', rule["seriesQuery"]))
    series = matchers.pop("__name__")
    resources = {label: each["resource"] for label, each in rule["resources"]["overrides"].items()}
    families = text_string_to_metric_families(Metrics("api").expose().decode())
    exposed = {sample.name: set(sample.labels) for family in families for sample in family.samples}
    named = rule["name"].get("as") or "".join(re.findall(rule["name"]["matches"], series)[:1])
    labels = exposed.get(series, set()) | _scraped()
    said = [f"no label is called {label}" for label in sorted({*matchers, *resources} - labels)]
    if series not in exposed:
        said.append(f"the API has no series {series}")
    elif named != wanted:
        said.append(f"the autoscaler asks for {wanted}, not {named}")
    if set(resources.values()) != {"namespace", "pod"}:
        said.append("pods are not told apart")
    if not re.search(r"<<\.Series>>\{<<\.LabelMatchers>>\}.* by \(<<\.GroupBy>>\)", rule["metricsQuery"]):
        said.append("the sum is not for what is asked for")
    return said


def _scraped() -> set[str]:
    """The labels that the scrape job gives to every series of a pod."""
    jobs = yaml.safe_load((COMPONENTS / "prometheus-rules" / "kgents.scrape.yaml").read_text())["scrape_configs"]
    return {each["target_label"] for job in jobs for each in job["relabel_configs"] if "target_label" in each}


def _second_metric(folder: Path) -> str:
    """What the autoscaler asks for of each pod, where an installation takes the component."""
    deploy = os.path.relpath(ROOT / "deploy", folder)
    kustomization = {
        "resources": [f"{deploy}/overlays/conformance"],
        "components": [f"{deploy}/components/autoscaling-runs"],
    }
    (folder / "kustomization.yaml").write_text(json.dumps(kustomization))
    (scaler,) = (each for each in objects_of(folder) if each["kind"] == "HorizontalPodAutoscaler")
    (metric,) = (each["pods"]["metric"] for each in scaler["spec"]["metrics"] if each["type"] == "Pods")
    return str(metric["name"])
