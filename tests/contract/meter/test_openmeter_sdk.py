"""The official `openmeter` SDK, unmodified, against the embedded meter of a running kgents."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx2
import pytest
from corehttp.exceptions import HttpResponseError
from openmeter import Client
from openmeter.models import MeterQueryRequest

from tests.support.up import Up

NOON = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A kgents of these tests alone: they put events into its meter that its ledger does not have."""
    running = Up(tmp_path_factory.mktemp("up")).start()
    yield running
    running.stop()


def meter_token(up: Up) -> str:
    return str(json.loads((up.data / "connections.json").read_text())["meter_token"])


@pytest.fixture
def client(up: Up) -> Iterator[Client]:
    with Client(endpoint=up.facts["meter_url"], token=meter_token(up), retry_total=0) as client:
        yield client


@pytest.fixture
def http(up: Up) -> Iterator[httpx2.Client]:
    headers = {"Authorization": f"Bearer {meter_token(up)}"}
    with httpx2.Client(base_url=up.facts["meter_url"], headers=headers, trust_env=False) as client:
        yield client


@pytest.fixture
def subject() -> str:
    return f"ten_{uuid4().hex}"


def event(subject: str, quantity: int, at: datetime = NOON, **data: Any) -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "id": uuid4().hex,
        "source": "test",
        "type": "kgents.input_tokens",
        "subject": subject,
        "time": at.isoformat(),
        "data": {"quantity": quantity, "agent": "agt_1", "model": "m", **data},
    }


def values(answer: Any) -> list[tuple[int, str]]:
    return [(int(row["value"]), str(row["windowStart"])[:16]) for row in answer["data"]]


def test_the_sdk_lists_the_meters(client: Client) -> None:
    slugs = {meter["slug"] for meter in client.meters.list()}
    assert slugs == {"runs", "input_tokens", "output_tokens", "tool_calls"}


def test_the_sdk_sends_one_event_and_queries_it(client: Client, subject: str) -> None:
    client.events.ingest_event(event(subject, 41))
    answer = client.meters.query_json("input_tokens", subject=[subject])
    assert [row["value"] for row in answer["data"]] == [41]


def test_the_sdk_sends_a_batch(client: Client, subject: str) -> None:
    client.events.ingest_events([event(subject, number) for number in (1, 2, 3)])
    answer = client.meters.query_json("input_tokens", subject=[subject])
    assert [row["value"] for row in answer["data"]] == [6]


def test_the_same_id_and_source_count_once_in_a_batch_across_batches_and_at_once(client: Client, subject: str) -> None:
    once = event(subject, 5)
    client.events.ingest_events([once, once])
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: client.events.ingest_event(once), range(16)))
    answer = client.meters.query_json("input_tokens", subject=[subject])
    assert [row["value"] for row in answer["data"]] == [5]


def test_windows_groups_and_time_ranges(client: Client, subject: str) -> None:
    client.events.ingest_events(
        [
            event(subject, 1, NOON),
            event(subject, 2, NOON + timedelta(minutes=59), model="n"),
            event(subject, 4, NOON + timedelta(hours=1)),
            event(subject, 8, NOON + timedelta(days=1)),
        ]
    )
    hours = client.meters.query_json("input_tokens", subject=[subject], window_size="HOUR")
    assert values(hours) == [(3, "2026-03-10T12:00"), (4, "2026-03-10T13:00"), (8, "2026-03-11T12:00")]
    days = client.meters.query_json("input_tokens", subject=[subject], window_size="DAY")
    assert values(days) == [(7, "2026-03-10T00:00"), (8, "2026-03-11T00:00")]
    ranged = client.meters.query_json(
        "input_tokens", subject=[subject], from_parameter=NOON, to=NOON + timedelta(hours=1)
    )
    assert [row["value"] for row in ranged["data"]] == [3]
    grouped = client.meters.query_json("input_tokens", subject=[subject], group_by=["model"])
    assert {row["groupBy"]["model"]: int(row["value"]) for row in grouped["data"]} == {"m": 13, "n": 2}


def test_the_sdk_filters_by_groups(client: Client, subject: str) -> None:
    # As plain dictionaries: b236 can't send its own FilterString in a URL.
    client.events.ingest_events([event(subject, 1), event(subject, 2, model="n"), event(subject, 4, model="o")])
    chosen = client.meters.query_json(
        "input_tokens",
        subject=[subject],
        advanced_meter_group_by_filters={"model": {"$in": ["m", "o"]}},
    )
    assert [row["value"] for row in chosen["data"]] == [5]


