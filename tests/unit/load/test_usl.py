"""The scalability law that is fitted to measurements."""

from __future__ import annotations

import math
from random import Random

import pytest

from kgents.errors import Unprocessable
from kgents.load.usl import Law, Point, fit, line

SIZES = (1, 2, 4, 8, 16, 32, 64)


def points(law, noise=0.0, seed=1):
    random = Random(seed)
    return [Point(size, law.at(size) * (1 + random.gauss(0, noise))) for size in (*SIZES, *SIZES)]


@pytest.mark.parametrize(
    "law",
    [
        Law(120.0, 0.05, 0.0002),
        Law(900.0, 0.6, 0.001),
        Law(50.0, 0.0, 0.01),
        Law(50.0, 0.3, 0.0),
        Law(1000.0, 0.0, 0.0),
    ],
)
def test_planted_parameters_are_found_again(law):
    found = fit(points(law))

    assert found.law.rate == pytest.approx(law.rate, rel=1e-6)
    assert found.law.contention == pytest.approx(law.contention, abs=1e-6)
    assert found.law.coherency == pytest.approx(law.coherency, abs=1e-8)
    assert found.relative_error < 1e-6
    assert found.explained == pytest.approx(1.0)


@pytest.mark.parametrize("seed", range(5))
def test_with_noise_they_are_found_within_a_few_of_the_errors_that_it_tells(seed):
    law = Law(200.0, 0.2, 0.003)

    found = fit(points(law, noise=0.03, seed=seed))

    assert abs(found.law.rate - law.rate) < 5 * found.errors.rate
    assert abs(found.law.contention - law.contention) < 5 * found.errors.contention
    assert abs(found.law.coherency - law.coherency) < 5 * found.errors.coherency
    assert 0.005 < found.relative_error < 0.06


def test_no_parameter_is_below_zero():
    rising = [Point(size, 10 * size**1.2) for size in SIZES]

    found = fit(rising).law

    assert found.contention >= 0
    assert found.coherency >= 0


def test_a_parameter_at_its_bound_is_not_known_without_an_error():
    found = fit(points(Law(200.0, 0.3, 0.0), noise=0.05, seed=2))

    assert found.law.coherency == 0.0
    assert found.errors.coherency > 0


def test_a_law_that_its_points_refute_is_doubted():
    law = Law(200.0, 0.2, 0.003)
    assert fit(points(law)).doubts(points(law)) == ""

    scattered = points(law, noise=0.5)
    assert "of the variance" in fit(scattered).doubts(scattered)

    beyond = [*points(law)[:-1], Point(64, law.most * 1.1)]
    assert "were measured" in fit(beyond).doubts(beyond)


def test_the_most_is_at_the_best_size():
    law = Law(100.0, 0.1, 0.01)

    assert law.best_size == pytest.approx(math.sqrt(90))
    assert law.most == law.at(law.best_size) > max(law.at(9), law.at(10)) - 1e-9
    assert Law(100.0, 0.5, 0.0).most == pytest.approx(200.0)


@pytest.mark.parametrize("few", [[], [Point(1, 10.0)] * 5, [Point(size, 0.0) for size in SIZES]])
def test_too_little_was_measured(few):
    with pytest.raises(Unprocessable):
        fit(few)


def test_a_line_is_found_again_with_its_error():
    assert line([(x, 0.1 + 0.02 * x) for x in (1, 2, 5, 9)]) == pytest.approx((0.1, 0.02, 0.0), abs=1e-9)


def test_a_line_neither_starts_below_zero_nor_falls():
    assert line([(1, 0.0), (2, 1.0), (3, 2.0)]).start == 0.0
    assert line([(1, 2.0), (2, 1.0)]).slope > 0


def test_a_line_needs_two_rates():
    with pytest.raises(Unprocessable):
        line([(3, 1.0), (3, 2.0)])
