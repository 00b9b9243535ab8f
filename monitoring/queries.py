"""The queries of the written dashboards, to be run and checked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monitoring.files import FOLDER


@dataclass(frozen=True, slots=True)
class PanelQuery:
    """A query where it stands. `source` is `prometheus` or `loki`."""

    board: str
    panel: str
    source: str
    expr: str
    legend: str

    def filled(self, namespace: str, interval: str) -> str:
        """The query with every variable of the dashboard put in: all components and levels of a namespace."""
        text = self.expr
        for name, value in (
            ("$namespace", namespace),
            ("$component", ".+"),
            ("$level", ".+"),
            ("$tenant", ".+"),
            ("$__rate_interval", interval),
            ("$__auto", interval),
        ):
            text = text.replace(name, value)
        return text


def boards() -> dict[str, dict[str, Any]]:
    """The dashboards by their file's name."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(Path(FOLDER).glob("*.json"))}


def queries() -> Iterator[PanelQuery]:
    """Every query of every panel."""
    for name, content in boards().items():
        for panel in content["panels"]:
            yield from of_panel(name, panel)


def of_panel(board: str, panel: dict[str, Any]) -> Iterator[PanelQuery]:
    """The queries of a panel; a row has none."""
    for target in panel.get("targets", ()):
        yield PanelQuery(board, panel["title"], panel["datasource"]["type"], target["expr"], target["legendFormat"])
