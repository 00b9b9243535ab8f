"""The HTTP API as the commands use it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2

from kgents.cli.context import Context
from kgents.errors import KgentsError

PAGE = 100


class Refused(KgentsError):
    """The API refused, or could not be reached."""

    code = "refused"


class Client:
    """One context's API. Every method raises Refused with what the API said and what to do next."""

    def __init__(self, context: Context, *, admin: bool = False) -> None:
        key = context.admin_key if admin else context.api_key
        if not key:
            raise Refused(
                f"This needs a platform administrator's key, and the context {context.name!r} has none. "
                "Log in with: kgents login URL --admin-key KEY"
            )
        self._url = context.url
        self._client = httpx2.Client(
            base_url=context.url,
            headers={"Authorization": f"Bearer {key}"},
            timeout=httpx2.Timeout(600.0, connect=5.0),
        )

    def get(self, path: str, **params: Any) -> Any:
        """GET, as JSON."""
        return self._call(
            "GET", path, params={name: value for name, value in params.items() if value not in (None, "")}
        )

    def post(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """POST, as JSON."""
        return self._call("POST", path, json=body if body is not None else {})

    def patch(self, path: str, body: dict[str, Any]) -> Any:
        """PATCH, as JSON."""
        return self._call("PATCH", path, json=body)

    def delete(self, path: str) -> Any:
        """DELETE, as JSON."""
        return self._call("DELETE", path)

    def every(self, path: str, *, most: int = 1000, **params: Any) -> list[dict[str, Any]]:
        """The items of a list route, page after page, at most `most`."""
        items: list[dict[str, Any]] = []
        after = ""
        while len(items) < most:
            page = self.get(path, limit=min(PAGE, most - len(items)), after=after, **params)
            items += page["data"]
            if not page["has_more"]:
                break
            after = page["last_id"]
        return items

    @contextmanager
    def stream(self, path: str, body: dict[str, Any] | None, *, method: str = "POST") -> Iterator[Iterator[Event]]:
        """The server-sent events that a request answers with."""
        try:
            with self._client.stream(method, path, json=body) as response:
                if response.is_error:
                    response.read()
                    self._raise(response)
                yield _events(response.iter_lines())
        except httpx2.TransportError as error:
            raise self._unreachable(error) from error

    def _call(self, method: str, path: str, **options: Any) -> Any:
        try:
            response = self._client.request(method, path, **options)
        except httpx2.TransportError as error:
            raise self._unreachable(error) from error
        if response.is_error:
            self._raise(response)
        return response.json()

    def _unreachable(self, error: Exception) -> Refused:
        return Refused(f"No answer from {self._url} ({error or type(error).__name__}). Is it up? Try: kgents health")

    def _raise(self, response: httpx2.Response) -> None:
        try:
            body = response.json()
            detail = body["error"]["message"] if "error" in body else body["detail"]
        except (ValueError, KeyError, TypeError):
            detail = f"{self._url} answered {response.status_code} without saying why; is it a kgents?"
        raise Refused(str(detail))


class Event(tuple[str, str, Any]):
    """(type, id, data) of a server-sent event; the data is decoded JSON, or the text where it is none."""

    __slots__ = ()


def _events(lines: Iterator[str]) -> Iterator[Event]:
    type_, id_ = "message", ""
    data: list[str] = []
    for line in lines:
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if line == "":
            if data:
                yield Event((type_, id_, _json("\n".join(data))))
            type_, data = "message", []
        elif field == "event":
            type_ = value
        elif field == "id":
            id_ = value
        elif field == "data":
            data.append(value)


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
