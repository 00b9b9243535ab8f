"""The rules of Prometheus: the same groups as a file, and as an object of the Prometheus operator."""

from __future__ import annotations

from typing import Any

import yaml

from monitoring import alerts, objectives
from monitoring.durations import Times

HEADER = "# Written by `make dashboards` from monitoring/; change it there.\n"


def groups(times: Times | None = None) -> list[dict[str, Any]]:
    """Every group, recordings first. With `times` that shorten, each group is evaluated every second."""
    times = times or Times()
    named = {"kgents-slo": objectives.recordings(times), **alerts.groups(times)}
    interval = {} if times.factor == 1 else {"interval": "1s"}
    return [{"name": name, **interval, "rules": rules} for name, rules in named.items()]


def plain() -> str:
    """The file that Prometheus reads (`rule_files`)."""
    return HEADER + _text({"groups": groups()})


def resource() -> str:
    """The object that the Prometheus operator reads."""
    return HEADER + _text(
        {
            "apiVersion": "monitoring.coreos.com/v1",
            "kind": "PrometheusRule",
            "metadata": {"name": "kgents", "labels": {"app.kubernetes.io/part-of": "kgents"}},
            "spec": {"groups": groups()},
        }
    )


def _text(document: dict[str, Any]) -> str:
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120)
