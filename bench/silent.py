"""A `kgents` without telemetry, to measure what that costs: no metrics, no line for a request, no trace context."""

from __future__ import annotations

import inspect
from contextlib import nullcontext
from typing import Any

from kgents.cli import main
from kgents.telemetry import logs, traces
from kgents.telemetry.metrics import Metrics


def _nothing(*_: object, **__: object) -> None:
    return None


def silence() -> None:
    """Take it all out of this process, and of those that are forked from it. Gauges that are only read when somebody
    asks for the metrics stay.
    """
    for name, _ in inspect.getmembers(Metrics, inspect.isfunction):
        if not name.startswith("_") and name not in ("expose", "watch_admission"):
            setattr(Metrics, name, _nothing)
    quiet: Any = nullcontext(traces.Exchange())
    traces.server_span = lambda *_: quiet
    logs.request = _nothing


if __name__ == "__main__":
    silence()
    main.main()
