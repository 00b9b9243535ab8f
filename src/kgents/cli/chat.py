"""`kgents chat`: a conversation with an agent in the terminal, streamed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from kgents.cli.client import NOT_TEXT, Client, Refused
from kgents.cli.options import client
from kgents.cli.output import note, printable


def run(agent: str, message: str | None, context: str) -> None:
    """Send `message`, or without one what the user types, line by line, until the end of input."""
    api = client(context)
    session = str(api.post("/v1/sessions", {"agent": agent})["id"])
    if message is not None:
        _turn(api, session, message)
        return
    if sys.stdin.isatty():
        note(f"Talking to {agent} in session {session}. Ctrl-D ends.")
    for line in _lines():
        if line.strip():
            _turn(api, session, line)


def _lines() -> Iterator[str]:
    try:
        if not sys.stdin.isatty():
            yield from (line.rstrip("\r\n") for line in sys.stdin)
            return
        import readline  # noqa: F401 - gives input() its editing and history

        while True:
            try:
                line = input("you> ")
            except EOFError:
                note("")
                return
            yield line
    except UnicodeDecodeError as error:
        raise Refused(NOT_TEXT) from error


def _turn(api: Client, session: str, text: str) -> None:
    failed: Refused | None = None
    for event in api.ask(session, text):
        try:
            _print(event.type, event.data)
        except Refused as error:
            failed = error
    sys.stdout.write("\n")
    sys.stdout.flush()
    if failed:
        raise failed


def _print(type_: str, data: Any) -> None:
    """Print an event. Raises Refused for the end of a run that failed."""
    if type_ == "text.delta":
        text = data["text"]
        sys.stdout.write(printable(text) if sys.stdout.isatty() else text)
        sys.stdout.flush()
    elif type_ == "step.completed":
        for call in data["tool_calls"]:
            note(f"[{call['name']} {call['arguments']}]")
    elif type_ == "run.restarted":
        note("\n[its process ended; the run goes on in another]")
    elif type_ == "run.failed":
        raise Refused(data["error"]["detail"])
    elif type_ == "run.cancelled":
        raise Refused("The run was cancelled.")
