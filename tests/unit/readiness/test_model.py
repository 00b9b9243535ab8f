"""Criteria make a graph: an order, a longest chain, and what each one blocks."""

from __future__ import annotations

import pytest

from kgents.readiness.criteria import GRAPH
from kgents.readiness.model import Criterion, Found, Graph, Track


def criterion(id_: str, *needs: str, attention: int = 10) -> Criterion:
    return Criterion(id_, f"{id_} holds", "", "", lambda _: Found("", {}), needs, attention=attention)


def graph(*criteria: Criterion, tracks: tuple[Track, ...] = (Track("A", "a"), Track("B", "b", needs=("A",)))) -> Graph:
    return Graph(tracks, criteria)


SOME = graph(criterion("A1"), criterion("A2", "A1", attention=30), criterion("A3", "A1"), criterion("B1", "A2"))


def test_each_comes_after_what_it_needs() -> None:
    seen: set[str] = set()
    for each in GRAPH.order():
        assert seen.issuperset(GRAPH.needs(each))
        seen.add(each.id)
    assert seen == {each.id for each in GRAPH.criteria}


def test_a_track_begins_where_those_it_needs_have_begun() -> None:
    assert SOME.needs(SOME.get("B1")) == ("A1", "A2")


def test_the_critical_path_is_the_longest_by_minutes() -> None:
    path, minutes = SOME.critical_path()
    assert ([each.id for each in path], minutes) == (["A1", "A2", "B1"], 50)


def test_what_is_done_takes_no_time() -> None:
    path, minutes = SOME.critical_path({"A1", "A2"})
    assert minutes == 10
    assert [each.id for each in path] in (["A3"], ["B1"])
    assert SOME.critical_path({"A1", "A2", "A3", "B1"}) == ([], 0)


def test_a_criterion_blocks_near_and_far() -> None:
    assert SOME.blocks(SOME.get("A1")) == ["A2", "A3", "B1"]
    assert SOME.blocks(SOME.get("A2")) == ["B1"]
    assert SOME.blocks(SOME.get("B1")) == []


@pytest.mark.parametrize(
    ("criteria", "why"),
    [
        ((criterion("A1", "A2"), criterion("A2", "A1")), "need each other"),
        ((criterion("A1", "A9"),), "which there is not"),
        ((criterion("A1"), criterion("A1")), "one id"),
        ((criterion("X1"),), "in no track"),
    ],
)
def test_a_graph_that_hangs_together_badly_is_refused(criteria: tuple[Criterion, ...], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        graph(*criteria)


def test_each_criterion_says_what_it_does_and_how_to_mend_it() -> None:
    assert [each.id for each in GRAPH.criteria if not (each.claim and each.how and each.fix)] == []
