"""The service level objectives: what is promised, and how much of the error budget is left."""

from __future__ import annotations

from typing import Any

from grafana_foundation_sdk.builders import dashboard

from monitoring.build import HEIGHT, LINES, PLACE, Query, board, graph, log_panel, number, row
from monitoring.objectives import OBJECTIVES, Objective, record


def slos() -> dashboard.Dashboard:
    """Each objective with its burn; the windows are those of the alerts."""
    panels: list[Any] = []
    for objective in OBJECTIVES:
        panels += _panels(objective)
    return board(
        "slos",
        "kgents / SLOs",
        "What is promised and what is left of it. A burn of 1 uses the budget up in just its time.",
        [
            *panels,
            row("Logs"),
            log_panel(
                "What failed", f'{LINES} | json | event="request" | status >= 500', says="Requests answered with 5xx."
            ),
        ],
    )


def _panels(objective: Objective) -> list[Any]:
    budget = objective.budget

    def bad(window: str) -> str:
        return f'max({record(window)}{{{PLACE},slo="{objective.name}"}})'

    return [
        row(f"{objective.name.capitalize()}: {objective.promise}"),
        *(
            number(title, query, says=says, unit=unit, bad=limit, height=HEIGHT)
            for title, query, says, unit, limit in (
                ("Bad in 3 days", bad("3d"), "Share that was bad.", "percentunit", budget),
                ("Budget left", f"1 - {bad('3d')} / {budget:g}", "Of what may be bad in 3 days.", "percentunit", None),
                ("Burn, 1 hour", f"{bad('1h')} / {budget:g}", "Pages at 14.4.", "short", 14.4),
                ("Burn, 6 hours", f"{bad('6h')} / {budget:g}", "Pages at 6.", "short", 6.0),
            )
        ),
        graph(
            "Burn",
            *(Query(f"{bad(window)} / {budget:g}", window) for window in ("5m", "1h", "6h", "1d")),
            says="How many times too fast the error budget is used.",
            width=12,
            line=1,
        ),
    ]
