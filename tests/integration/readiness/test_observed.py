"""Logs, panels and alerts. Loki and Grafana can't be had where the tests run: what answers here speaks their HTTP API
as their documentation gives it, rightly and wrongly. So it shows that the checks see what is wrong, and not that a Loki
is right.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
import yaml

from kgents.clock import SystemClock
from kgents.readiness.checks import observed
from kgents.readiness.model import Broken, Found, NotShown
from kgents.readiness.target import Target
from tests.support.replies import Asked, Reply, replying
from tests.support.up import Up

CONFIG = {"limits_config": {"retention_period": "1w"}, "compactor": {"retention_enabled": True}}
DASHBOARD = {
    "panels": [
        {"type": "row", "panels": []},
        {"type": "logs", "targets": [{"datasource": {"uid": "loki"}, "expr": '{app=~"$app"} |~ "${search:raw}"'}]},
    ]
}
RULES = {
    "groups": [
        {
            "name": "kgents",
            "rules": [
                {"alert": name, "annotations": {"runbook_url": f"https://x/runbook.md#{name.lower()}"}}
                for name in ("Backlog", "Quorum")
            ],
        }
    ]
}


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    running = Up(tmp_path_factory.mktemp("observed")).start()
    yield running
    running.stop()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observed, "SEEN_WITHIN", 1.0)
    monkeypatch.setattr(observed, "LOOK", 0.1)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for path, text in (
        (observed.DASHBOARD, json.dumps(DASHBOARD)),
        (f"{observed.RULES}/rules.yaml", yaml.safe_dump(RULES)),
        (observed.RUNBOOK, "# Runbook\n\n## Backlog\n\n## Quorum\n"),
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    return tmp_path


class Stack:
    """What Loki, Grafana and Prometheus answer over the logs of a kgents."""

    def __init__(self, up: Up | None = None) -> None:
        self.up = up
        self.config: Any = CONFIG
        self.ready = 200
        self.extra = ""  # what is in the log store besides kgents' own log
        self.rules: dict[str, str] = {"Backlog": "ok", "Quorum": "ok"}
        self.scraped = {("kgents-agents", "api"): 2, ("kgents-agents", "worker"): 1}
        self.queries: list[str] = []

    def lines(self) -> list[str]:
        return [*(self.up.logs().splitlines() if self.up else ()), *self.extra.splitlines()]

    def __call__(self, asked: Asked) -> Reply:
        path, _, query = asked.path.partition("?")
        given = {name: values[0] for name, values in parse_qs(query).items()}
        match path:
            case "/config":
                return Reply(200, yaml.safe_dump(self.config))
            case "/ready":
                return Reply(self.ready, "ready" if self.ready == 200 else "Ingester not ready")
            case "/loki/api/v1/query_range":
                return Reply(200, {"data": {"result": [{"values": self._found(given["query"])}]}})
            case "/api/ds/query":
                (asked_for,) = json.loads(asked.body)["queries"]
                self.queries.append(asked_for["expr"])
                values = [[0 for _ in self.lines()], self.lines()]
                return Reply(200, {"results": {"A": {"frames": [{"data": {"values": values}}]}}})
            case "/api/v1/rules":
                rules = [{"name": name, "health": each} for name, all_ in self.rules.items() for each in all_.split()]
                return Reply(200, {"data": {"groups": [{"rules": rules}]}})
            case "/api/v1/query":
                series = [
                    {"metric": {"namespace": namespace, "process": process}}
                    for (namespace, process), count in self.scraped.items()
                    for _ in range(count)
                    if given["query"] == f'kgents_build_info{{namespace="{namespace}"}}'
                ]
                return Reply(200, {"data": {"result": series}})
        return Reply(404, "no such route")

    def _found(self, query: str) -> list[list[str]]:
        found = re.fullmatch(r'\{namespace="kgents-agents"\} \|= `(.*)`', query)
        assert found, query
        return [["0", line] for line in self.lines() if found[1] in line]


@contextmanager
def checked(stack: Callable[[Asked], Reply], project: Path, up: Up | None = None) -> Iterator[Target]:
    with replying(stack) as url:
        known = {"url": up.url, "admin_key": up.admin_key} if up else {}
        given = {"loki": url, "grafana": url, "prometheus": url}
        with Target(SystemClock(), project, bytes, context="nowhere", **known, **given) as target:
            yield target


def test_seven_days_and_a_compactor_that_deletes_are_a_pass(project: Path) -> None:
    with checked(Stack(), project) as target:
        assert "1w" in observed.retention(target).detail


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({**CONFIG, "limits_config": {"retention_period": "0s"}}, "for 0s"),
        ({**CONFIG, "limits_config": {"retention_period": "30d"}}, "for 30d"),
        ({**CONFIG, "compactor": {"retention_enabled": False}}, "deletes nothing"),
    ],
)
def test_other_retention_is_a_fail(project: Path, config: Any, why: str) -> None:
    stack = Stack()
    stack.config = config
    with checked(stack, project) as target, pytest.raises(Broken, match=why):
        observed.retention(target)


def test_a_loki_that_is_not_ready_is_a_fail(project: Path) -> None:
    stack = Stack()
    stack.ready = 503
    with checked(stack, project) as target, pytest.raises(Broken, match="not ready"):
        observed.retention(target)


@pytest.mark.parametrize("check", [observed.retention, observed.alerts])
def test_where_no_address_is_known_nothing_is_shown(project: Path, check: Callable[[Target], Found]) -> None:
    with Target(SystemClock(), project, bytes) as target, pytest.raises(NotShown, match="say --"):
        check(target)


def test_a_line_that_is_there_is_found_and_tells_nothing(project: Path, up: Up) -> None:
    with checked(Stack(up), project, up) as target:
        assert observed.line_in_loki(target).seen["lines"] >= 1


def test_a_line_that_never_comes_is_a_fail(project: Path, up: Up) -> None:
    with checked(Stack(), project, up) as target, pytest.raises(Broken, match="no line of trace"):
        observed.line_in_loki(target)


@pytest.mark.parametrize("what", ["a message's text", "an API key"])
def test_a_log_store_that_holds_what_was_said_is_a_fail(
    project: Path, up: Up, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    stack, ask = Stack(up), observed._asked

    def telling(target: Target) -> tuple[str, str, str]:
        trace, word, key = ask(target)
        stack.extra = word if "message" in what else f"Bearer kg_{key}"
        return trace, word, key

    monkeypatch.setattr(observed, "_asked", telling)
    with checked(stack, project, up) as target, pytest.raises(Broken, match=f"holds {what}"):
        observed.line_in_loki(target)


def test_the_panels_own_query_is_asked(project: Path, up: Up) -> None:
    stack = Stack(up)
    with checked(stack, project, up) as target:
        observed.line_in_panel(target)
    assert set(stack.queries) == {'{app=~".+"} |~ ".+"'}


def test_a_panel_that_does_not_return_the_line_is_a_fail(project: Path, up: Up) -> None:
    with checked(Stack(), project, up) as target, pytest.raises(Broken, match="does not return"):
        observed.line_in_panel(target)


def test_a_dashboard_without_a_log_panel_is_a_fail(project: Path, up: Up) -> None:
    (project / observed.DASHBOARD).write_text('{"panels": [{"type": "timeseries"}]}')
    with checked(Stack(up), project, up) as target, pytest.raises(Broken, match="no log panel"):
        observed.line_in_panel(target)


def test_alerts_that_are_evaluated_are_a_pass(project: Path) -> None:
    with checked(Stack(), project) as target:
        assert observed.alerts(target).detail == "2 alerts are evaluated over 3 processes."


@pytest.mark.parametrize(
    "rules",
    [{"Backlog": "ok"}, {"Backlog": "ok", "Quorum": "err"}, {"Backlog": "ok", "Quorum": "err ok"}],
)
def test_an_alert_that_is_missing_or_errs_is_a_fail(project: Path, rules: dict[str, str]) -> None:
    stack = Stack()
    stack.rules = rules
    with checked(stack, project) as target, pytest.raises(Broken, match="Quorum"):
        observed.alerts(target)


def test_an_alert_of_which_one_rule_is_not_loaded_is_a_fail(project: Path) -> None:
    twice = {"groups": [{"name": "kgents", "rules": [{"alert": "Backlog"}, {"alert": "Quorum"}, {"alert": "Quorum"}]}]}
    (project / observed.RULES / "rules.yaml").write_text(yaml.safe_dump(twice))
    with checked(Stack(), project) as target, pytest.raises(Broken, match=r"Quorum \(missing\)"):
        observed.alerts(target)


@pytest.mark.parametrize(
    "scraped",
    [{}, {("elsewhere", "api"): 1, ("elsewhere", "worker"): 1}, {("kgents-agents", "api"): 2}],
)
def test_alerts_that_do_not_see_the_workers_are_a_fail(project: Path, scraped: dict[tuple[str, str], int]) -> None:
    stack = Stack()
    stack.scraped = scraped
    with checked(stack, project) as target, pytest.raises(Broken, match=r"scrapes no process of kgents-agents.*worker"):
        observed.alerts(target)


def test_an_alert_without_a_section_is_a_fail(project: Path) -> None:
    with checked(Stack(), project) as target:
        assert observed.runbook(target).detail == "2 alerts, each with a section."
        (project / observed.RUNBOOK).write_text("# Runbook\n\n## Backlog\n")
        with pytest.raises(Broken, match="Quorum"):
            observed.runbook(target)
