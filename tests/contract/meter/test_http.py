"""OpenMeter's HTTP calls as its documentation has them, and what goes wrong: always a problem, never a 5xx."""

from __future__ import annotations

import csv
import socket
from typing import Any
from uuid import uuid4

import httpx2
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kgents.meter.routes import MAX_BODY
from tests.contract.meter.process import TOKEN, MeterProcess, event, send

JSON = {"Content-Type": "application/json"}
QUERY = "/api/v1/meters/input_tokens/query"


@pytest.fixture
def subject() -> str:
    return f"ten_{uuid4().hex}"


def values(answer: httpx2.Response) -> list[int]:
    return [row["value"] for row in answer.raise_for_status().json()["data"]]


def is_problem(answer: httpx2.Response, status: int) -> bool:
    body = answer.json()
    return (
        answer.status_code == status
        and answer.headers["content-type"] == "application/problem+json"
        and body["status"] == status
        and {"type", "title", "detail", "instance"} <= body.keys()
    )


@pytest.mark.parametrize("content_type", ["application/cloudevents+json", "application/json; charset=utf-8"])
def test_one_event(http: httpx2.Client, subject: str, content_type: str) -> None:
    body = orjson.dumps(event(uuid4().hex, 3, subject))
    assert http.post("/api/v1/events", content=body, headers={"Content-Type": content_type}).status_code == 204
    assert values(http.get(QUERY, params={"subject": subject})) == [3]


@pytest.mark.parametrize("content_type", ["application/cloudevents-batch+json", "application/json"])
def test_a_batch(http: httpx2.Client, subject: str, content_type: str) -> None:
    body = orjson.dumps([event(uuid4().hex, 3, subject), event(uuid4().hex, 4, subject)])
    assert http.post("/api/v1/events", content=body, headers={"Content-Type": content_type}).status_code == 204
    assert values(http.get(QUERY, params={"subject": subject})) == [7]


def test_an_empty_batch_is_accepted(http: httpx2.Client) -> None:
    assert send(http, []).status_code == 204


def test_konnects_path_answers_202(http: httpx2.Client, subject: str) -> None:
    body = orjson.dumps([event(uuid4().hex, 3, subject)])
    headers = {"Content-Type": "application/cloudevents-batch+json"}
    assert http.post("/v3/openmeter/events", content=body, headers=headers).status_code == 202
    assert values(http.get(QUERY, params={"subject": subject})) == [3]


def test_a_query_without_windows_tells_the_range_that_was_asked(http: httpx2.Client, subject: str) -> None:
    send(http, [event(uuid4().hex, 3, subject)])
    params = {"subject": subject, "from": "2026-03-10T00:00:00Z", "to": "2026-03-11T00:00:00Z"}
    assert http.get(QUERY, params=params).json() == {
        "from": "2026-03-10T00:00:00Z",
        "to": "2026-03-11T00:00:00Z",
        "data": [
            {
                "value": 3,
                "windowStart": "2026-03-10T00:00:00Z",
                "windowEnd": "2026-03-11T00:00:00Z",
                "subject": subject,
                "groupBy": {},
            }
        ],
    }


def test_a_query_without_a_range_tells_the_minutes_of_the_first_and_the_last_event(
    http: httpx2.Client, subject: str
) -> None:
    times = ("2026-03-10T12:00:59Z", "2026-03-12T08:30:00Z")
    send(http, [event(uuid4().hex, 3, subject, time=time) for time in times])
    (row,) = http.get(QUERY, params={"subject": subject}).json()["data"]
    assert (row["windowStart"], row["windowEnd"]) == ("2026-03-10T12:00:00Z", "2026-03-12T08:31:00Z")


def test_a_range_may_begin_and_end_within_a_minute(http: httpx2.Client, subject: str) -> None:
    times = [f"2026-03-10T12:0{minute}:{second}Z" for minute in (0, 1, 2) for second in ("10", "29.999999", "30")]
    send(http, [event(uuid4().hex, 10**place, subject, time=time) for place, time in enumerate(times)])
    params = {"subject": subject, "from": "2026-03-10T12:00:30Z", "to": "2026-03-10T12:02:30Z"}
    assert values(http.get(QUERY, params=params)) == [11_111_100]
    params = {"subject": subject, "from": "2026-03-10T12:01:10Z", "to": "2026-03-10T12:01:30Z", "windowSize": "DAY"}
    assert values(http.get(QUERY, params=params)) == [11_000]


