"""`kgents` with one fault in its API, which PLANT names, for the fuzzing to find."""

from __future__ import annotations

import os
from typing import Any

import orjson

from kgents.agents import service
from kgents.api import edge
from kgents.api.routes import chat
from kgents.errors import Unauthenticated


def without_key() -> None:
    """One route takes who called it last for the caller, where there is no key."""
    sound = edge._Exchange._authenticate
    last: list[Any] = []

    async def faulty(self: Any) -> Any:
        try:
            last[:] = [await sound(self)]
        except Unauthenticated:
            if not (last and self._path == "/v1/usage/balance"):
                raise
        return last[0]

    edge._Exchange._authenticate = faulty  # type: ignore[method-assign]


def with_an_error() -> None:
    """The longest page of sessions is never answered."""
    sound = service.list_sessions

    def faulty(connection: Any, tenant_id: str, after: str, limit: int, *rest: Any, **named: Any) -> Any:
        if limit == 101:
            raise ZeroDivisionError
        return sound(connection, tenant_id, after, limit, *rest, **named)

    service.list_sessions = faulty


def with_another_answer() -> None:
    """A completion tells its number of tokens as a text."""
    sound = chat.render

    def faulty(*arguments: Any) -> bytes:
        document = orjson.loads(sound(*arguments))
        document["usage"]["total_tokens"] = str(document["usage"]["total_tokens"])
        return orjson.dumps(document)

    chat.render = faulty


# By the fault: what makes it, and an operation in which it shows.
PLANTED = {
    "no key": (without_key, "get_balance"),
    "an error": (with_an_error, "list_sessions"),
    "another answer": (with_another_answer, "create_chat_completion"),
}

if __name__ == "__main__":
    PLANTED[os.environ["PLANT"]][0]()
    from kgents.cli.main import main

    main()
