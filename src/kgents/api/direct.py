"""Routes that the edge calls by itself, past FastAPI, whose layers take a fifth of a small request's time.

They are routes of the FastAPI application, too. It describes them, and it answers every request that is not plainly
right, so that what is wrong with a request is said in one place.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, get_type_hints

import orjson
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.responses import Response

from kgents.api.call import Call, Needs
from kgents.api.json_route import is_json


class DirectRoute:
    """FastAPI's route of a POST of a JSON body to a fixed path: with its body, and its permission, as its endpoint
    declares them.
    """

    def __init__(self, route: APIRoute) -> None:
        hints = get_type_hints(route.endpoint, include_extras=True)
        (depends,) = hints["call"].__metadata__
        needs: Needs = depends.dependency
        self.path = route.path
        self._scope = needs.scope
        self._body: type[BaseModel] = hints["body"]
        self._endpoint: Callable[[Call, BaseModel], Awaitable[Response]] = route.endpoint

    def read(self, body: bytes, content_type: bytes) -> BaseModel | None:
        """The request in `body`; None where FastAPI is to say what is wrong with it."""
        if not is_json(content_type.decode("latin-1")):
            return None
        try:
            value: Any = orjson.loads(body)
            return self._body.model_validate(value)
        except (orjson.JSONDecodeError, ValidationError):
            return None

    async def answer(self, call: Call, body: BaseModel) -> Response:
        """The route's response. Raises Forbidden, and what the route raises."""
        call.principal.require(self._scope)
        return await self._endpoint(call, body)
