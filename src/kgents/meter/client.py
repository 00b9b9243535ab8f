"""A meter that speaks OpenMeter's HTTP API: the embedded one, OpenMeter itself, or Kong Konnect."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import httpx2

from kgents.clock import from_rfc3339, to_rfc3339
from kgents.errors import KgentsError, Unavailable, Unprocessable
from kgents.meter.model import WindowSize
from kgents.tls import trusted

BATCH = "application/cloudevents-batch+json"
QUERY_TIMEOUT = 60.0  # seconds: adding up a month takes longer than taking in a batch
# Statuses that blame what was sent. Any other, such as 401 or 404, is the fault of how the meter is set up or of the
# meter itself: events that met it are not to be given up.
_REFUSES_EVENTS = (400, 413, 422)
_REFUSES_QUERY = (400, 404, 413, 414, 422)


class MeterUnavailable(Unavailable):
    """The meter can't take or tell anything now; trying again may help."""

    code = "meter-unavailable"

    def __init__(self, why: str) -> None:
        super().__init__(f"The meter does not answer as it should: {why}. Usage is kept and sent later.")


class MeterRefused(KgentsError):
    """The meter will not take this, however often it is sent."""

    code = "meter-refused"


@dataclass(frozen=True, slots=True)
class Row:
    """What the meter counted in a window (from `start` to `end`, microseconds) for a subject and groups."""

    value: int
    start: int
    end: int
    subject: str | None
    groups: dict[str, str]


class MeterClient:
    """One connection pool to a meter. `events_path` is where it takes events; `timeout` is in seconds."""

    def __init__(self, base_url: str, token: str, *, events_path: str = "/api/v1/events", timeout: float = 5.0) -> None:
        """Raises Unprocessable for a URL or a token that can't be used, and as `trusted`."""
        self._events_path = events_path
        self._query_timeout = httpx2.Timeout(max(timeout, QUERY_TIMEOUT), connect=2.0)
        try:
            url = httpx2.URL(base_url)
            if url.scheme not in ("http", "https") or not url.host or not 0 < (url.port or 443) < 65_536:
                raise httpx2.InvalidURL("not an HTTP URL")
            self._client = httpx2.AsyncClient(
                base_url=url,
                headers={"Authorization": f"Bearer {token}"} if token else {},
                timeout=httpx2.Timeout(timeout, connect=2.0),
                trust_env=False,
                verify=trusted(),
            )
        except (httpx2.InvalidURL, ValueError):
            raise Unprocessable(
                "KGENTS_METER_URL or KGENTS_METER_TOKEN can't be used: the first must be a URL such as "
                "https://openmeter.cloud, the second must have ASCII characters only.",
                code="setting",
            ) from None

    async def ingest(self, payload: bytes) -> None:
        """Hand over a JSON array of CloudEvents. An event that the meter has already is no error.

        Raises MeterRefused where the meter finds fault with the events, and MeterUnavailable for everything else.
        """
        await self._request(
            "POST", self._events_path, _REFUSES_EVENTS, content=payload, headers={"Content-Type": BATCH}
        )

    async def query(
        self,
        meter: str,
        *,
        start: int,
        end: int,
        window: WindowSize | None = None,
        subjects: Sequence[str] = (),
        group_by: Sequence[str] = (),
    ) -> list[Row]:
        """What a meter counted in [start, end), whole seconds in microseconds. Raises MeterUnavailable and
        MeterRefused.
        """
        params: list[tuple[str, str]] = [("from", to_rfc3339(start)), ("to", to_rfc3339(end))]
        params += [("windowSize", window)] if window else []
        params += [("subject", subject) for subject in subjects]
        params += [("groupBy", name) for name in group_by]
        response = await self._request(
            "GET", f"/api/v1/meters/{meter}/query", _REFUSES_QUERY, params=params, timeout=self._query_timeout
        )
        try:
            return [_row(row) for row in response.json()["data"]]
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise MeterUnavailable("its answer to a query is not one of OpenMeter's") from error

    async def ping(self) -> float:
        """Milliseconds of a round trip that the meter answered well. Raises MeterUnavailable."""
        started = perf_counter()
        await self._request("GET", "/api/v1/meters", ())
        return (perf_counter() - started) * 1000

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _request(self, method: str, path: str, refusals: Container[int], **options: Any) -> httpx2.Response:
        try:
            response = await self._sent(method, path, **options)
        except httpx2.HTTPError as error:
            raise MeterUnavailable(type(error).__name__) from error
        if response.is_success:
            return response
        said = f"it answered {response.status_code}, {_detail(response)}"
        if response.status_code in refusals:
            raise MeterRefused(f"The meter refused: {said}")
        raise MeterUnavailable(said)

    async def _sent(self, method: str, path: str, **options: Any) -> httpx2.Response:
        """Send once, or twice where the connection ends without an answer. A server may close an idle one just as it is
        used again (RFC 9112, section 9.3.1), which says nothing of its health; and nothing is counted twice.
        """
        try:
            return await self._client.request(method, path, **options)
        except (httpx2.ReadError, httpx2.WriteError, httpx2.RemoteProtocolError):
            return await self._client.request(method, path, **options)


def _detail(response: httpx2.Response) -> str:
    try:
        return str(response.json()["detail"])[:500].rstrip(".")
    except (ValueError, KeyError, TypeError):
        return "without saying why"


def _row(row: dict[str, Any]) -> Row:
    value = row["value"]
    if value != int(value):
        raise ValueError("a value is not a whole number")
    groups = {name: value or "" for name, value in (row.get("groupBy") or {}).items() if name != "subject"}
    subject = row.get("subject") or (row.get("groupBy") or {}).get("subject")
    return Row(int(value), from_rfc3339(row["windowStart"]), from_rfc3339(row["windowEnd"]), subject, groups)
