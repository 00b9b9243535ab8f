"""Refusing a request by its head alone: before there is a task for it, and before its body is read.

At three times the capacity two of three requests are refused, so that both together may cost a tenth of a request at
most. What the answer says is made once; only the request's id is put in.
"""

from __future__ import annotations

from collections.abc import Iterable

from kgents.api.admission import Admission, overloaded
from kgents.api.edge import SECURITY, usable
from kgents.api.problems import is_openai, render
from kgents.ids import new_id
from kgents.tenants.authenticator import Authenticator

SKIPPED = 65_536  # bytes of a refused body that are read past; a connection with more to come is closed
_ID = "\0"


class Gate:
    """Decides on the heads of requests while as many wait as may, or there are too many connections."""

    def __init__(self, admission: Admission, authenticator: Authenticator, most_connections: int) -> None:
        self.admission = admission
        self.most_connections = most_connections
        self._authenticator = authenticator
        self._answers = {path: _parts(path) for path in ("/v1/", "/v1/models")}

    def refusal(
        self, path: bytes, headers: Iterable[tuple[bytes, bytes]], *, surplus: bool, close: bool
    ) -> tuple[bytes | None, bool]:
        """The whole answer to a request that is refused, None for one that is let in; and whether the connection has to
        end with it, which is so where `close` says it, or where much of the request is still to come. A request on a
        `surplus` connection is always refused.
        """
        if not path.startswith(b"/v1/"):
            return None, close
        token = given = b""
        for name, value in headers:
            if name == b"authorization":
                token = value
            elif name == b"content-length":
                close = close or len(value) > 6 or int(value) > SKIPPED
            elif name == b"x-request-id":
                given = value
            elif name == b"transfer-encoding":
                close = True
        if not surplus:
            known = self._authenticator.cached(token[7:].decode("latin-1")) if len(token) > 7 else None
            if not self.admission.full(known.tenant_id if known else ""):
                return None, close
        self.admission.count("connections" if surplus else "queue")
        request_id = ((usable(given) if given else None) or new_id("req")).encode()
        head, body = self._answers["/v1/models" if is_openai(path.decode("latin-1")) else "/v1/"]
        content = body.replace(b"\\u0000", request_id)
        return head % (b"connection: close\r\n" if close else b"", request_id, len(content)) + content, close


def _parts(path: str) -> tuple[bytes, bytes]:
    error = overloaded()
    body, media_type = render(error, path, _ID)
    lines = [
        b"HTTP/1.1 503 Service Unavailable",
        b"content-type: " + media_type.encode(),
        *(f"{name.lower()}: {value}".encode() for name, value in error.headers.items()),
        *(name + b": " + value for name, value in SECURITY),
    ]
    return b"\r\n".join(lines) + b"\r\n%bx-request-id: %b\r\ncontent-length: %d\r\n\r\n", body
