"""The routes of the embedded meter: OpenMeter's HTTP API, as its OpenAPI document of 2026 has it."""

from __future__ import annotations

from typing import Any

import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from kgents.clock import Clock, from_rfc3339
from kgents.errors import InvalidRequest, NotFound, TooLarge
from kgents.meter import answer, events, query
from kgents.meter.answer import rfc3339
from kgents.meter.model import MAX_TIME, MIN_TIME, Invalid, Meter, parse_event
from kgents.meter.storage import Storage

MAX_BODY = 8 * 1024 * 1024  # bytes; what one message on the bus may hold
SINGLE = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"
JSON = "application/json"


class Api:
    """The routes over one storage. They raise KgentsErrors and Invalid, which the application turns into problems."""

    def __init__(self, storage: Storage, clock: Clock) -> None:
        self._storage = storage
        self._clock = clock
        self._by_slug = {meter.slug: meter for meter in storage.meters}
        self._by_type: dict[str, list[Meter]] = {}
        for meter in storage.meters:
            self._by_type.setdefault(meter.event_type, []).append(meter)

    def routes(self) -> list[Route]:
        """The routes, of which /health and /readyz need no token."""
        meter = "/api/v1/meters/{meter}"
        return [
            Route("/api/v1/events", self.ingest, methods=["POST"]),
            Route("/v3/openmeter/events", self.ingest_as_konnect, methods=["POST"]),
            Route("/api/v1/events", self.list_events, methods=["GET"]),
            Route("/api/v1/meters", self.list_meters, methods=["GET"]),
            Route(meter, self.get_meter, methods=["GET"]),
            Route(f"{meter}/query", self.query, methods=["GET", "POST"]),
            Route(f"{meter}/subjects", self.subjects, methods=["GET"]),
            Route("/health", self.live, methods=["GET"]),
            Route("/readyz", self.ready, methods=["GET"]),
        ]

    async def ingest(self, request: Request) -> Response:
        """Keep one event or a batch; 204 once they are on disk."""
        await self._ingest(request)
        return Response(status_code=204)

    async def ingest_as_konnect(self, request: Request) -> Response:
        """As `ingest`, at Kong Konnect's path and with its status."""
        await self._ingest(request)
        return Response(status_code=202)

    async def _ingest(self, request: Request) -> None:
        media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type not in (SINGLE, BATCH, JSON):
            raise Invalid(f"Content-Type must be {SINGLE}, {BATCH} or {JSON}")
        value = _parse(await _body(request))
        if media_type == BATCH and not isinstance(value, list):
            raise Invalid("a batch must be a JSON array")
        if media_type == SINGLE and isinstance(value, list):
            raise Invalid(f"a single event must be a JSON object; send arrays as {BATCH}")
        now = self._clock.now()
        found = []
        for place, item in enumerate(value if isinstance(value, list) else [value]):
            try:
                found.append(parse_event(item, self._by_type, now))
            except Invalid as error:
                raise Invalid(f"event {place}: {error}" if isinstance(value, list) else str(error)) from None
        await self._storage.ingest(found, now)

    async def list_events(self, request: Request) -> Response:
        """The latest events, newest first."""
        wanted = events.from_params(request.query_params.multi_items(), self._clock.now())
        return _json(await self._storage.read(lambda connection: events.listing(connection, wanted)))

    async def list_meters(self, _request: Request) -> Response:
        """The meters. Whoever asks whether the meter works asks this, so it fails where events can't be kept."""
        await self._storage.check_if_failing()
        return _json(orjson.dumps([self._show(meter) for meter in self._storage.meters]))

    async def get_meter(self, request: Request) -> Response:
        """One meter."""
        return _json(orjson.dumps(self._show(self._meter(request))))

    async def query(self, request: Request) -> Response:
        """What a meter counted, as JSON or, if that is what is accepted, as CSV."""
        meter = self._meter(request)
        if request.method == "POST":
            asked = query.from_body(_parse(await _body(request) or b"{}"), meter)
        else:
            asked = query.from_params(request.query_params.multi_items(), meter)
        accept = request.headers.get("accept", "")
        csv = "text/csv" in accept and JSON not in accept
        write = answer.as_csv if csv else answer.as_json
        body = await self._storage.read(lambda connection: write(asked, answer.answer(connection, meter, asked)))
        if not csv:
            return _json(body)
        name = {"Content-Disposition": f'attachment; filename="{meter.slug}.csv"'}
        return Response(body, media_type="text/csv", headers=name)

    async def subjects(self, request: Request) -> Response:
        """The subjects that a meter has counted."""
        meter = self._meter(request)
        bounds = [MIN_TIME, MAX_TIME]
        for place, name in enumerate(("from", "to")):
            if name in request.query_params:
                try:
                    bounds[place] = min(max(from_rfc3339(request.query_params[name]), MIN_TIME), MAX_TIME)
                except ValueError as error:
                    raise Invalid(f"{name} can't be read: {error}") from None
        found = await self._storage.read(lambda connection: answer.subjects(connection, meter, *bounds))
        return _json(orjson.dumps(found))

    async def live(self, _request: Request) -> Response:
        """Whether the process answers."""
        return _json(b'{"status":"ok"}')

    async def ready(self, _request: Request) -> Response:
        """Whether events can be kept: something is written to the disk to know it."""
        await self._storage.check()
        return _json(b'{"status":"ok"}')

    def _meter(self, request: Request) -> Meter:
        slug = str(request.path_params["meter"])
        meter = self._by_slug.get(slug)
        if meter is None:
            raise NotFound(f"There is no meter {slug[:64]!r}. GET /api/v1/meters lists them.")
        return meter

    def _show(self, meter: Meter) -> dict[str, Any]:
        created_at, updated_at = self._storage.ages[meter.slug]
        shown = {
            "id": meter.slug,
            "slug": meter.slug,
            "name": meter.slug,
            "description": meter.description,
            "aggregation": meter.aggregation,
            "eventType": meter.event_type,
            "valueProperty": f"$.{meter.value_property}",
            "groupBy": {name: f"$.{name}" for name in meter.group_by},
            "createdAt": rfc3339(created_at),
            "updatedAt": rfc3339(updated_at),
        }
        if meter.aggregation == "COUNT":
            del shown["valueProperty"]
        return shown


async def _body(request: Request) -> bytes:
    """The request's body, refused before it is read where its length is known. Raises TooLarge."""
    too_large = TooLarge(f"The body is over {MAX_BODY} bytes. Send fewer events at once.")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length[:20]) > MAX_BODY:
        raise too_large
    chunks, size = [], 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > MAX_BODY:
                raise too_large
            chunks.append(chunk)
    except ClientDisconnect:
        raise InvalidRequest("The body ended early.") from None
    return b"".join(chunks)


def _parse(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Invalid(f"the body is not valid JSON ({str(error)[:100]})") from None


def _json(body: bytes) -> Response:
    return Response(body, media_type=JSON)
