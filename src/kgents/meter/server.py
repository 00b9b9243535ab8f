"""The embedded meter: OpenMeter's HTTP API (https://openmeter.io/docs) over one SQLite file, for one machine."""

from __future__ import annotations

import asyncio
import hmac
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import orjson
import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from kgents.clock import SystemClock, to_rfc3339
from kgents.meter.model import (
    METERS,
    WINDOW_SIZES,
    Invalid,
    Meter,
    WindowSize,
    parse_event,
    parse_time,
    window_end,
    window_start,
)
from kgents.meter.storage import MINUTE, Storage

log = structlog.get_logger(__name__)

MAX_BODY = 8 * 1024 * 1024
SINGLE = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"
DAYS_LISTED = 31


def problem(status: int, detail: str) -> Response:
    """An RFC 9457 problem, as OpenMeter answers errors."""
    title = {400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 413: "Payload Too Large"}.get(
        status, "Service Unavailable"
    )
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    return Response(orjson.dumps(body), status_code=status, media_type="application/problem+json")


class _Token:
    """Refuses requests to /api and /v3 without the token."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._expected = f"Bearer {token}".encode()
        self._open = not token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._open and scope["path"].startswith(("/api/", "/v3/")):
            given = dict(scope["headers"]).get(b"authorization", b"")
            if not hmac.compare_digest(given, self._expected):
                response = problem(401, "Send the meter's token as 'Authorization: Bearer ...'.")
                await response(scope, receive, send)
                return
        await self._app(scope, receive, send)


class _Api:
    """The routes."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._clock = SystemClock()
        self._by_type = {meter.event_type: meter for meter in METERS}
        self._by_slug = {meter.slug: meter for meter in METERS}
        self._started = to_rfc3339(self._clock.now())

    def routes(self) -> list[Route]:
        meter = "/api/v1/meters/{meter}"
        return [
            Route("/api/v1/events", self.ingest, methods=["POST"]),
            Route("/v3/openmeter/events", self.ingest, methods=["POST"]),
            Route("/api/v1/events", self.list_events, methods=["GET"]),
            Route("/api/v1/meters", self.list_meters, methods=["GET"]),
            Route(meter, self.get_meter, methods=["GET"]),
            Route(f"{meter}/query", self.query, methods=["GET", "POST"]),
            Route(f"{meter}/subjects", self.subjects, methods=["GET"]),
            Route("/health", self.live, methods=["GET"]),
            Route("/readyz", self.ready, methods=["GET"]),
        ]

    async def ingest(self, request: Request) -> Response:
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY:
                return problem(413, f"The body is over {MAX_BODY} bytes. Send fewer events at once.")
        media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        now = self._clock.now()
        try:
            value = orjson.loads(body)
            if media_type == BATCH and not isinstance(value, list):
                raise Invalid("a batch must be a JSON array")
            if media_type == SINGLE and isinstance(value, list):
                raise Invalid("a single event must be a JSON object; send arrays as application/cloudevents-batch+json")
            if media_type not in (SINGLE, BATCH, "application/json"):
                raise Invalid(f"Content-Type must be {SINGLE}, {BATCH} or application/json")
            values = value if isinstance(value, list) else [value]
            events = [parse_event(item, self._by_type, now) for item in values]
        except orjson.JSONDecodeError:
            return problem(400, "The body is not valid JSON.")
        except Invalid as error:
            return problem(400, f"{error}.")
        try:
            await self._storage.ingest(events, now)
        except sqlite3.Error as error:
            log.error("events could not be kept", reason=str(error))
            return problem(503, "The events could not be written to disk. Try again.")
        return Response(status_code=204)

    async def list_events(self, request: Request) -> Response:
        params = request.query_params
        now = self._clock.now()
        try:
            start = parse_time(params["from"]) if "from" in params else now - DAYS_LISTED * 86_400_000_000
            end = parse_time(params["to"]) if "to" in params else now + 86_400_000_000
            limit = int(params.get("limit", "100"))
        except ValueError as error:
            return problem(400, f"from, to or limit can't be read: {error}.")
        if not 1 <= limit <= 1000:
            return problem(400, "limit must be 1 to 1000.")
        rows = await self._storage.events(
            start=start, end=end, subject=params.get("subject", ""), id_=params.get("id", ""), limit=limit
        )
        return _json([_ingested(row) for row in rows])

    async def list_meters(self, _request: Request) -> Response:
        return _json([self._show(meter) for meter in METERS])

    async def get_meter(self, request: Request) -> Response:
        meter = self._by_slug.get(request.path_params["meter"])
        return _json(self._show(meter)) if meter else _no_meter(request)

    def _show(self, meter: Meter) -> dict[str, Any]:
        return {
            "id": meter.slug,
            "slug": meter.slug,
            "name": meter.slug,
            "description": meter.description,
            "aggregation": "SUM",
            "eventType": meter.event_type,
            "valueProperty": f"$.{meter.value_property}",
            "groupBy": {name: f"$.{name}" for name in meter.group_by},
            "windowSize": "MINUTE",
            "createdAt": self._started,
            "updatedAt": self._started,
        }

    async def subjects(self, request: Request) -> Response:
        meter = self._by_slug.get(request.path_params["meter"])
        return _json(await self._storage.subjects(meter.event_type)) if meter else _no_meter(request)

    async def query(self, request: Request) -> Response:
        meter = self._by_slug.get(request.path_params["meter"])
        if meter is None:
            return _no_meter(request)
        try:
            asked = await _Query.of(request, meter)
        except Invalid as error:
            return problem(400, f"{error}.")
        rows = await self._storage.sums(
            meter.event_type, start=asked.start, end=asked.end, subjects=asked.subjects, groups=asked.filters
        )
        data = asked.answer(rows)
        if "text/csv" in request.headers.get("accept", ""):
            return Response(_csv(data, asked.group_by), media_type="text/csv")
        return _json(
            {
                "from": to_rfc3339(asked.start) if asked.start is not None else None,
                "to": to_rfc3339(asked.end) if asked.end is not None else None,
                "windowSize": asked.size,
                "data": data,
            }
        )

    async def live(self, _request: Request) -> Response:
        return _json({"status": "ok"})

    async def ready(self, _request: Request) -> Response:
        try:
            await self._storage.ingest([], self._clock.now())
        except sqlite3.Error:
            return problem(503, "The meter's file can't be written to.")
        return _json({"status": "ok"})


