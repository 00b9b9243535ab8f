"""The benchmarks' page says plainly what was missed."""

from bench.page import reasons_text, section_text
from bench.report import Figure, Profile, Section, Table

MACHINE = {"date": "2026-01-01 00:00 UTC", "commit": "abc", "others": "0.10", "cores": "2"}


def test_a_missed_target_is_told_with_what_costs_most():
    section = Section(
        "Title",
        "How.",
        figures=[
            Figure("rate", "at least 2", "1", False),
            Figure("errors", "0", "0", True),
            Figure("aside", "none", "3", None),
        ],
        tables=[Table(["a", "b"], [["1|2", "3"]])],
        profiles=[Profile("API process", [(12.5, "work (module.py)")])],
        machine=MACHINE,
    )
    text = section_text(section)
    assert "| rate | at least 2 | 1 | **missed** |" in text
    assert "| errors | 0 | 0 | met |" in text
    assert "| aside | none | 3 |  |" in text
    assert "| 1\\|2 | 3 |" in text
    assert "| 12.5 % | `work (module.py)` |" in text


def test_the_reason_is_told_of_what_is_missed_only():
    figures = [Figure("rate", "2", "1", False, "It is slow."), Figure("errors", "0", "0", True, "It fails.")]
    told = reasons_text([Section("Title", "How.", figures=figures)])
    assert "| Title | rate | It is slow. |" in told
    assert "It fails." not in told


def test_without_anything_missed_there_are_no_reasons():
    assert not reasons_text([Section("Title", "How.", figures=[Figure("errors", "0", "0", True)])])
