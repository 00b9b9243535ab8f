"""What a PromQL query names: metrics and labels. Whether it is right otherwise, Prometheus says."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_SELECTOR = re.compile(r"([a-zA-Z_:][\w:]*)\s*\{([^}]*)\}")
_NAME = re.compile(r"[a-zA-Z_:][\w:]*(?!\w|\s*\()")
_WORDS = {"and", "or", "unless", "bool", "offset", "inf", "nan", "start", "end"}


@dataclass(slots=True)
class Names:
    """The metrics that a query selects, with the labels that each is selected by, and the labels that it groups by."""

    metrics: dict[str, set[str]] = field(default_factory=dict)
    grouping: set[str] = field(default_factory=set)


def names_in(query: str) -> Names:
    """The names in a query that can be evaluated."""
    found = Names()
    text = re.sub(r'"(?:\\.|[^"\\])*"', '""', query)
    for labels in _GROUPING.findall(text):
        found.grouping |= set(re.findall(r"\w+", labels))
    text = _GROUPING.sub(" ", text)
    for metric, matchers in _SELECTOR.findall(text):
        found.metrics.setdefault(metric, set()).update(re.findall(r"(\w+)\s*[=!]", matchers))
    text = re.sub(r"\[[^\]]*\]", " ", _SELECTOR.sub(" ", text))
    text = re.sub(r"\b\d[\w.]*", " ", text)
    for metric in _NAME.findall(text):
        if metric not in _WORDS:
            found.metrics.setdefault(metric, set())
    return found
