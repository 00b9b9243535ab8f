"""The Universal Scalability Law: throughput at N requests at once, X(N) = rN / (1 + s(N - 1) + kN(N - 1)).

r is the rate of one at a time, s the contention (the share of the work that has to queue), k the coherency (what each
costs every other). Source: N. J. Gunther, A General Theory of Computational Scalability Based on Rational Functions
(2008), https://arxiv.org/abs/0808.1431.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from kgents.errors import Unprocessable

LEAST_EXPLAINED = 0.9  # of the variance, by a law that is taken for one
LEAST_SIZES = 4  # of different sizes, for three parameters and an error


class Point(NamedTuple):
    """What was measured: requests a second with so many at once."""

    size: int
    rate: float


@dataclass(frozen=True, slots=True)
class Law:
    """The parameters, r in 1/s."""

    rate: float
    contention: float
    coherency: float

    def at(self, size: float) -> float:
        """Requests a second with so many at once."""
        return self.rate * size / (1 + self.contention * (size - 1) + self.coherency * size * (size - 1))

    @property
    def best_size(self) -> float:
        """The number at once from which more give less; infinite without coherency's cost."""
        if self.coherency <= 0:
            return math.inf
        return max(1.0, math.sqrt(max(0.0, 1 - self.contention) / self.coherency))

    @property
    def best(self) -> str:
        """The best size in words."""
        return f"with {self.best_size:.0f} at once" if math.isfinite(self.best_size) else "with many at once"

    @property
    def most(self) -> float:
        """The most requests a second that the law allows for."""
        if math.isfinite(self.best_size):
            return self.at(self.best_size)
        return self.rate / self.contention if self.contention > 0 else math.inf


@dataclass(frozen=True, slots=True)
class Fit:
    """A law that was fitted; the standard errors of its parameters; and how far it is from the
    points: the root mean square of the relative differences, and the share of the variance that it explains.
    """

    law: Law
    errors: Law
    relative_error: float
    explained: float

    def doubts(self, points: Sequence[Point]) -> str:
        """What speaks against the law as a description of these points; empty where nothing does."""
        found, most = [], max(point.rate for point in points)
        if self.explained < LEAST_EXPLAINED:
            found.append(f"it explains {self.explained:.0%} of the variance, {self.relative_error:.0%} off the points")
        if self.law.most < most:
            found.append(f"it has {self.law.most:.0f} requests/s at most, and {most:.0f} were measured")
        return "; ".join(found)

    def document(self) -> dict[str, Any]:
        """As JSON; rounded to what the errors allow for."""

        def rounded(law: Law) -> dict[str, float]:
            return {name: float(f"{value:.4g}") for name, value in asdict(law).items()}

        return {
            "law": rounded(self.law),
            "errors": rounded(self.errors),
            "relative_error": round(self.relative_error, 4),
            "explained": round(self.explained, 4),
        }


def fit(points: Sequence[Point]) -> Fit:
    """The law that fits best, by least squares of the relative differences of N/X(N), with no parameter below zero.

    Raises Unprocessable for points of less than four sizes, and without numpy.
    """
    sizes = {point.size for point in points}
    if len(sizes) < LEAST_SIZES or any(point.rate <= 0 for point in points):
        raise Unprocessable(
            f"A law of three parameters needs measurements at {LEAST_SIZES} sizes at least, each with answers; there "
            f"are {len(sizes)}.",
            code="capacity",
        )
    law, errors = _law(points)
    mean = sum(point.rate for point in points) / len(points)
    spread = sum((point.rate - mean) ** 2 for point in points)
    left = sum((point.rate - law.at(point.size)) ** 2 for point in points)
    relative = math.sqrt(sum((law.at(point.size) / point.rate - 1) ** 2 for point in points) / len(points))
    return Fit(law, errors, relative, 1 - left / spread if spread else 0.0)


def _law(points: Sequence[Point]) -> tuple[Law, Law]:
    try:
        import numpy as np
    except ImportError:
        raise Unprocessable(
            "The fit needs numpy. Install it with: pip install 'kgents[plots]'", code="no-numpy"
        ) from None
    # N/X(N) is linear in 1/r, s/r and k/r. Each row is divided by its own value, so that its difference is relative.
    rows = np.array([[1.0, point.size - 1.0, point.size * (point.size - 1.0)] for point in points])
    rows *= np.array([[point.rate / point.size] for point in points])
    best, least = np.zeros(3), math.inf
    for chosen in ([0, *more] for count in (2, 1, 0) for more in itertools.combinations((1, 2), count)):
        found = np.linalg.lstsq(rows[:, chosen], np.ones(len(rows)), rcond=None)[0]
        if (found < 0).any() or found[0] <= 0:
            continue
        left = float(((rows[:, chosen] @ found - 1) ** 2).sum())
        if left < least:
            best, least = np.zeros(3), left
            best[chosen] = found
    one, *others = (float(value) for value in best)
    # Of all three, also where one is at its bound of zero: that it was not seen does not mean that it is known.
    covariance = np.linalg.inv(rows.T @ rows) * least / (len(rows) - 3)
    # How r, s and k change with what was fitted, to the first order.
    slopes = np.array([[-1 / one**2, 0, 0], [-others[0] / one**2, 1 / one, 0], [-others[1] / one**2, 0, 1 / one]])
    errors = np.sqrt(np.diag(slopes @ covariance @ slopes.T))
    return Law(1 / one, others[0] / one, others[1] / one), Law(*(float(value) for value in errors))


class Line(NamedTuple):
    """y = start + slope * x, with the slope's standard error."""

    start: float
    slope: float
    error: float


def line(points: Sequence[tuple[float, float]]) -> Line:
    """The line of least squares that starts at zero or above and does not fall; where none is, the one through zero.

    Raises Unprocessable for less than two different x.
    """
    count = len(points)
    mean_x, mean_y = (sum(values) / count for values in zip(*points, strict=True)) if points else (0.0, 0.0)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    if not spread:
        raise Unprocessable("A line needs measurements at two rates at least.", code="capacity")
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread
    start = mean_y - slope * mean_x
    if start < 0 or slope < 0:
        start, slope = 0.0, sum(x * y for x, y in points) / sum(x * x for x, _ in points)
    left = sum((y - start - slope * x) ** 2 for x, y in points)
    return Line(start, slope, math.sqrt(left / max(1, count - 2) / spread))
