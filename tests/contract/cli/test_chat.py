"""`kgents chat`."""

from __future__ import annotations

import signal

import pytest

from tests.support.cli import Cli
from tests.support.up import UNMEASURED


def test_one_message_is_answered(cli: Cli) -> None:
    done = cli("chat", "echo", "Hello, kgents")
    assert (done.status, done.stdout, done.stderr) == (0, "Hello, kgents\n", "")


def test_lines_are_answered_one_by_one_in_one_session(cli: Cli) -> None:
    done = cli("chat", "echo", stdin="one\n\n  \ntwo\r\nGrüße")
    assert (done.status, done.stdout) == (0, "one\ntwo\nGrüße\n")
    runs = cli.json("run", "list", "--most", "3")
    assert len({run["session_id"] for run in runs}) == 1


def test_words_come_one_by_one_on_a_terminal(cli: Cli) -> None:
    terminal = cli.terminal("chat", "echo", "/sleep 0.3 one two three four")
    assert terminal.end() == 0
    assert terminal.text == "one two three four\n"
    times = [time for time, chunk in terminal.chunks if chunk.strip()]
    assert len(times) >= 4
    assert times[-1] - times[0] >= 0.6


def test_words_come_one_by_one_through_a_pipe(cli: Cli) -> None:
    with cli.start("chat", "echo", "/sleep 0.5 one two three four") as process:
        assert process.stdout is not None
        assert process.stdout.read(4) == b"one "
        assert process.poll() is None
        assert process.communicate(timeout=30)[0] == b"two three four\n"


def test_a_conversation_is_typed_and_ended_by_ctrl_d(cli: Cli) -> None:
    terminal = cli.terminal("chat", "echo")
    terminal.read_until("you> ")
    terminal.type("hello\n")
    terminal.read_until("\nhello\nyou> ")
    terminal.type("\x04")
    assert terminal.end() == 0


def test_ctrl_c_at_the_prompt_and_during_an_answer_ends_quietly(cli: Cli) -> None:
    prompt = cli.terminal("chat", "echo", **UNMEASURED)
    prompt.read_until("you> ")
    prompt.type("\x03")
    assert prompt.end() == 130
    answer = cli.terminal("chat", "echo", "/sleep 1 one two three four", **UNMEASURED)
    answer.read_until("one")
    answer.type("\x03")
    assert answer.end() == 130
    assert "Traceback" not in prompt.text + answer.text


def test_a_tool_call_is_told_beside_the_answer(cli: Cli) -> None:
    cli("agent", "create", "chat-clerk", "--tool", "calculator")
    done = cli("chat", "chat-clerk", '/call calculator {"expression": "6 * 7"}')
    assert (done.status, done.stdout) == (0, "42\n")
    assert "[calculator " in done.stderr


def test_an_answer_that_fails_exits_with_1(cli: Cli) -> None:
    assert "HTTP 500" in cli("chat", "echo", "/fail 500").complaint


@pytest.mark.parametrize("text", ["", " "])
def test_an_empty_message_is_told_what_is_wrong_and_does_not_wait_for_more(cli: Cli, text: str) -> None:
    done = cli("chat", "echo", text, stdin="typed\n")
    assert "typed" not in done.stdout


def test_what_is_not_utf_8_is_refused_in_a_line(cli: Cli) -> None:
    for locale in ("C", "C.UTF-8"):
        assert "not UTF-8 text" in cli("chat", "echo", stdin=b"\xff\xfe\n", LC_ALL=locale).complaint


def test_escapes_of_an_answer_reach_a_pipe_and_not_a_terminal(cli: Cli) -> None:
    text = "a\x1b[31mb\x9bc"
    assert cli("chat", "echo", text).stdout == text + "\n"
    terminal = cli.terminal("chat", "echo", text)
    assert terminal.end() == 0
    assert terminal.text == "a\\x1b[31mb\\x9bc\n"


def test_a_reader_that_has_enough_ends_it_quietly(cli: Cli) -> None:
    with cli.start("chat", "echo", "/words 4000") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        assert process.wait(30) not in (0, -signal.SIGPIPE)
        assert process.stderr.read() == b""
