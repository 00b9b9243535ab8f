"""Answers that are written to a connection as they are, where there is no application to answer."""

from __future__ import annotations

from http import HTTPStatus

from kgents.api.edge import SECURITY
from kgents.api.problems import render
from kgents.errors import KgentsError
from kgents.ids import new_id

_ID = "\0"  # stands for the request's id


def parts(error: KgentsError, path: str) -> tuple[bytes, bytes]:
    """The head and the body of an error's answer, for `filled`."""
    body, media_type = render(error, path, _ID)
    status = HTTPStatus(error.status)
    lines = [
        f"HTTP/1.1 {status.value} {status.phrase}".encode(),
        b"content-type: " + media_type.encode(),
        *(f"{name.lower()}: {value}".encode() for name, value in error.headers.items()),
        *(name + b": " + value for name, value in SECURITY),
    ]
    return b"\r\n".join(lines) + b"\r\n%bx-request-id: %b\r\ncontent-length: %d\r\n\r\n", body


def filled(answer: tuple[bytes, bytes], given: str | None, *, close: bool) -> bytes:
    """The whole answer of `parts`, with the request's id (a new one, unless it is `given`)."""
    head, body = answer
    request_id = (given or new_id("req")).encode()
    content = body.replace(b"\\u0000", request_id)
    return head % (b"connection: close\r\n" if close else b"", request_id, len(content)) + content