class _Query:
    """A meter query."""

    def __init__(self, values: dict[str, list[str]], meter: Meter) -> None:
        self.start = _bound(values, "from")
        self.end = _bound(values, "to")
        if self.start is not None and self.end is not None and self.start >= self.end:
            raise Invalid("from must be before to")
        self.size = _size(values)
        try:
            self.zone = ZoneInfo((values.get("windowTimeZone") or ["UTC"])[0])
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise Invalid("windowTimeZone must be the name of a time zone, such as Europe/Berlin") from error
        self.subjects = values.get("subject", [])
        self.group_by = values.get("groupBy", [])
        for name in self.group_by:
            if name != "subject" and name not in meter.group_by:
                raise Invalid(f"groupBy {name!r} is not one of subject, {', '.join(meter.group_by)}")
        self.filters: dict[str, Sequence[str]] = {}
        for key, chosen in values.items():
            if key.startswith("filterGroupBy["):
                name = key[len("filterGroupBy[") :].rstrip("]")
                if name not in meter.group_by:
                    raise Invalid(f"filterGroupBy {name!r} is not one of {', '.join(meter.group_by)}")
                self.filters[name] = chosen

    @staticmethod
    async def of(request: Request, meter: Meter) -> _Query:
        if request.method == "GET":
            params = request.query_params
            return _Query({key: params.getlist(key) for key in params}, meter)
        try:
            body = orjson.loads(await request.body())
        except orjson.JSONDecodeError as error:
            raise Invalid("the body is not valid JSON") from error
        if not isinstance(body, dict):
            raise Invalid("the body must be a JSON object")
        values = {key: _strings(value) for key, value in body.items() if key != "filterGroupBy"}
        for key, value in (body.get("filterGroupBy") or {}).items():
            values[f"filterGroupBy[{key}]"] = _strings(value)
        return _Query(values, meter)

    def answer(self, rows: list[tuple[str, int, str, str, int]]) -> list[dict[str, Any]]:
        """OpenMeter's rows: one for each window and group that has events."""
        by_subject = bool(self.subjects) or "subject" in self.group_by
        names = [name for name in self.group_by if name != "subject"]
        sums: dict[tuple[Any, ...], int] = {}
        starts: dict[int, int] = {}
        for subject, minute, agent, model, total in rows:
            window = starts.get(minute)
            if window is None:
                window = window_start(minute, self.size, self.zone) if self.size else 0
                starts[minute] = window
            groups = {"agent": agent, "model": model}
            key = (window, subject if by_subject else None, *(groups[name] for name in names))
            sums[key] = sums.get(key, 0) + total
        minutes = [row[1] for row in rows]
        answer = []
        for key in sorted(sums, key=lambda key: tuple(str(part) for part in key)):
            if self.size is None or not isinstance(key[0], int):
                start = self.start if self.start is not None else min(minutes)
                end = self.end if self.end is not None else max(minutes) + MINUTE
            else:
                start, end = key[0], window_end(key[0], self.size, self.zone)
            answer.append(
                {
                    "value": sums[key],
                    "windowStart": to_rfc3339(start),
                    "windowEnd": to_rfc3339(end),
                    "subject": key[1],
                    "groupBy": dict(zip(names, key[2:], strict=True)),
                }
            )
        return answer


