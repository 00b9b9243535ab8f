"""Request bodies parsed by orjson: faster, and strict about UTF-8, lone surrogates and depth."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import orjson
from fastapi import Request, Response
from fastapi.routing import APIRoute

from kgents.errors import UnsupportedMediaType


class JsonRequest(Request):
    """A request whose JSON is parsed once, by orjson (whose error is a json.JSONDecodeError)."""

    async def json(self) -> Any:
        if not hasattr(self, "_json"):
            self._json = orjson.loads(await self.body())
        return self._json


class JsonRoute(APIRoute):
    """A route that reads its body as JsonRequest does, and refuses (415) one that is not said to be JSON."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        reads_body = self.body_field is not None

        async def handler(plain: Request) -> Response:
            request = JsonRequest(plain.scope, plain.receive)
            if reads_body and not is_json(request.headers.get("content-type", "")) and await request.body():
                raise UnsupportedMediaType("Send the body as JSON, with the header Content-Type: application/json.")
            return await handle(request)

        return handler


def is_json(content_type: str) -> bool:
    """Whether a media type is JSON or made of it (RFC 6839)."""
    media_type = content_type.partition(";")[0].strip().lower()
    return media_type == "application/json" or (media_type.startswith("application/") and media_type.endswith("+json"))
