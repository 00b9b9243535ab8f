"""Which log lines `kgents logs` takes, and how it shows them."""

from __future__ import annotations

import json

import pytest

from kgents.cli.log_lines import Reader, Wanted, parse, shown
from kgents.clock import SECOND, from_rfc3339

START = from_rfc3339("2026-11-26T10:00:00Z")


def text(second: int, event: str = "request", level: object = "info", **fields: object) -> str:
    return json.dumps({"timestamp": f"2026-11-26T10:00:{second:02}.000000Z", "level": level, "event": event, **fields})


def events(wanted: Wanted, *texts: str, process: str = "api") -> list[str]:
    return [line.fields["event"] for line in Reader(wanted, process).read(texts)]


def test_of_a_tenant_and_of_a_trace() -> None:
    texts = [
        text(1, "mine", tenant_id="ten_1", trace_id="aa"),
        text(2, "other trace", tenant_id="ten_1", trace_id="bb"),
        text(3, "other tenant", tenant_id="ten_2", trace_id="aa"),
        text(4, "names it", reason="ten_1 aa"),
    ]
    assert events(Wanted(tenant="ten_1"), *texts) == ["mine", "other trace"]
    assert events(Wanted(tenant="ten_1", trace="aa"), *texts) == ["mine"]


def test_of_a_level_and_above() -> None:
    texts = [text(1, level, level) for level in ("debug", "info", "warning", "error", "critical")]
    assert events(Wanted(level="warning"), *texts) == ["warning", "error", "critical"]


def test_of_a_time() -> None:
    texts = [text(second, str(second)) for second in range(5)]
    assert events(Wanted(since=START + SECOND, until=START + 3 * SECOND), *texts) == ["1", "2"]


@pytest.mark.parametrize(
    ("process", "wanted", "taken"),
    [
        ("api", "api", True),
        ("api-2", "api", True),
        ("kgents-api-5d9c-x2x", "api", True),
        ("worker", "api", False),
        ("kgents-api-5d9c-x2x", "kgents-api-5d9c-x2x", True),
        ("apis", "api", False),
    ],
)
def test_of_a_process(process: str, wanted: str, taken: bool) -> None:
    assert bool(events(Wanted(processes=[wanted]), text(1), process=process)) == taken


def test_what_is_no_json_belongs_to_the_line_before() -> None:
    reader = Reader(Wanted(since=START), "api")
    found = [line for each in (text(1), "Traceback (most recent call last):", text(3)) for line in reader.read([each])]
    assert [line.time - START for line in found] == [SECOND, SECOND, 3 * SECOND]
    assert found[1].fields["level"] == "error"


def test_a_line_of_the_nats_server() -> None:
    line = parse("nats", "[123] 2026/11/26 10:00:01.500000 [WRN] low on disk")
    assert line.time == START + 1_500_000
    assert line.fields["level"] == "warning"


def test_a_line_is_shown_with_its_ids_last_and_no_control_characters() -> None:
    line = parse("api", text(1, "run\x1b[2J failed\nbadly", "error", tenant_id="ten_1", code="max-steps"))
    assert shown(line, colour=False) == (
        "2026-11-26 10:00:01.000 error    api     run\\x1b[2J failed\\nbadly code=max-steps tenant_id=ten_1"
    )
    assert "\x1b[31merror" in shown(line, colour=True)


@pytest.mark.parametrize(("level", "told"), [(None, "-"), (["a"], "a"), ({"a": 1}, "a=1")])
def test_a_line_with_a_level_that_is_none(level: object, told: str) -> None:
    (line,) = Reader(Wanted(), "api").read([text(1, "hello", level)])
    assert shown(line, colour=True) == f"2026-11-26 10:00:01.000 {told:<8} api     hello"


@pytest.mark.parametrize("told", ["[1] 2026/99/99 10:00:00.0 [INF] hello", "[" * 100_000], ids=["time", "depth"])
def test_what_cannot_be_read_belongs_to_the_line_before(told: str) -> None:
    assert parse("nats", told, START).time == START