def _strings(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(item, str) for item in values):
        raise Invalid("a query's values must be texts")
    return values


def _bound(values: dict[str, list[str]], name: str) -> int | None:
    """A bound of the time range. Events are summed by the minute, so it must be one (OpenMeter asks the same)."""
    if name not in values:
        return None
    try:
        moment = parse_time(values[name][0])
    except (ValueError, OverflowError) as error:
        raise Invalid(f"{name} must be an RFC 3339 time with an offset") from error
    if moment % MINUTE:
        raise Invalid(f"{name} must be a full minute")
    return moment


def _size(values: dict[str, list[str]]) -> WindowSize | None:
    if "windowSize" not in values:
        return None
    for size in WINDOW_SIZES:
        if size == values["windowSize"][0].upper():
            return size
    raise Invalid(f"windowSize must be one of {', '.join(WINDOW_SIZES)}")


def _json(document: Any) -> Response:
    return Response(orjson.dumps(document), media_type="application/json")


def _no_meter(request: Request) -> Response:
    slug = str(request.path_params["meter"])[:64]
    return problem(404, f"There is no meter {slug!r}. GET /api/v1/meters lists them.")


def _ingested(row: tuple[Any, ...]) -> dict[str, Any]:
    source, id_, type_, subject, time, ingested_at, data = row
    return {
        "event": {
            "specversion": "1.0",
            "id": id_,
            "source": source,
            "type": type_,
            "subject": subject,
            "time": to_rfc3339(time),
            "data": orjson.loads(data) if data else None,
        },
        "ingestedAt": to_rfc3339(ingested_at),
        "storedAt": to_rfc3339(ingested_at),
    }


def _csv(data: list[dict[str, Any]], group_by: list[str]) -> str:
    names = [name for name in group_by if name != "subject"]
    lines = [",".join(["window_start", "window_end", "subject", *names, "value"])]
    for row in data:
        cells = [row["windowStart"], row["windowEnd"], row["subject"] or "", *(row["groupBy"][name] for name in names)]
        lines.append(",".join(_cell(str(cell)) for cell in [*cells, row["value"]]))
    return "\r\n".join(lines) + "\r\n"


def _cell(text: str) -> str:
    # A cell that a spreadsheet would read as a formula is told to be text.
    text = "'" + text if text[:1] in ("=", "+", "-", "@") else text
    return '"' + text.replace('"', '""') + '"' if any(mark in text for mark in ',"\r\n') else text


def build_app(storage: Storage, token: str = "") -> ASGIApp:
    """The meter as an ASGI application. With a `token`, its API asks for it."""
    return _Token(Starlette(routes=_Api(storage).routes()), token)


class _Quiet(uvicorn.Server):
    def install_signal_handlers(self) -> None:
        return


async def serve(host: str, port: int, path: Path, token: str = "", ready: Callable[[], None] | None = None) -> None:
    """Serve the meter over the file until cancelled; then finish what was accepted."""
    storage = Storage(path)
    config = uvicorn.Config(
        build_app(storage, token),
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        lifespan="off",
        loop="none",
        timeout_graceful_shutdown=3,
    )
    server = _Quiet(config)
    task = asyncio.create_task(server._serve())
    try:
        while not server.started and not task.done():  # noqa: ASYNC110 - uvicorn tells by an attribute
            await asyncio.sleep(0.005)
        if ready and server.started:
            ready()
        await asyncio.shield(task)
    finally:
        server.should_exit = True
        await asyncio.wait([task], timeout=5)
        storage.close()
