"""`kgents chat`: a conversation with an agent in the terminal, streamed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from kgents.cli import context as contexts
from kgents.cli.client import Client, Refused
from kgents.cli.output import note


def run(agent: str, message: str, context: str) -> None:
    """Send `message`, or without one what the user types, until the end of input."""
    client = Client(contexts.current(context))
    session = client.post("/v1/sessions", {"agent": agent})["id"]
    if message:
        _turn(client, session, message)
        return
    if sys.stdin.isatty():
        note(f"Talking to {agent} in session {session}. Ctrl-D ends.")
    for line in _lines():
        if line.strip():
            _turn(client, session, line)


def _lines() -> Iterator[str]:
    if not sys.stdin.isatty():
        yield from (line.rstrip("\n") for line in sys.stdin)
        return
    while True:
        try:
            yield input("you> ")
        except (EOFError, KeyboardInterrupt):
            note("")
            return


def _turn(client: Client, session: str, text: str) -> None:
    body = {"input": text, "mode": "stream"}
    ended = False
    with client.stream(f"/v1/sessions/{session}/runs", body) as events:
        for type_, _, data in events:
            ended = ended or _print(type_, data)
    sys.stdout.write("\n")
    sys.stdout.flush()
    if not ended:
        raise Refused("The answer was cut off. Its run goes on; see: kgents run list")


def _print(type_: str, data: Any) -> bool:
    """Print an event; answers whether it is the last."""
    if type_ == "text.delta":
        sys.stdout.write(data["text"])
        sys.stdout.flush()
    elif type_ == "step.completed":
        for call in data["tool_calls"]:
            note(f"[{call['name']} {call['arguments']}]")
    elif type_ == "run.failed":
        raise Refused(data["error"]["detail"])
    elif type_ == "run.cancelled":
        note("[cancelled]")
    return type_.startswith("run.") and type_ not in ("run.created", "run.restarted")
