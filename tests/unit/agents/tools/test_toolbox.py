"""The toolbox with the built-in tools, and the check of an agent's tools."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from kgents.agents.tools.toolbox import Toolbox, check_tools
from kgents.clock import SECOND, ManualClock
from kgents.config import Settings
from kgents.errors import Unprocessable

BUILTINS = [{"type": "builtin", "name": name} for name in ("calculator", "clock", "http_get")]


def opened(tools: list[dict[str, Any]], clock: ManualClock | None = None) -> Any:
    return Toolbox.open(tools, tenant_id="ten_1", settings=Settings(), clock=clock or ManualClock())


async def call(name: str, arguments: dict[str, Any], clock: ManualClock | None = None) -> str:
    async with opened(BUILTINS, clock) as box:
        result: str = await box.call(name, arguments)
    return result


async def test_has_the_tools_of_the_definition() -> None:
    async with opened(BUILTINS) as box:
        assert [definition.name for definition in box.definitions] == ["calculator", "clock", "http_get"]
        assert [box.kind_of(name) for name in ("clock", "other")] == ["builtin", "unknown"]


async def test_a_toolbox_can_be_empty() -> None:
    async with opened([]) as box:
        assert box.definitions == []
        assert await box.call("clock", {}) == "Error: there is no tool 'clock'. The tools are: none."


async def test_calculates() -> None:
    assert await call("calculator", {"expression": "6 * 7"}) == "42"


async def test_what_a_tool_refuses_is_text_for_the_model() -> None:
    assert await call("calculator", {"expression": "1/0"}) == "Error: Division by zero."


@pytest.mark.parametrize("arguments", [{}, {"expression": 3}, {"expression": "1", "more": 1}, {"INVALID_JSON": "{"}])
async def test_arguments_that_do_not_match_are_text_for_the_model(arguments: dict[str, Any]) -> None:
    assert (await call("calculator", arguments)).startswith("Error: the arguments do not match the tool's schema: at $")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "2023-11-14T22:13:20+00:00 (Tuesday, UTC)"),
        ({"timezone": "Europe/Zurich"}, "2023-11-14T23:13:20+01:00 (Tuesday, Europe/Zurich)"),
        ({"timezone": "Asia/Kolkata"}, "2023-11-15T03:43:20+05:30 (Wednesday, Asia/Kolkata)"),
    ],
)
async def test_the_clock_tells_the_time_of_the_injected_clock(arguments: dict[str, Any], said: str) -> None:
    assert await call("clock", arguments, ManualClock(1_700_000_000 * SECOND)) == said


@pytest.mark.parametrize("zone", ["", "Nowhere", "../../etc/passwd", "/etc/passwd", "Europe", "a\0b", "x" * 10_000])
async def test_a_time_zone_that_is_none_is_an_error(zone: str) -> None:
    assert (await call("clock", {"timezone": zone})).startswith("Error: There is no such time zone.")


async def test_a_tool_that_breaks_does_not_break_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(expression: str) -> str:
        raise RuntimeError("secret")

    monkeypatch.setattr("kgents.agents.tools.builtin.calculate", broken)
    assert await call("calculator", {"expression": "1"}) == "Error: the tool failed (RuntimeError)."


def test_importing_the_toolbox_does_not_import_the_mcp_client() -> None:
    code = "import sys, kgents.agents.tools.toolbox; print('mcp' in sys.modules, 'fastmcp' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "False False"


SERVER = {"type": "mcp", "name": "weather", "url": "https://mcp.example.com/mcp"}


@pytest.mark.parametrize(
    "tools",
    [
        [],
        BUILTINS,
        [SERVER],
        [{**SERVER, "headers": {"Authorization": "Bearer x"}}],
        [SERVER, {**SERVER, "name": "w2"}],
    ],
)
def test_good_tools_pass_the_check(tools: list[dict[str, Any]]) -> None:
    check_tools(tools, Settings())


@pytest.mark.parametrize(
    "tools",
    [
        [{"type": "builtin", "name": "shell"}],
        [{"type": "builtin"}],
        [{"type": "other", "name": "calculator"}],
        [{}],
        [BUILTINS[0], BUILTINS[0]],
        [SERVER, SERVER],
        [{**SERVER, "name": "Weather!"}],
        [{**SERVER, "name": "clock"}],
        [{**SERVER, "name": 3}],
        [{**SERVER, "url": None}],
        [{**SERVER, "url": "http://mcp.example.com/mcp"}],
        [{**SERVER, "url": "https://127.0.0.1/mcp"}],
        [{**SERVER, "headers": []}],
        [{**SERVER, "headers": ["a"]}],
        [{**SERVER, "headers": {"a": 1}}],
        [{**SERVER, "headers": {"Host": "internal"}}],
        [{**SERVER, "headers": {"Transfer-Encoding": "chunked"}}],
        [{**SERVER, "headers": {"x": "a\r\nb: c"}}],
        [{**SERVER, "headers": {"x y": "a"}}],
        [{**SERVER, "headers": {f"x{n}": "a" for n in range(33)}}],
        [{**SERVER, "name": f"s{n}"} for n in range(33)],
    ],
)
def test_bad_tools_are_refused_when_an_agent_is_made(tools: list[dict[str, Any]]) -> None:
    with pytest.raises(Unprocessable) as raised:
        check_tools(tools, Settings())
    assert raised.value.code in ("tool-invalid", "egress-refused")
