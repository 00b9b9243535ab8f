"""What comes of comparing a release with what its commit gives."""

from __future__ import annotations

from typing import Any

import pytest

from release.verify import Claim, Verdict, judged

WHEEL, ARCHIVE, IMAGE = "kgents-1.2.0-py3-none-any.whl", "kgents-1.2.0-image.tar", "kgents:1.2.0"
SUMS = {WHEEL: "a1", ARCHIVE: "b2", IMAGE: "c3"}
CLAIM = Claim("01" * 20, {}, SUMS, {"registry.example.com/python:3.11": "d4"})
PRESENT = {WHEEL: "a1", ARCHIVE: "b2"}


def verdicts(**changes: Any) -> dict[str, Verdict]:
    given: dict[str, Any] = {"claim": CLAIM, "present": PRESENT, "again": SUMS, "with_image": True, **changes}
    return judged(**given)


def test_what_is_built_again_the_same_is_the_same() -> None:
    assert set(verdicts().values()) == {Verdict.SAME}


@pytest.mark.parametrize("name", [WHEEL, ARCHIVE, IMAGE])
def test_what_the_commit_gives_otherwise_differs(name: str) -> None:
    assert verdicts(again={**SUMS, name: "e5"}) == {**dict.fromkeys(SUMS, Verdict.SAME), name: Verdict.DIFFERS}


def test_what_the_commit_does_not_give_differs() -> None:
    again = {name: value for name, value in SUMS.items() if name != WHEEL}
    assert verdicts(again=again)[WHEEL] is Verdict.DIFFERS


@pytest.mark.parametrize("there", ["e5", None])
def test_a_file_that_is_another_than_the_provenance_says_or_gone_was_changed(there: str | None) -> None:
    assert verdicts(present={**PRESENT, WHEEL: there})[WHEEL] is Verdict.CHANGED


def test_a_file_that_the_provenance_keeps_back_was_changed() -> None:
    bill = "kgents-1.2.0.cdx.json"
    assert verdicts(present={**PRESENT, bill: "e5"}, again={**SUMS, bill: "e5"})[bill] is Verdict.CHANGED


def test_an_image_that_was_not_built_again_is_left_out() -> None:
    found = verdicts(again={WHEEL: "a1"}, with_image=False)
    assert found == {WHEEL: Verdict.SAME, ARCHIVE: Verdict.LEFT_OUT, IMAGE: Verdict.LEFT_OUT}


def test_an_archive_that_was_changed_is_seen_though_it_was_not_built_again() -> None:
    found = verdicts(present={**PRESENT, ARCHIVE: "e5"}, again={WHEEL: "a1"}, with_image=False)
    assert found[ARCHIVE] is Verdict.CHANGED


def test_a_release_that_says_it_has_no_image_has_none() -> None:
    claim = Claim(CLAIM.commit, {}, SUMS, {})
    assert verdicts(claim=claim, again={WHEEL: "a1"}, with_image=False)[ARCHIVE] is Verdict.DIFFERS
