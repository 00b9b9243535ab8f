"""Every LogQL query of dashboards, data sources and pages: Grafana's own grammar, and what lines really have."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from monitoring.queries import queries
from tests.support import node
from tests.support.documents import ROOT, blocks
from tests.support.up import Up
from tests.support.waiting import wait_until

HERE = Path(__file__).parent
LABELS = {"namespace", "app", "component", "level"}
"""The labels that the log collector gives; a stream is chosen by these only."""
METADATA = {"tenant_id", "trace_id", "span_id", "request_id", "run_id", "pod", "node", "stream"}
"""What it keeps beside each line."""
LOKI = {"__error__"}
Parse = Callable[[Sequence[str]], list[dict[str, Any]]]


@pytest.fixture(scope="module")
def parse(tmp_path_factory: pytest.TempPathFactory) -> Parse:
    """What the grammar makes of queries."""
    folder = tmp_path_factory.mktemp("logql")
    for name in ("package.json", "package-lock.json", "parse.mjs"):
        shutil.copy(HERE / name, folder)
    install = [*node.NPM, "ci", "--no-audit", "--no-fund"]
    subprocess.run(install, cwd=folder, env=node.environment(), capture_output=True, check=True, timeout=300)

    def parsed(given: Sequence[str]) -> list[dict[str, Any]]:
        lines = "".join(json.dumps(query) + "\n" for query in given)
        command = [str(node.NODE), "parse.mjs"]
        done = subprocess.run(command, cwd=folder, input=lines, capture_output=True, text=True, check=True, timeout=60)
        return [json.loads(line) for line in done.stdout.splitlines()]

    return parsed


def written() -> list[str]:
    dashboards = [query.filled("kgents-agents", "5m") for query in queries() if query.source == "loki"]
    pages = [
        line
        for page in ("docs/saas/runbook.md", "docs/saas/logging.md")
        for block in blocks(page, "logql")
        for line in block.splitlines()
    ]
    sources = yaml.safe_load((ROOT / "deploy/components/grafana/datasources.yaml").read_text())["datasources"]
    derived = [
        field["url"].replace("$${__value.raw}", "4711")
        for source in sources
        for field in source["jsonData"].get("derivedFields", ())
    ]
    assert len(dashboards) > 5
    assert len(pages) > 15
    assert len(derived) == 2
    return dashboards + pages + derived


@pytest.mark.node
def test_every_query_fits_the_grammar_and_chooses_streams_by_their_labels(parse: Parse) -> None:
    for query, found in zip(written(), parse(written()), strict=True):
        assert not found["wrong"], query
        assert set(found["labels"]) <= LABELS, query
        assert {"namespace", "app"} & set(found["labels"]), query


@pytest.mark.node
def test_every_field_is_one_that_lines_have(parse: Parse, up: Up) -> None:
    with up.client() as client:
        client.get("/v1/agents").raise_for_status()
    wait_until(lambda: '"event":"request"' in up.logs(), what="the request is logged")
    lines = [json.loads(line) for line in up.logs().splitlines() if line.startswith("{")]
    known = {name for line in lines for name in line} | LABELS | METADATA | LOKI
    for query, found in zip(written(), parse(written()), strict=True):
        assert set(found["fields"]) <= known, query
        before_json = re.split(r"\| json", query)[0]
        assert not re.search(r"\| (event|status|duration_ms|route)\b", before_json), query


def test_numbers_are_compared_in_lines_that_have_them_only() -> None:
    """Loki lets a line that is no JSON pass such a filter, and fails a metric query on it."""
    compared = [re.split(r"\| \w+ (?:[<>]=?|!?=|==) \d|\| unwrap ", query) for query in written()]
    assert len([parts for parts in compared if len(parts) > 1]) > 5
    for before, *after in compared:
        assert not after or 'event="request"' in before, before


@pytest.mark.node
def test_the_grammar_refuses_a_malformed_query(parse: Parse) -> None:
    """The control of the tests above."""
    assert all(found["wrong"] for found in parse(['{app="kgents"', 'rate({app="kgents"} [5m]', '{app="kgents"} |= x']))
