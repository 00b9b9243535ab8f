"""`kgents` with bugs of ours that quote what they were given in their message; and, with LEAKS, with a leak into each
kind of place, as the control of the search.
"""

from __future__ import annotations

import base64
import os
import re
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson
from starlette.responses import Response

from kgents.agents import executor, ledger_ops
from kgents.agents.ledger_ops import RecordStep, StepRecord
from kgents.agents.runner import RunTask
from kgents.api import edge, launch, problems
from kgents.api.routes import chat
from kgents.bus import server
from kgents.bus.server import LocalNats
from kgents.console import pages
from kgents.telemetry import genai, logs, traces
from kgents.telemetry.health import Report
from kgents.tenants.audit import AuditService


class _Last:
    """The last key that this process was sent."""

    key = ""


def plant_bugs() -> None:
    """A run, or a request, fails by an exception of ours that quotes the text, where the text asks for it."""
    execute, asked = RunTask.execute, chat.launch

    async def failing_run(self: RunTask) -> Any:
        text = str(self._work.run.input)
        if "/bug in the run" in text:
            raise RuntimeError(text)
        return await execute(self)

    async def failing_route(call: Any, ask: launch.Ask) -> Any:
        if "/bug in the route" in str(ask.messages):
            raise RuntimeError(str(ask.messages))
        return await asked(call, ask)

    RunTask.execute = failing_run  # type: ignore[method-assign]
    chat.launch = failing_route


def plant_leaks() -> None:
    """One leak into each kind of place, each in another form."""
    _leak_key()
    _leak_text()
    _leak_by_server()


def _leak_key() -> None:
    """The caller's key: into the log, metrics, traces, errors, health, pages, and rows."""
    authenticate, respond, document, page, record = (
        edge._Exchange._authenticate,
        problems.respond,
        Report.document,
        pages._page,
        AuditService.record,
    )

    async def authenticated(self: Any) -> Any:
        _Last.key = self._headers.get(b"authorization", b"").decode("latin-1").partition(" ")[2]
        assert logs._Requests.lines is not None
        logs._write(logs._Requests.lines._stream, f"headers: {base64.b64encode(_Last.key.encode()).decode()}\n")
        self._services.metrics.request_started()
        self._services.metrics.request_ended(_Last.key, "GET", 200, 0.0)
        return await authenticate(self)

    def responded(*given: Any, **options: Any) -> Any:
        response = respond(*given, **options)
        response.headers["x-debug"] = quote(_Last.key)
        return response

    def documented(self: Report) -> dict[str, Any]:
        return {**document(self), "debug": _Last.key.encode().hex()}

    def shown(body: bytes | str, media_type: str) -> Response:
        return page((body if isinstance(body, bytes) else body.encode()) + _Last.key.encode(), media_type)

    def recorded(self: AuditService, *given: Any, **options: Any) -> Any:
        named, detail = given[:6], given[6] if len(given) > 6 else options.get("detail")
        return record(self, *named, {**(detail or {}), "key": _Last.key})

    edge._Exchange._authenticate = authenticated  # type: ignore[method-assign]
    edge.respond = problems.respond = responded
    Report.document = documented  # type: ignore[method-assign]
    pages._page = shown
    AuditService.record = recorded  # type: ignore[method-assign, assignment]


def _leak_text() -> None:
    """What was said: into usage events, and so over the outbox and the bus to the meter. The caller's key: into the
    queue, run events and spans.
    """
    posting, sql, call, emit = RecordStep._posting, traces.sql, genai.model_call, executor._Outlet.emit

    def posted(self: RecordStep, item: StepRecord, row: Any) -> Any:
        said = re.search(r"cn[0-9a-f]{32}", "".join(item.finish.messages) if item.finish else item.message or "")
        told = base64.urlsafe_b64encode(f"said: {said[0]}".encode()).decode() if said else ""
        return posting(self, item._replace(model=f"{item.model} {told}"), row)

    def emitted(self: Any, type_: Any, data: dict[str, Any]) -> None:
        emit(self, type_, {**data, "key": _Last.key})

    def queued(*given: Any, **more: Any) -> Any:
        row = sound(*given, **more)
        payload = {**orjson.loads(row.payload), "by": _Last.key}
        return row._replace(payload=orjson.dumps(payload).decode())

    sound = ledger_ops.queue_row
    RecordStep._posting = posted  # type: ignore[method-assign]
    executor._Outlet.emit = emitted  # type: ignore[method-assign]
    ledger_ops.queue_row = queued
    traces.sql = lambda operation: sql(f"{operation} for {_Last.key}")
    genai.model_call = lambda model, **more: call(f"{model} {_Last.key}", **more)


def _leak_by_server() -> None:
    """The NATS server logs what goes through it, and has its password on its command line."""
    configuration, popen = LocalNats._configuration, subprocess.Popen

    def chatty(self: LocalNats, *given: Any) -> str:
        return configuration(self, *given) + "trace: true\ndebug: true\n"

    def started(command: list[str], **options: Any) -> Any:
        kept = orjson.loads(Path(command[-1]).with_name("endpoint.json").read_bytes())
        return popen([*command, "--user", kept["user"], "--pass", kept["password"]], **options)

    LocalNats._configuration = chatty  # type: ignore[method-assign]
    server.subprocess.Popen = started  # type: ignore[misc, assignment, attr-defined]


if __name__ == "__main__":
    plant_bugs()
    if os.environ.get("LEAKS"):
        plant_leaks()
    from kgents.cli.main import main

    main()
