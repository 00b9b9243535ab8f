"""CVSS 3.0 and 3.1 base scores, by the formulas of their specification (https://www.first.org/cvss/v3.1/specification-document)."""

from __future__ import annotations

import math

from kgents.scan.model import Severity

_WEIGHTS = {
    "AV": {"N": 0.85, "A": 0.62, "L": 0.55, "P": 0.2},
    "AC": {"L": 0.77, "H": 0.44},
    "UI": {"N": 0.85, "R": 0.62},
    "C": {"H": 0.56, "L": 0.22, "N": 0.0},
    "I": {"H": 0.56, "L": 0.22, "N": 0.0},
    "A": {"H": 0.56, "L": 0.22, "N": 0.0},
}
_PRIVILEGES = {"U": {"N": 0.85, "L": 0.62, "H": 0.27}, "C": {"N": 0.85, "L": 0.68, "H": 0.5}}


def base_score(vector: str) -> float:
    """The base score, 0.0 to 10.0, of a vector: `CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H`. Raises ValueError."""
    version, *parts = vector.split("/")
    if version not in ("CVSS:3.0", "CVSS:3.1"):
        raise ValueError(f"{vector} is no CVSS 3 vector")
    try:
        metrics = dict(part.split(":") for part in parts)
        weight = {name: weights[metrics[name]] for name, weights in _WEIGHTS.items()}
        scope = metrics["S"]
        privileges = _PRIVILEGES[scope][metrics["PR"]]
    except (KeyError, ValueError):
        raise ValueError(f"{vector} is no complete CVSS 3 vector") from None
    changed = scope == "C"
    base = 1 - (1 - weight["C"]) * (1 - weight["I"]) * (1 - weight["A"])
    impact = 7.52 * (base - 0.029) - 3.25 * (base - 0.02) ** 15 if changed else 6.42 * base
    if impact <= 0:
        return 0.0
    ease = 8.22 * weight["AV"] * weight["AC"] * privileges * weight["UI"]
    return _round_up(min(10.0, (1.08 if changed else 1.0) * (impact + ease)))


def severity(vector: str) -> Severity:
    """The score's rating; what is rated `none` counts as low. Raises ValueError."""
    score = base_score(vector)
    if score >= 9.0:
        return Severity.CRITICAL
    if score >= 7.0:
        return Severity.HIGH
    return Severity.MEDIUM if score >= 4.0 else Severity.LOW


def _round_up(value: float) -> float:
    """To one decimal, upwards, without the errors of binary fractions: appendix A of CVSS 3.1."""
    whole = round(value * 100_000)
    return whole / 100_000 if whole % 10_000 == 0 else (math.floor(whole / 10_000) + 1) / 10