def test_groups_and_filters(http: httpx2.Client, subject: str) -> None:
    def made(quantity: int, agent: str, model: str) -> dict[str, Any]:
        return event(uuid4().hex, subject=subject, data={"quantity": quantity, "agent": agent, "model": model})

    send(http, [made(1, "a", "m"), made(2, "a", "n"), made(4, "b", "m")])
    grouped = http.get(QUERY, params=[("subject", subject), ("groupBy", "agent"), ("groupBy", "model")]).json()["data"]
    assert [(row["groupBy"], row["value"]) for row in grouped] == [
        ({"agent": "a", "model": "m"}, 1),
        ({"agent": "a", "model": "n"}, 2),
        ({"agent": "b", "model": "m"}, 4),
    ]
    assert values(http.get(QUERY, params={"subject": subject, "filterGroupBy[model]": "m"})) == [5]
    body = {"subject": [subject], "filterGroupBy": {"agent": ["a"], "model": ["n", "o"]}}
    assert values(http.post(QUERY, json=body)) == [2]


def test_several_subjects_are_told_apart_and_none_is_counted_twice(http: httpx2.Client, subject: str) -> None:
    send(http, [event(uuid4().hex, 1, subject), event(uuid4().hex, 2, f"{subject}-b")])
    params = [("subject", f"{subject}-b"), ("subject", subject), ("subject", subject), ("subject", "nobody")]
    rows = http.get(QUERY, params=params).json()["data"]
    assert [(row["subject"], row["value"]) for row in rows] == [(subject, 1), (f"{subject}-b", 2)]


def test_csv_holds_the_same_rows(http: httpx2.Client, subject: str) -> None:
    awkward = f'{subject}, "quoted"\nand broken'
    send(http, [event(uuid4().hex, 3, awkward)])
    answer = http.post(QUERY, json={"subject": [awkward], "groupBy": ["model"]}, headers={"Accept": "text/csv"})
    assert answer.headers["content-type"].startswith("text/csv")
    assert list(csv.reader(answer.text.splitlines(keepends=True))) == [
        ["window_start", "window_end", "subject", "model", "value"],
        ["2026-03-10T12:00:00Z", "2026-03-10T12:01:00Z", awkward, "m", "3"],
    ]


def test_the_meters_and_one_of_them(http: httpx2.Client) -> None:
    listed = http.get("/api/v1/meters").json()
    assert [meter["slug"] for meter in listed] == ["runs", "input_tokens", "output_tokens", "tool_calls"]
    one = http.get("/api/v1/meters/input_tokens").json()
    assert one in listed
    assert (one["aggregation"], one["eventType"], one["valueProperty"], one["groupBy"]) == (
        "SUM",
        "kgents.input_tokens",
        "$.quantity",
        {"agent": "$.agent", "model": "$.model"},
    )


def test_the_subjects_of_a_meter(http: httpx2.Client, subject: str) -> None:
    send(http, [event(uuid4().hex, 1, subject)])
    path = "/api/v1/meters/input_tokens/subjects"
    assert subject in http.get(path).json()
    assert subject in http.get(path, params={"from": "2026-03-10T12:00:00Z"}).json()
    assert subject not in http.get(path, params={"from": "2026-03-10T12:01:00Z"}).json()
    assert subject not in http.get(path, params={"to": "2026-03-10T12:00:00Z"}).json()
    assert subject not in http.get("/api/v1/meters/runs/subjects").json()


def test_events_are_listed_newest_first(http: httpx2.Client, subject: str) -> None:
    ids = [uuid4().hex for _ in range(3)]
    times = ["2026-03-10T12:00:00.5Z", "2026-03-10T12:00:02Z", "2026-03-10T12:00:01Z"]
    for id_, time in zip(ids, times, strict=True):
        send(http, [event(id_, 1, subject, time=time)])
    since = {"from": "2026-03-01T00:00:00Z", "subject": subject}
    listed = http.get("/api/v1/events", params=since).json()
    assert [item["event"]["id"] for item in listed] == [ids[1], ids[2], ids[0]]
    assert listed[2]["event"] == event(ids[0], 1, subject, time="2026-03-10T12:00:00.500000Z")
    assert {"ingestedAt", "storedAt"} <= listed[0].keys()
    by_id = http.get("/api/v1/events", params={**since, "id": ids[2][4:20]}).json()
    assert [item["event"]["id"] for item in by_id] == [ids[2]]
    until = http.get("/api/v1/events", params={**since, "to": "2026-03-10T12:00:01Z", "limit": "1"}).json()
    assert [item["event"]["id"] for item in until] == [ids[2]]
    assert http.get("/api/v1/events", params={**since, "ingestedAtTo": "2026-01-01T00:00:00Z"}).json() == []


