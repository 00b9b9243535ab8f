"""What logs, dashboards and alerts say: asked in Loki, Grafana and Prometheus."""

from __future__ import annotations

import json
import re
import secrets
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kgents.clock import SECOND
from kgents.readiness.model import Broken, Found, NotShown
from kgents.readiness.target import Target, answer, client

SEEN_WITHIN = 30.0  # seconds from an answer until its line is found
LOOK = 1.0
WEEK = "168h"
DASHBOARD = "dashboards/saas-overview.json"
RUNBOOK = "docs/saas/runbook.md"
RULES = "deploy/components/prometheus"
PROCESSES = ("api", "worker")
_DURATION = re.compile(r"(\d+)(ms|[smhdwy])")
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800, "y": 31_536_000}


def retention(target: Target) -> Found:
    """Loki is ready, keeps logs for seven days, and its compactor deletes what is older."""
    import yaml

    with client(_given(target.loki, "--loki"), "") as loki:
        text = loki.get("/config").text
        ready = loki.get("/ready")
    if not ready.is_success:
        raise Broken(f"Loki is not ready: {ready.text[:200]}")
    try:
        config = yaml.safe_load(text)
        period = str(config["limits_config"]["retention_period"])
        deletes = bool(config["compactor"]["retention_enabled"])
    except (yaml.YAMLError, KeyError, TypeError):
        raise NotShown("Loki's /config is not as Loki's.") from None
    seen = {"retention_period": period, "retention_enabled": deletes}
    if _seconds(period) != _seconds(WEEK):
        raise Broken(f"Loki keeps logs for {period}, not for {WEEK}.", seen)
    if not deletes:
        raise Broken("Loki's compactor deletes nothing (compactor.retention_enabled).", seen)
    return Found(f"Loki keeps logs for {period} and deletes what is older.", seen)


def _seconds(duration: str) -> float:
    return sum(int(number) * _SECONDS[unit] for number, unit in _DURATION.findall(duration))


def line_in_loki(target: Target) -> Found:
    """A request's log line is found in Loki by its trace id within 30 seconds, and nothing of what it said is there."""
    trace, word, key = _asked(target)
    with client(_given(target.loki, "--loki"), "") as loki:
        taken, lines = _until_found(lambda: _lines(loki, target, trace))
        if not lines:
            raise Broken(f"After {SEEN_WITHIN:.0f} s no line of trace {trace} is in Loki.", {"trace": trace})
        told = [what for what, text in (("a message's text", word), ("an API key", key)) if _lines(loki, target, text)]
    seen = {"trace": trace, "lines": len(lines), "seconds": round(taken, 1), "told": told}
    if told:
        raise Broken(f"Loki holds {' and '.join(told)}.", seen)
    return Found(f"Found after {taken:.1f} s; neither the message's text nor the key is in Loki.", seen)


def line_in_panel(target: Target) -> Found:
    """The log panel's own query, asked through Grafana's API, returns a request's log line within 30 seconds."""
    panel = _panel(target.project / DASHBOARD)
    trace, _, _ = _asked(target)
    query = {**panel["targets"][0], "expr": _filled(panel["targets"][0]["expr"]), "maxLines": 1000, "refId": "A"}
    with client(_given(target.grafana, "--grafana"), target.grafana_token) as grafana:

        def lines() -> list[str]:
            now = target.clock.now() // 1000
            body = {"queries": [query], "from": str(now - 600_000), "to": str(now + 60_000)}
            found = answer(grafana, "POST", "/api/ds/query", body)
            return [text for text in _texts(found) if trace in text]

        taken, found = _until_found(lines)
    seen = {"trace": trace, "query": query["expr"], "seconds": round(taken, 1)}
    if not found:
        raise Broken(f"After {SEEN_WITHIN:.0f} s the panel's query does not return the line of trace {trace}.", seen)
    return Found(f"The panel's query returned it after {taken:.1f} s.", seen)


def _asked(target: Target) -> tuple[str, str, str]:
    """Make a request with a trace of its own; its trace id, a word that only its message has, and its key's secret."""
    tenant = target.tenant()
    trace, word = secrets.token_hex(16), f"canary{secrets.token_hex(12)}"
    with target.http(tenant.key) as http:
        body = {"model": "echo", "messages": [{"role": "user", "content": word}]}
        answer(
            http, "POST", "/v1/chat/completions", body, headers={"traceparent": f"00-{trace}-{secrets.token_hex(8)}-01"}
        )
    return trace, word, tenant.key.rpartition("_")[2]


def _lines(loki: Any, target: Target, text: str) -> list[str]:
    now = target.clock.now() // SECOND
    query = f'{{namespace="{target.namespace}"}} |= `{text}`'
    params = {"query": query, "start": str(now - 600), "end": str(now + 60), "limit": "100"}
    found = answer(loki, "GET", "/loki/api/v1/query_range", params=params)
    return [entry[1] for stream in found["data"]["result"] for entry in stream["values"]]


