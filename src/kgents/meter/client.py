"""A meter that speaks OpenMeter's HTTP API: the embedded one, OpenMeter itself, or Kong Konnect."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import httpx2

from kgents.clock import to_rfc3339
from kgents.errors import KgentsError, Unavailable
from kgents.meter.model import WindowSize, parse_time

BATCH = "application/cloudevents-batch+json"


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
    """One connection pool to a meter. `events_path` is where it takes events."""

    def __init__(self, base_url: str, token: str, *, events_path: str = "/api/v1/events", timeout: float = 5.0) -> None:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._events_path = events_path
        self._client = httpx2.AsyncClient(
            base_url=base_url, headers=headers, timeout=httpx2.Timeout(timeout, connect=2.0), trust_env=False
        )

    async def ingest(self, payload: bytes) -> None:
        """Hand over a JSON array of CloudEvents. Raises MeterUnavailable and MeterRefused; an event that the meter has
        already is no error.
        """
        await self._request("POST", self._events_path, content=payload, headers={"Content-Type": BATCH})

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
        """What a meter counted in [start, end), both full minutes in microseconds. Raises MeterUnavailable and
        MeterRefused.
        """
        params: list[tuple[str, str]] = [("from", to_rfc3339(start)), ("to", to_rfc3339(end))]
        params += [("windowSize", window)] if window else []
        params += [("subject", subject) for subject in subjects]
        params += [("groupBy", name) for name in group_by]
        response = await self._request("GET", f"/api/v1/meters/{meter}/query", params=params)
        return [_row(row) for row in response.json()["data"]]

    async def ping(self) -> float:
        """Milliseconds of a round trip that the meter answered well. Raises MeterUnavailable and MeterRefused."""
        started = perf_counter()
        await self._request("GET", "/api/v1/meters")
        return (perf_counter() - started) * 1000

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _request(self, method: str, path: str, **options: Any) -> httpx2.Response:
        try:
            response = await self._client.request(method, path, **options)
        except httpx2.HTTPError as error:
            raise MeterUnavailable(type(error).__name__) from error
        if response.is_success:
            return response
        if response.status_code in (408, 409, 425, 429) or response.status_code >= 500:
            raise MeterUnavailable(f"it answered {response.status_code}")
        raise MeterRefused(f"The meter refused: it answered {response.status_code}, {_detail(response)}")


def _detail(response: httpx2.Response) -> str:
    try:
        return str(response.json()["detail"])[:500]
    except (ValueError, KeyError, TypeError):
        return "without saying why"


def _row(row: dict[str, Any]) -> Row:
    groups = {name: str(value) for name, value in (row.get("groupBy") or {}).items() if name != "subject"}
    subject = row.get("subject") or (row.get("groupBy") or {}).get("subject")
    return Row(int(row["value"]), parse_time(row["windowStart"]), parse_time(row["windowEnd"]), subject, groups)
