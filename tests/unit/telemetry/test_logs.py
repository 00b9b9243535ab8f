"""Log lines: their form, and that no secret and no tenant's text gets into them."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from kgents.errors import NotFound
from kgents.telemetry import logs

KEY = "kg_1m85er8a6qw27631_op6v4ykkvqft6nS22NnvtaCAmCiiDeO1oYeYMFJHjzi4bNYpR"


class Log:
    """What was logged."""

    def __init__(self) -> None:
        self.stream = io.StringIO()

    @property
    def text(self) -> str:
        return self.stream.getvalue()

    @property
    def last(self) -> dict[str, Any]:
        line: dict[str, Any] = json.loads(self.text.splitlines()[-1])
        return line


@pytest.fixture
def log() -> Iterator[Log]:
    found = Log()
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    logs.configure("info", "api", stream=found.stream)
    yield found
    structlog.reset_defaults()
    root.handlers, root.level = handlers, level


def logger() -> Any:
    return structlog.get_logger("test")


def test_a_line_is_json_with_time_level_and_process(log: Log) -> None:
    logger().info("request", status=200)
    assert log.last["event"] == "request"
    assert (log.last["level"], log.last["process"], log.last["status"]) == ("info", "api", 200)
    assert log.last["timestamp"].endswith("Z")


def test_bound_ids_are_on_every_line_within(log: Log) -> None:
    with logs.bound(request_id="req_1"):
        logs.bind(tenant_id="ten_1")
        logger().info("inside")
        assert (log.last["request_id"], log.last["tenant_id"]) == ("req_1", "ten_1")
    logger().info("outside")
    assert "request_id" not in log.last


def test_lines_under_the_level_are_left_out(log: Log) -> None:
    logger().debug("hidden")
    assert log.text == ""


@pytest.mark.parametrize(
    "values",
    [
        {"detail": f"key {KEY} was used"},
        {"nested": {"list": [f"Bearer {KEY}"]}},
        {"authorization": KEY},
        {"config": {"password": "kg-canary-password"}},
        {"url": "postgresql://kgents:kg-canary-password@db/kgents"},
        {"header": "Bearer kg-canary-password"},
        {"key": "sk-kg-canary-password"},
        {"stripe": "sk_live_canary-password"},
        # Joined here, so that no scanner takes them for real ones.
        {"google": f"{'AIza'}SyCanary-password_0123456789abcdef"},
        {"aws": f"{'AKIA'}CANARYPASSWORD00"},
        {"github": f"{'ghp_'}canarypassword0123456789"},
        {"hugging": f"{'hf_'}canarypassword0123456789"},
        {"headers": {"x-api-key": "kg-canary-password"}},
    ],
)
def test_secrets_are_masked_wherever_they_stand(log: Log, values: dict[str, Any]) -> None:
    logger().info("event", **values)
    assert KEY not in log.text
    assert "canary-password" not in log.text
    assert logs.MASK in log.text


def test_an_exception_is_logged_without_its_message(log: Log) -> None:
    try:
        raise ValueError("a tenant's text")
    except ValueError as error:
        logger().exception("failed", exc_info=error)
    assert "a tenant's text" not in log.text
    assert log.last["exception"] == "ValueError"
    assert any("test_logs.py" in frame for frame in log.last["frames"])


def test_an_exception_of_ours_is_logged_with_its_detail(log: Log) -> None:
    logger().error("refused", exc_info=NotFound("There is no agent."))
    assert log.last["reason"] == "There is no agent."


def test_other_libraries_come_through_in_the_same_form_without_their_arguments(log: Log) -> None:
    logging.getLogger("some.library").warning("refused %s", "a tenant's text")
    assert (log.last["event"], log.last["library"], log.last["message"]) == ("library", "some.library", "refused %s")


def test_a_message_that_was_put_together_is_logged_as_its_place(log: Log) -> None:
    text = "a tenant's text"
    logging.getLogger("some.library").warning(f"refused {text}")
    assert text not in log.text
    assert "message" not in log.last
    assert log.last["logged_at"].startswith("test_logs.py:")
    assert log.last["logged_at"].endswith(" test_a_message_that_was_put_together_is_logged_as_its_place")


def test_a_template_that_was_put_together_is_logged_as_its_place(log: Log) -> None:
    text = "a tenant's text"
    logging.getLogger("some.library").warning(f"refused {text}: %s", "why")
    assert text not in log.text
    assert "logged_at" in log.last


def test_a_plain_message_of_a_library_is_logged_with_its_exception(log: Log) -> None:
    """As nats-py and uvicorn log: without arguments."""
    try:
        raise ValueError("a tenant's text")
    except ValueError:
        logging.getLogger("nats.aio.client").exception("nats: encountered error\n")
    assert (log.last["message"], log.last["exception"]) == ("nats: encountered error", "ValueError")


def test_a_message_that_a_librarys_wrapper_logs_is_a_message(log: Log) -> None:
    def warn(message: str) -> None:
        logging.getLogger("some.library").warning(message)

    warn("Unsupported upgrade request.")
    assert log.last["message"] == "Unsupported upgrade request."


def test_an_exception_that_is_logged_as_the_message_is_not_written(log: Log) -> None:
    logging.getLogger("some.library").error(ValueError("a tenant's text"))
    assert "a tenant's text" not in log.text
    assert "logged_at" in log.last


@pytest.mark.parametrize("library", ["mcp.client.streamable_http", "client"])
def test_the_client_of_tool_servers_logs_nothing(log: Log, library: str) -> None:
    logging.getLogger(library).error("Unknown SSE event")
    assert log.text == ""


def test_a_stream_that_is_gone_stops_nothing() -> None:
    stream = io.StringIO()
    logs.configure("info", "api", stream=stream)
    try:
        stream.close()
        logger().info("nobody hears")
    finally:
        structlog.reset_defaults()