def test_data_of_any_shape_comes_back_as_it_was_sent(http: httpx2.Client, subject: str) -> None:
    data = {"quantity": "5", "nested": {"a": [1, 2.5, None, True, "\u0000\u2028é"]}, "agent": 7}
    send(http, [event(uuid4().hex, subject=subject, data=data)])
    listed = http.get("/api/v1/events", params={"from": "2026-03-01T00:00:00Z", "subject": subject}).json()
    assert listed[0]["event"]["data"] == data


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"", "application/json"),
        (b"{", "application/cloudevents+json"),
        (b"\xff\xfe", "application/json"),
        (b'"\xed\xa0\x80"', "application/json"),
        (b'{"id": "\\ud800"}', "application/json"),
        (b"null", "application/json"),
        (b"NaN", "application/json"),
        (b"[" * 100_000, "application/cloudevents-batch+json"),
        (b"[[]]", "application/cloudevents-batch+json"),
        (b"{}", "application/cloudevents-batch+json"),
        (b"[]", "application/cloudevents+json"),
        (b"{}", "text/plain"),
        (b"{}", ""),
    ],
)
def test_a_body_that_is_no_event_is_refused(http: httpx2.Client, body: bytes, content_type: str) -> None:
    assert is_problem(http.post("/api/v1/events", content=body, headers={"Content-Type": content_type}), 400)


@pytest.mark.parametrize("depth", [300, 1000])
def test_data_nested_too_deeply_is_refused_and_the_meter_goes_on(http: httpx2.Client, subject: str, depth: int) -> None:
    body = orjson.dumps(event(uuid4().hex, 3, subject)).replace(
        b'"quantity":3', b'"quantity":3,"deep":' + b"[" * depth + b"]" * depth
    )
    assert is_problem(http.post("/api/v1/events", content=body, headers=JSON), 400)
    assert send(http, [event(uuid4().hex, 3, subject)]).status_code == 204


LEAVES = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text()


@given(value=st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
@settings(max_examples=60)
def test_no_json_makes_it_fail(http: httpx2.Client, value: Any) -> None:
    for body in (value, event("x", data=value), event("x", data={"quantity": value}), event("x", time=value)):
        assert http.post("/api/v1/events", content=orjson.dumps(body), headers=JSON).status_code in (204, 400)
    for body in (value, {"from": value}, {"subject": value}, {"filterGroupBy": value}, {"windowTimeZone": value}):
        assert http.post(QUERY, content=orjson.dumps(body), headers=JSON).status_code in (200, 400)


@given(name=st.sampled_from(["from", "to", "windowSize", "windowTimeZone", "subject", "groupBy"]), value=st.text())
@settings(max_examples=60)
def test_no_parameter_makes_it_fail(http: httpx2.Client, name: str, value: str) -> None:
    for path in (QUERY, "/api/v1/events", "/api/v1/meters/runs/subjects"):
        assert http.get(path, params={name: value, "limit": "1"}).status_code in (200, 400)


@pytest.mark.parametrize("limit", ["0", "101", "-1", "x", "1.5", "²", "9" * 5000])
def test_a_limit_out_of_bounds_is_refused(http: httpx2.Client, limit: str) -> None:
    assert is_problem(http.get("/api/v1/events", params={"limit": limit}), 400)


def test_a_body_over_the_limit_is_refused_before_it_is_read(shared_meter: MeterProcess) -> None:
    port = int(shared_meter.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(
            f"POST /api/v1/events HTTP/1.1\r\nHost: meter\r\nAuthorization: Bearer {TOKEN}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {MAX_BODY + 1}\r\n\r\n".encode()
        )
        assert connection.recv(1000).startswith(b"HTTP/1.1 413 ")


def test_a_body_of_unknown_length_is_refused_at_the_limit(http: httpx2.Client) -> None:
    answer = http.post(QUERY, content=(b" " * 100_000 for _ in range(MAX_BODY // 100_000 + 1)), headers=JSON)
    assert is_problem(answer, 413)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/v1/meters/nothing", 404),
        ("GET", "/api/v1/meters/nothing/query", 404),
        ("GET", "/api/v1/meters/nothing/subjects", 404),
        ("GET", "/api/v1/meters/%00", 404),
        ("GET", "/api/v2/events", 404),
        ("GET", "/", 404),
        ("DELETE", "/api/v1/events", 405),
        ("PUT", "/api/v1/meters/runs", 405),
    ],
)
def test_what_there_is_not_is_a_problem(http: httpx2.Client, method: str, path: str, status: int) -> None:
    assert is_problem(http.request(method, path), status)


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer wrong", f"bearer {TOKEN}x", f"Basic {TOKEN}", f"Bearer  {TOKEN}", TOKEN]
)
def test_without_the_right_token_nothing_is_told(shared_meter: MeterProcess, header: str) -> None:
    headers = {"Authorization": header} if header else {}
    with httpx2.Client(base_url=shared_meter.url, headers=headers, trust_env=False) as client:
        for path in ("/api/v1/meters", QUERY, "/v3/openmeter/events", "/nothing"):
            refusal = client.get(path)
            assert is_problem(refusal, 401)
            assert refusal.headers["www-authenticate"] == "Bearer"
        assert [client.get(path).status_code for path in ("/health", "/readyz")] == [200, 200]


def test_the_word_bearer_may_be_written_in_any_case(shared_meter: MeterProcess) -> None:
    headers = {"Authorization": f"bearer {TOKEN}"}
    assert httpx2.get(f"{shared_meter.url}/api/v1/meters", headers=headers, trust_env=False).status_code == 200
