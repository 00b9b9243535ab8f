"""`kgents health`: what every dependency answers just now."""

from __future__ import annotations

import os

import httpx2

from kgents.cli import context as contexts
from kgents.cli.client import Refused, connect
from kgents.cli.output import Format, note, show

COLUMNS = ("component", "status", "mode", "latency_ms", "backlog", "last_ok", "detail")


def run(output: Format, context: str, url: str) -> None:
    """Print the health page; SystemExit(1) unless its status is ok. Raises Refused when there is none."""
    if not (url or context):
        url = os.environ.get("KGENTS_URL", "")
    base = url.rstrip("/") or contexts.current(context).url
    try:
        with connect(base, timeout=10) as client:
            report = client.get("/health/saas").json()
        components = [{"component": name, **facts} for name, facts in report["components"].items()]
        status = report["status"]
    except httpx2.TransportError as error:
        raise Refused(f"No answer from {base} ({error or type(error).__name__}). Start it with: kgents up") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Refused(f"{base} has no health page of a kgents. Check the address: kgents context list") from error
    if output is Format.TABLE:
        show(components, output, COLUMNS)
    else:
        show(report, output)
    if status != "ok":
        wrong = [
            f"{found['component']} is {found['status']}"
            for found in components
            if found["status"] in ("degraded", "disconnected")
        ]
        note(f"kgents: the health is {status}" + (f": {', '.join(wrong)}" if wrong else ""))
        raise SystemExit(1)