def _until_found(look: Any) -> tuple[float, list[str]]:
    started = time.monotonic()
    while True:
        found: list[str] = look()
        taken = time.monotonic() - started
        if found or taken > SEEN_WITHIN:
            return taken, found
        time.sleep(LOOK)


def _panel(path: Path) -> dict[str, Any]:
    try:
        dashboard = json.loads(path.read_text())
    except OSError:
        raise NotShown(f"There is no {path}: write it with `make dashboards`.") from None
    panels = [*dashboard["panels"], *(each for row in dashboard["panels"] for each in row.get("panels") or ())]
    found = [each for each in panels if each["type"] == "logs"]
    if not found:
        raise Broken(f"{path} has no log panel.")
    return dict(found[0])


def _filled(expression: str) -> str:
    """The expression with "anything" for each of the dashboard's variables."""
    return re.sub(r"\$\{(\w+)(:\w+)?\}|\$(\w+)", ".+", expression)


def _texts(found: Any) -> Iterator[str]:
    for result in found.get("results", {}).values():
        for frame in result.get("frames") or ():
            for column in frame["data"]["values"]:
                yield from (json.dumps(each) for each in column)


def alerts(target: Target) -> Found:
    """Prometheus has loaded each alert of the manifests, evaluates it well, and scrapes the installation's API and
    workers.
    """
    wanted = Counter(alert_names(target.project / RULES))
    if not wanted:
        raise NotShown(f"There are no alerts in {RULES}.")
    with client(_given(target.prometheus, "--prometheus"), "") as prometheus:
        groups = answer(prometheus, "GET", "/api/v1/rules", params={"type": "alert"})["data"]["groups"]
        query = {"query": f'kgents_build_info{{namespace="{target.namespace}"}}'}
        series = answer(prometheus, "GET", "/api/v1/query", params=query)["data"]["result"]
    healths: dict[str, list[str]] = {name: [] for name in sorted(wanted)}
    for rule in (rule for each in groups for rule in each["rules"]):
        healths.setdefault(rule["name"], []).append(rule["health"])
    states = {name: _state(healths[name], count) for name, count in sorted(wanted.items())}
    scraped = Counter(str(each["metric"].get("process", "?")) for each in series)
    seen = {"alerts": states, "scraped": dict(scraped)}
    if wrong := [f"{name} ({health})" for name, health in states.items() if health != "ok"]:
        raise Broken(f"Not evaluated: {', '.join(wrong)}.", seen)
    if missing := [name for name in PROCESSES if not scraped[name]]:
        raise Broken(f"Prometheus scrapes no process of {target.namespace} that is {' or '.join(missing)}.", seen)
    return Found(f"{wanted.total()} alerts are evaluated over {scraped.total()} processes.", seen)


def _state(healths: list[str], wanted: int) -> str:
    """What the rules of one name come to; an alert may be several, such as a fast and a slow burn."""
    if len(healths) < wanted:
        return "missing"
    return next((health for health in healths if health != "ok"), "ok")


def runbook(target: Target) -> Found:
    """Each alert leads to a section that the runbook has."""
    path = target.project / RUNBOOK
    if not path.exists():
        raise Broken(f"There is no {RUNBOOK}.")
    anchors = {_anchor(line) for line in path.read_text().splitlines() if line.startswith("#")}
    seen = {
        rule["alert"]: rule.get("annotations", {}).get("runbook_url", "") for rule in _alerts(target.project / RULES)
    }
    if not seen:
        raise NotShown(f"There are no alerts in {RULES}.")
    if wrong := [name for name, url in seen.items() if url.partition("#")[2] not in anchors]:
        raise Broken(f"Without a section: {', '.join(wrong)}.", seen)
    return Found(f"{len(seen)} alerts, each with a section.", seen)


def alert_names(folder: Path) -> list[str]:
    """The alerts of a folder of manifests and rule files."""
    return [rule["alert"] for rule in _alerts(folder)]


def _alerts(folder: Path) -> Iterator[dict[str, Any]]:
    import yaml

    for path in sorted(folder.rglob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            groups = document.get("groups") or (document.get("spec") or {}).get("groups") if document else None
            for each in groups or ():
                yield from (rule for rule in each["rules"] if "alert" in rule)


def _anchor(heading: str) -> str:
    """The anchor that GitHub gives to a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lstrip("#").strip().lower()).replace(" ", "-")


def _given(address: str, option: str) -> str:
    if not address:
        raise NotShown(f"Its address is not known: say {option}.")
    return address.rstrip("/")
