"""The HTTP API as the commands use it."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpx2

from kgents.cli.context import Context
from kgents.cli.options import route
from kgents.errors import KgentsError
from kgents.tls import nobody, trusted

PAGE = 100
LAST_EVENTS = ("run.completed", "run.failed", "run.cancelled")
RESUME_ATTEMPTS = 30  # one a second
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
NOT_TEXT = "What was given is not UTF-8 text. Convert it, and try again."

# What the API says of its routes, as this command line says it.
_COMMANDS = {
    r"GET /v1/agents": "kgents agent list",
    r"POST /v1/agents": "kgents agent create",
    r"GET /v1/runs/\{?[\w]+\}?": "kgents run get ID",
    r"GET /v1/runs": "kgents run list",
    r"GET /v1/api-keys": "kgents key list",
    r"POST /v1/api-keys": "kgents key create",
    r"GET /v1/tenants or `kgents tenant list`": "kgents tenant list",
}
_NEXT = {401: "Log in again with: kgents login URL", 402: "See what is left with: kgents usage balance"}


class Refused(KgentsError):
    """The API refused, or could not be reached. `status` is its HTTP status, 0 when there was none."""

    code = "refused"
    status = 0


class Event(NamedTuple):
    """A server-sent event; the data is decoded JSON, or the text where it is none."""

    type: str
    id: str
    data: Any


class Client:
    """One context's API. Every method raises Refused with what the API said and what to do next."""

    def __init__(self, context: Context, *, admin: bool = False) -> None:
        key = context.admin_key if admin else context.api_key
        if not key:
            raise Refused(_no_key(context, admin=admin))
        if not (key.isascii() and key.isprintable()) or " " in key:
            raise Refused("The API key holds characters that no API key has. Copy it again, and: kgents login URL")
        self._url = context.url
        self._client = connect(context.url, {"Authorization": f"Bearer {key}"}, timeout=600.0)

    def get(self, path: str, **params: Any) -> Any:
        """GET, as JSON."""
        return self._call(
            "GET", path, params={name: value for name, value in params.items() if value not in (None, "")}
        )

    def post(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """POST, as JSON."""
        return self._call("POST", path, json=body if body is not None else {})

    def put(self, path: str, body: dict[str, Any]) -> Any:
        """PUT, as JSON."""
        return self._call("PUT", path, json=body)

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
            if not isinstance(page.get("data"), list):
                raise self._stranger()
            items += page["data"]
            if not page.get("has_more"):
                break
            after = page["last_id"]
        return items

    def ask(self, session: str, text: str) -> Iterator[Event]:
        """Run the session's agent; its events to the last, also when the connection is lost in between."""
        body = {"input": text, "mode": "stream"}
        seen = ""
        try:
            with self._stream("POST", route("sessions", session, "runs"), json=body) as response:
                run = response.headers.get("x-run-id", "")
                for event in _events(response.iter_lines()):
                    seen = event.id or seen
                    yield event
                    if event.type in LAST_EVENTS:
                        return
        except httpx2.TransportError as error:
            if not seen:
                raise self._unreachable(error) from error
        if not run:
            raise self._stranger()
        yield from self.follow(run, seen)

    def follow(self, run: str, after: str = "") -> Iterator[Event]:
        """A run's events after the one of the id `after`, to its last; a lost connection is taken up again."""
        failures = 0
        fresh = not after
        while True:
            try:
                headers = {"Last-Event-ID": after} if after else {}
                with self._stream("GET", route("runs", run, "events"), headers=headers) as response:
                    fresh = False
                    if response.status_code == 204:
                        return  # the run has ended with the event that was seen
                    for event in _events(response.iter_lines()):
                        failures = 0
                        after = event.id or after
                        yield event
                        if event.type in LAST_EVENTS:
                            return
            except (httpx2.TransportError, Refused) as error:
                if isinstance(error, Refused) and (error.status < 500 or fresh):
                    raise
                if fresh:
                    raise self._unreachable(error) from error
            failures += 1
            if failures > RESUME_ATTEMPTS:
                raise Refused(
                    f"The events of {run} were cut off. The run goes on; follow it again with: "
                    f"kgents run events {run} --after {after or 0}"
                )
            time.sleep(1.0)

    @contextmanager
    def _stream(self, method: str, path: str, **options: Any) -> Iterator[httpx2.Response]:
        try:
            with self._client.stream(method, path, **options) as response:
                if not response.is_success:
                    response.read()
                    self._raise(response)
                yield response
        except UnicodeEncodeError as error:
            raise Refused(NOT_TEXT) from error

    def _call(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        try:
            response = self._client.request(method, path, **options)
        except httpx2.TransportError as error:
            raise self._unreachable(error) from error
        except UnicodeEncodeError as error:
            raise Refused(NOT_TEXT) from error
        if not response.is_success:
            self._raise(response)
        try:
            found = response.json()
        except ValueError as error:
            raise self._stranger() from error
        if not isinstance(found, dict):
            raise self._stranger()
        return found

    def _unreachable(self, error: Exception) -> Refused:
        return Refused(f"No answer from {self._url} ({error or type(error).__name__}). Is it up? Try: kgents health")

    def _stranger(self) -> Refused:
        return Refused(f"What {self._url} answered is not from a kgents. Check the address: kgents context list")

    def _raise(self, response: httpx2.Response) -> None:
        try:
            body = response.json()
            detail = str(body["error"]["message"] if "error" in body else body["detail"])
        except (ValueError, KeyError, TypeError):
            to = response.headers.get("location", "")
            detail = (
                f"{self._url} answered {response.status_code}{' and points to ' + to if to else ''} without saying "
                "why; is it a kgents? Check the address: kgents context list"
            )
            raise _refused(detail, response.status_code) from None
        detail = re.sub(r"^(?:body|query|path)\.", "", detail)
        for asked, command in _COMMANDS.items():
            detail = re.sub(asked + r"(?![\w/{])", command, detail)
        wait = response.headers.get("retry-after", "")
        more = f"Try again in {wait} s." if wait and wait not in detail else _NEXT.get(response.status_code, "")
        raise _refused(f"{detail} {more}".rstrip(), response.status_code)


def _refused(detail: str, status: int) -> Refused:
    refused = Refused(detail)
    refused.status = status
    return refused


def connect(url: str, headers: Mapping[str, str] | None = None, *, timeout: float) -> httpx2.Client:
    """An HTTP client of an address. A proxy of the environment is for other machines. Raises Refused, and
    Unprocessable as `trusted`.
    """
    try:
        parts = urlsplit(url)
        base = httpx2.URL(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or (parts.port or 1) < 0:
            raise ValueError
    except (ValueError, httpx2.InvalidURL) as error:
        raise Refused(f"{url!r} is not an address. It looks like https://agents.example.com") from error
    here = parts.hostname in ("127.0.0.1", "localhost", "::1")
    try:
        return httpx2.Client(
            base_url=base,
            headers=dict(headers or {}),
            timeout=httpx2.Timeout(timeout, connect=5.0),
            trust_env=not here,
            verify=nobody() if here and parts.scheme == "http" else trusted(),
        )
    except (ValueError, httpx2.InvalidURL, ImportError) as error:  # ImportError: a kind of proxy that needs a package
        names = ", ".join(sorted(name for name in os.environ if name.lower() in _PROXIES))
        raise Refused(
            f"The proxy of the environment ({names}) can't be used. It looks like http://proxy.example.com:3128; "
            "correct it, or unset it."
        ) from error


def _no_key(context: Context, *, admin: bool) -> str:
    environment = context.name == "environment"
    if admin:
        how = "Set KGENTS_ADMIN_KEY" if environment else "Log in with: kgents login URL --admin-key KEY"
        return f"This needs a platform administrator's key, and the context {context.name!r} has none. {how}"
    how = "Set KGENTS_API_KEY" if environment else "Log in with: kgents login URL"
    return f"The context {context.name!r} has no API key. {how}"


def _events(lines: Iterator[str]) -> Iterator[Event]:
    type_, id_ = "message", ""
    data: list[str] = []
    for line in lines:
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if line == "":
            if data:
                yield Event(type_, id_, _json("\n".join(data)))
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
