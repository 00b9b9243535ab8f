"""What is left to do, how long the longest chain of it takes, and how the budgets of minutes are spent.

Attention is a person's minutes of seeing to something; exploration is the minutes of finding out what nobody knew.
`kgents ready spend` enters what was spent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from kgents.readiness.model import Graph, Result, Verdict


class Budget(NamedTuple):
    """A track's minutes: planned and spent; `checks` is how long its checks have run in all."""

    track: str
    name: str
    open: int
    attention_planned: int
    attention_spent: int
    exploration_planned: int
    exploration_spent: int
    checks: float


def budgets(graph: Graph, lines: Iterable[Mapping[str, Any]], results: Mapping[str, Result]) -> list[Budget]:
    """The budgets of all tracks, from the ledger's lines and the newest results."""
    attention = dict.fromkeys((track.id for track in graph.tracks), 0)
    exploration = dict(attention)
    checks = dict.fromkeys(attention, 0.0)
    for line in lines:
        if line["kind"] == "spent" and line["track"] in attention:
            attention[line["track"]] += line["attention"]
            exploration[line["track"]] += line["exploration"]
        elif line["kind"] == "result" and line["criterion"][0] in checks:
            checks[line["criterion"][0]] += line["seconds"] / 60
    return [
        Budget(
            track.id,
            track.name,
            sum(each.id not in done(results) for each in graph.of_track(track.id)),
            sum(each.attention for each in graph.of_track(track.id)),
            attention[track.id],
            sum(each.exploration for each in graph.of_track(track.id)),
            exploration[track.id],
            round(checks[track.id], 1),
        )
        for track in graph.tracks
    ]


def done(results: Mapping[str, Result]) -> set[str]:
    """The criteria that hold, or are waived."""
    return {name for name, each in results.items() if each.verdict in (Verdict.PASS, Verdict.WAIVED)}