def test_the_sdks_broken_simple_filter_is_refused_and_not_ignored(client: Client, subject: str) -> None:
    # b236 sends filter_group_by as the text of a Python dictionary; OpenMeter documents filterGroupBy[model]=m.
    with pytest.raises(HttpResponseError, match="filterGroupBy"):
        client.meters.query_json("input_tokens", subject=[subject], filter_group_by={"model": "m"})


def test_the_sdk_posts_a_query(client: Client, subject: str) -> None:
    client.events.ingest_events([event(subject, 1), event(subject, 2, model="n")])
    request = MeterQueryRequest(subject=[subject], window_size="DAY", filter_group_by={"model": ["n"]})
    assert values(client.meters.query("input_tokens", request)) == [(2, "2026-03-10T00:00")]


def test_the_sdk_gets_a_meter_its_subjects_and_its_csv(client: Client, subject: str) -> None:
    client.events.ingest_event(event(subject, 3))
    assert client.meters.get("input_tokens")["eventType"] == "kgents.input_tokens"
    assert subject in client.meters.list_subjects("input_tokens")
    assert f"{subject},3" in client.meters.query_csv("input_tokens", subject=[subject])


def test_the_sdk_lists_events(client: Client, subject: str) -> None:
    sent = event(subject, 3)
    client.events.ingest_event(sent)
    (listed,) = client.events.list(subject=subject, id=sent["id"], from_parameter=NOON, limit=5)
    assert (listed["event"]["id"], listed["event"]["data"]) == (sent["id"], sent["data"])


def test_days_begin_at_the_zones_midnight_also_when_the_clock_changes(client: Client, subject: str) -> None:
    # In Berlin the clock went forward on 2026-03-29, so that day has 23 hours: 23:00Z before to 22:00Z.
    last_of_the_day = datetime(2026, 3, 29, 21, 59, tzinfo=UTC)
    client.events.ingest_events(
        [event(subject, 1, last_of_the_day), event(subject, 2, last_of_the_day + timedelta(minutes=1))]
    )
    days = client.meters.query_json(
        "input_tokens", subject=[subject], window_size="DAY", window_time_zone="Europe/Berlin"
    )
    assert values(days) == [(1, "2026-03-28T23:00"), (2, "2026-03-29T22:00")]


def test_a_bad_event_is_refused_with_its_reason(client: Client, subject: str) -> None:
    with pytest.raises(HttpResponseError, match="quantity"):
        client.events.ingest_event(event(subject, -1))


def test_what_kgents_sends_is_what_the_sdk_would_send(http: httpx2.Client, up: Up) -> None:
    with up.client() as caller:
        body = {"model": "echo", "messages": [{"role": "user", "content": "metered"}]}
        run = caller.post("/v1/chat/completions", json=body).raise_for_status().headers["x-run-id"]
        tenant = caller.get("/v1/tenant").json()["id"]
    up.settled()
    sent = http.get("/api/v1/events", params={"id": f"{run}:0:output_tokens"}).raise_for_status().json()
    assert len(sent) == 1
    assert sent[0]["event"]["subject"] == tenant
    assert sent[0]["event"]["type"] == "kgents.output_tokens"
    assert sent[0]["event"]["data"]["quantity"] > 0


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"{", "application/cloudevents+json"),
        (b"[1]", "application/cloudevents-batch+json"),
        (b"\xff\xfe", "application/json"),
        (b'{"id": "\\u0000"}', "application/cloudevents+json"),
        (b"[" * 100_000, "application/json"),
        (b"{}", "text/plain"),
    ],
)
def test_malformed_input_is_a_problem_not_a_failure(http: httpx2.Client, body: bytes, content_type: str) -> None:
    answer = http.post("/api/v1/events", content=body, headers={"Content-Type": content_type})
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"]


@pytest.mark.parametrize(
    "query",
    ["windowSize=YEAR", "windowTimeZone=Nowhere", "groupBy=secret", "from=yesterday", "to=2026-01-01"],
)
def test_a_query_that_can_not_be_answered_says_why(http: httpx2.Client, query: str) -> None:
    answer = http.get(f"/api/v1/meters/input_tokens/query?{query}")
    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json")


def test_without_the_token_nothing_is_told(up: Up) -> None:
    assert httpx2.get(f"{up.facts['meter_url']}/api/v1/meters").status_code == 401


def test_csv_is_answered_on_request(http: httpx2.Client, client: Client, subject: str) -> None:
    client.events.ingest_event(event(subject, 3))
    answer = http.get("/api/v1/meters/input_tokens/query", params={"subject": subject}, headers={"Accept": "text/csv"})
    assert answer.text.splitlines()[0] == "window_start,window_end,subject,value"
    assert answer.text.splitlines()[1].endswith(f"{subject},3")
