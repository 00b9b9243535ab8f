"""`kgents health`: what every dependency answers just now."""

from __future__ import annotations

import httpx2

from kgents.cli import context as contexts
from kgents.cli.client import Refused
from kgents.cli.output import Format, show

COLUMNS = ("component", "status", "mode", "latency_ms", "last_ok", "backlog", "detail")


def run(output: Format, context: str, url: str) -> None:
    """Print the health page; SystemExit(1) unless its status is ok."""
    base = url.rstrip("/") or contexts.current(context).url
    try:
        response = httpx2.get(f"{base}/health/saas", timeout=10)
        report = response.json()
    except (httpx2.TransportError, ValueError) as error:
        raise Refused(f"No health page at {base} ({error or type(error).__name__}). Is it up?") from error
    if output is Format.TABLE:
        rows = [{"component": name, **facts} for name, facts in report["components"].items()]
        show(rows, output, COLUMNS)
    else:
        show(report, output)
    if report["status"] != "ok":
        raise SystemExit(1)
