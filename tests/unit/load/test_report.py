"""A load test's report in Markdown."""

from __future__ import annotations

from kgents.load.report import markdown, summary
from tests.support.loads import report, step, stress


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("|")]


def test_a_report_has_rates_percentiles_errors_and_what_each_process_took():
    page = markdown(report(step(statuses={"200": 197, "503": 2, "lost": 1}, errors=3)), picture="load.png")

    row = next(line for line in lines(page) if line.startswith("| step | 100"))
    assert [cell.strip() for cell in row.split("|")[1:-1]] == [
        *("step", "100", "100", "100", "3 (2 x 503, 1 x lost)", "5.0", "10.0", "20.0", "30.0", "20.0", "1.0", "met")
    ]
    assert any(line.startswith("| api | 0.27") for line in lines(page))
    assert "![baseline](load.png)" in page
    assert "meter connected (embedded)" in page


def test_every_table_has_as_many_cells_in_each_row():
    widths = [line.count("|") for line in lines(markdown(stress()))]

    assert len(set(widths)) == 3  # one for each table


def test_a_run_that_is_not_valid_says_so_first_and_why():
    found = report(valid=False, reasons=[{"code": "generator-rate", "text": "the generator sent only 50 requests/s"}])

    assert "**Not valid.**\n- the generator sent only 50 requests/s" in markdown(found)
    assert summary(found) == "NOT VALID\n- the generator sent only 50 requests/s\n"


def test_a_search_tells_the_knee_and_what_missed_it():
    assert "The knee: 200 requests/s met the target, 300 requests/s missed it." in markdown(stress())


def test_a_rate_at_which_the_workers_fell_behind_says_so():
    found = report(step(met=False, backlog=7), step(met=False, backlog=None), backlog=None)

    assert "| **missed** (7 events behind) |" in markdown(found)
    assert "| **missed** (it is unknown how many events behind) |" in markdown(found)
    assert "half a minute after the load: unknown." in markdown(found)


def test_the_closed_loop_says_what_it_does_not_show():
    profile = {"name": "phase7", "about": "closed loop", "users": 50, "wait": 0.1, "searches": False}
    page = markdown(report(step(0.0, achieved=478.0, met=False), profile=profile))

    assert "does not show: capacity" in page
    assert "476 requests/s, however fast the target is; it answered 478" in page
