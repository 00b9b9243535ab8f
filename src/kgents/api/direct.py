"""Routes that the edge calls by itself, past FastAPI, whose layers take a fifth of a small request's time.

They are routes of the FastAPI application, too. It describes them, and it answers every request that is not plainly
right, so that what is wrong with a request is said in one place.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

import orjson
from pydantic import BaseModel, ValidationError
from starlette.responses import Response

from kgents.api.call import Call
from kgents.api.json_route import is_json

Body = TypeVar("Body", bound=BaseModel)


class DirectRoute(Generic[Body]):
    """A POST of a JSON body to a fixed path, for keys with the permission `scope`."""

    def __init__(
        self, path: str, scope: str, body: type[Body], endpoint: Callable[[Call, Body], Awaitable[Response]]
    ) -> None:
        self.path = path
        self._scope = scope
        self._body = body
        self._endpoint = endpoint

    def read(self, body: bytes, content_type: bytes) -> Body | None:
        """The request in `body`; None where FastAPI is to say what is wrong with it."""
        if not is_json(content_type.decode("latin-1")):
            return None
        try:
            value: Any = orjson.loads(body)
            return self._body.model_validate(value)
        except (orjson.JSONDecodeError, ValidationError):
            return None

    async def answer(self, call: Call, body: Body) -> Response:
        """The route's response. Raises Forbidden, and what the route raises."""
        call.principal.require(self._scope)
        return await self._endpoint(call, body)
