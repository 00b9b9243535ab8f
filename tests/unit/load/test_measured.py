"""Figures from samples."""

from __future__ import annotations

from math import isnan

import pytest

from kgents.load.measured import LOST, Sample, Samples, figures, percentile


def samples(*rows: Sample) -> Samples:
    found = Samples()
    for row in rows:
        found.add(row)
    return found


def test_a_percentile_is_the_least_value_that_so_many_do_not_exceed():
    assert [percentile(range(1, 101), share) for share in (0.5, 0.99, 0.999, 1.0)] == [50, 99, 100, 100]
    assert percentile([7.0], 0.01) == 7.0
    assert isnan(percentile([], 0.5))


def test_percentiles_are_of_good_answers_and_errors_are_counted_by_status():
    rows = [Sample("chat", at / 10, 0.0, 0.010, 200) for at in range(8)]
    rows += [Sample("chat", 0.8, 0.0, 30.0, LOST), Sample("usage", 0.9, 0.0, 0.001, 503)]

    found = figures(samples(*rows), rate=10, seconds=1)

    assert found["latency_ms"]["max"] == 10.0
    assert found["errors"] == 2
    assert found["statuses"] == {"lost": 1, "200": 8, "503": 1}
    assert found["kinds"]["usage"]["errors"] == 1


def test_what_is_answered_after_the_step_lowers_the_rate_that_was_achieved():
    rows = [Sample("chat", at / 100, 0.0, 1.0, 200) for at in range(100)]

    found = figures(samples(*rows), rate=100, seconds=1)

    assert found["sent"] == 100
    assert found["took"] == pytest.approx(1.99)
    assert found["achieved"] == pytest.approx(100 / 1.99, abs=0.01)


def test_streams_count_by_their_first_token():
    found = figures(
        samples(Sample("chat", 0, 0, 0.010, 200), Sample("stream", 0, 0, 2.0, 200, 0.020)), rate=2, seconds=1
    )

    assert found["latency_ms"]["max"] == 10.0
    assert found["first_token_ms"]["max"] == 20.0
    assert found["stream_ms"]["max"] == 2000.0


def test_a_late_start_is_in_the_latency_and_told_apart():
    found = figures(samples(Sample("chat", 0.5, 0.2, 0.25, 200)), rate=1, seconds=1)

    assert found["late_ms"]["max"] == 200.0
    assert found["latency_ms"]["max"] == 250.0


def test_the_timeline_has_arrivals_by_their_intended_start_and_answers_by_their_end():
    rows = [Sample("chat", 0.5, 0, 0.1, 200), Sample("chat", 0.6, 0, 1.0, 200), Sample("chat", 2.0, 0, 0.1, 500)]

    found = figures(samples(*rows), rate=1.5, seconds=2)["timeline"]

    assert [(point["second"], point["arrivals"], point["answers"], point["errors"]) for point in found] == [
        (0.0, 2.0, 1.0, 0),
        (1.0, 1.0, 1.0, 1),
    ]


def test_samples_of_programs_that_ran_side_by_side_are_one():
    merged = Samples.merged([samples(Sample("chat", 0, 0, 1, 200)), samples(Sample("stream", 1, 0, 2, 200, 1.5))])

    assert [row.kind for row in merged] == ["chat", "stream"]
    assert len(merged) == 2
