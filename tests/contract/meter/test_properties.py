"""Whatever the order, the batches and the repetitions, the meter counts what a dictionary counts."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from hypothesis import given, settings
from hypothesis import strategies as st

from kgents.meter.answer import answer, as_json
from kgents.meter.layout import combine
from kgents.meter.model import Meter, parse_event
from kgents.meter.query import from_body
from kgents.meter.storage import Storage

METERS = (
    Meter("sum", "t", aggregation="SUM"),
    Meter("count", "t", aggregation="COUNT", group_by=("model",)),
    Meter("min", "t", aggregation="MIN"),
    Meter("max", "t", aggregation="MAX"),
)
BY_TYPE = {"t": METERS}
# Around a clock change in Berlin, a month's end, and the edges of minutes.
FIRST = datetime(2026, 3, 28, 22, 0, tzinfo=UTC)
LAST = datetime(2026, 4, 1, 1, 0, tzinfo=UTC)
SECONDS = int((LAST - FIRST).total_seconds())


def at(seconds: float) -> str:
    return (FIRST + timedelta(seconds=seconds)).isoformat()


class Made(NamedTuple):
    id: str
    source: str
    subject: str
    seconds: float
    quantity: int
    agent: str
    model: str

    def cloud_event(self) -> dict[str, Any]:
        data = {"quantity": self.quantity, "agent": self.agent, "model": self.model}
        return {"id": self.id, "source": self.source, "type": "t", "subject": self.subject} | {
            "time": at(self.seconds),
            "data": data,
        }


made = st.builds(
    Made,
    id=st.sampled_from("abcdefghij"),
    source=st.sampled_from("xy"),
    subject=st.sampled_from(["ten_1", "ten_2", "Ünï\u200d"]),
    seconds=st.integers(0, SECONDS * 1000).map(lambda number: number / 1000),
    quantity=st.integers(0, 100) | st.integers(0, 2**63 - 1),
    agent=st.sampled_from(["", "a", "b"]),
    model=st.sampled_from(["m", "n"]),
)
batches = st.lists(st.lists(made, max_size=6), max_size=8)
bound = st.none() | st.integers(0, SECONDS)


@st.composite
def queries(draw: st.DrawFn) -> dict[str, Any]:
    body: dict[str, Any] = {
        "windowSize": draw(st.sampled_from([None, "MINUTE", "HOUR", "DAY", "MONTH"])),
        "windowTimeZone": draw(st.sampled_from(["UTC", "Europe/Berlin", "Asia/Kolkata"])),
        "groupBy": draw(st.lists(st.sampled_from(["subject", "model"]), unique=True)),
        "subject": draw(st.none() | st.lists(st.sampled_from(["ten_1", "ten_2", "nobody"]), min_size=1)),
        "filterGroupBy": draw(st.none() | st.just({"model": ["m"]})),
    }
    start, end = draw(bound), draw(bound)
    if start is None or end is None or start < end:
        body |= {"from": None if start is None else at(start), "to": None if end is None else at(end)}
    return body


def window_of(moment: datetime, size: str | None, zone: ZoneInfo) -> datetime | None:
    local = moment.astimezone(zone)
    if size is None:
        return None
    if size == "MINUTE":
        return moment.replace(second=0, microsecond=0)
    if size == "HOUR":
        return moment - timedelta(minutes=local.minute, seconds=local.second, microseconds=local.microsecond)
    midnight = local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    return (midnight if size == "DAY" else midnight.replace(day=1)).astimezone(UTC)


def reference(meter: Meter, events: Sequence[Made], body: dict[str, Any]) -> dict[tuple[Any, ...], int]:
    """The answer by brute force over the events that count, by window start, subject and model."""
    counted: dict[tuple[Any, ...], int] = {}
    start, end = (datetime.fromisoformat(body[name]) if body.get(name) else None for name in ("from", "to"))
    for event in events:
        moment = FIRST + timedelta(seconds=event.seconds)
        if (start and moment < start) or (end and moment >= end):
            continue
        if body["subject"] and event.subject not in body["subject"]:
            continue
        if body["filterGroupBy"] and event.model != "m":
            continue
        key = (
            window_of(moment, body["windowSize"], ZoneInfo(body["windowTimeZone"])),
            event.subject if body["subject"] or "subject" in body["groupBy"] else None,
            event.model if "model" in body["groupBy"] else None,
        )
        value = 1 if meter.aggregation == "COUNT" else event.quantity
        counted[key] = combine(meter, counted[key], value) if key in counted else value
    return counted


async def with_storage(check: Callable[[Storage], Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        storage = Storage(Path(folder) / "meter.db", METERS, now=0)
        try:
            await check(storage)
        finally:
            storage.close()


async def ingest(storage: Storage, batches: Sequence[Sequence[Made]], *, together: bool) -> None:
    parsed = [[parse_event(event.cloud_event(), BY_TYPE, 0) for event in batch] for batch in batches]
    if together:
        await asyncio.gather(*[storage.ingest(events, 0) for events in parsed])
        return
    for events in parsed:
        await storage.ingest(events, 0)


async def answers(storage: Storage, meter: Meter, body: dict[str, Any]) -> dict[tuple[Any, ...], int]:
    query = from_body(body, meter)
    document = json.loads(await storage.read(lambda connection: as_json(query, answer(connection, meter, query))))
    found = {
        (
            datetime.fromisoformat(row["windowStart"]) if body["windowSize"] else None,
            row["subject"],
            row["groupBy"].get("model"),
        ): row["value"]
        for row in document["data"]
    }
    assert len(found) == len(document["data"])
    return found


@given(batches=batches, body=queries(), together=st.booleans())
@settings(max_examples=150)
def test_every_aggregation_and_query_equals_the_reference(
    batches: list[list[Made]], body: dict[str, Any], together: bool
) -> None:
    first: dict[tuple[str, str], Made] = {}
    for event in (event for batch in batches for event in batch):
        first.setdefault((event.source, event.id), event)

    async def check(storage: Storage) -> None:
        await ingest(storage, batches, together=together)
        for meter in METERS:
            assert await answers(storage, meter, body) == reference(meter, list(first.values()), body)

    asyncio.run(with_storage(check))


@given(data=st.data(), batch=st.lists(made, unique_by=lambda event: (event.source, event.id), min_size=1))
@settings(max_examples=50)
def test_any_delivery_of_the_same_events_gives_the_same_totals(data: st.DataObject, batch: list[Made]) -> None:
    repeated = batch + data.draw(st.lists(st.sampled_from(batch), max_size=30))
    order = data.draw(st.permutations(repeated))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(order)), max_size=5)))
    parts = [order[start:end] for start, end in zip([0, *cuts], [*cuts, len(order)], strict=True)]
    totals: dict[str, int] = defaultdict(int)
    for event in batch:
        totals[event.subject] += event.quantity
    body = {"windowSize": None, "windowTimeZone": "UTC", "groupBy": ["subject"]}

    async def check(storage: Storage) -> None:
        await ingest(storage, parts, together=data.draw(st.booleans()))
        found = await answers(storage, METERS[0], body)
        assert {subject: value for (_, subject, _), value in found.items()} == totals

    asyncio.run(with_storage(check))
