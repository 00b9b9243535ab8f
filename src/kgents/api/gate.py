"""Refusing a request by its head alone: before there is a task for it, and before its body is read.

At three times the capacity two of three requests are refused, so that both together may cost a tenth of a request at
most. What the answer says is made once; only the request's id is put in.
"""

from __future__ import annotations

from collections.abc import Iterable
from time import monotonic
from typing import NamedTuple

from kgents.api.admission import Admission, overloaded
from kgents.api.edge import usable
from kgents.api.plain import filled, parts
from kgents.api.problems import is_openai
from kgents.tenants.authenticator import Authenticator

SKIPPED = 65_536  # bytes of a refused body that are read past; a connection with more to come is closed
HEADS = 1024  # that are remembered


class Head(NamedTuple):
    """What the head of a refused request comes to: whose it is, how long its body is, and the answer's two parts."""

    tenant: str
    length: int
    answer: tuple[bytes, bytes]


class Refusal(NamedTuple):
    """An answer; whether the connection ends with it; and what to keep of the head, if that may come again."""

    answer: bytes
    close: bool
    head: Head | None


class Gate:
    """Decides on the heads of requests while as many wait as may, or there are too many connections."""

    def __init__(
        self, admission: Admission, authenticator: Authenticator, most_connections: int, most_body: int
    ) -> None:
        self.admission = admission
        self.most_connections = most_connections
        self.most_body = most_body
        self._authenticator = authenticator
        self._refused: dict[bytes, Head] = {}
        self._forget_at = 0.0
        self._answers = {path: parts(overloaded(), path) for path in ("/v1/", "/v1/models")}

    def refusal(
        self, path: bytes, headers: Iterable[tuple[bytes, bytes]], *, surplus: bool, close: bool
    ) -> Refusal | None:
        """The answer to a request that is refused, None for one that is let in. `close` says that the connection has to
        end with it; it also does where much of the request is still to come. A request on a `surplus` connection is
        always refused.
        """
        if not path.startswith(b"/v1/"):
            return None
        token = given = b""
        length = 0
        for name, value in headers:
            if name == b"authorization":
                token = value
            elif name == b"content-length":
                length = int(value) if len(value) < 8 else SKIPPED + 1
                close = close or length > SKIPPED
            elif name == b"x-request-id":
                given = value
            elif name == b"transfer-encoding":
                close = True
        known = self._authenticator.cached(token[7:].decode("latin-1")) if len(token) > 7 else None
        tenant = known.tenant_id if known else ""
        if not (surplus or self.admission.full(tenant)):
            return None
        self.admission.count("connections" if surplus else "queue")
        request_id = usable(given) if given else None
        answer = self._answers["/v1/models" if is_openai(path.decode("latin-1")) else "/v1/"]
        plain = not (close or given)
        return Refusal(filled(answer, request_id, close=close), close, Head(tenant, length, answer) if plain else None)

    def refuse_again(self, data: bytes) -> bytes | None:
        """The answer to what came on a connection that awaits a request, if it is just one whole request with the very
        head of one that was refused a moment ago, and the tenant's share is still full. None says: parse it.

        Clients that do not hold back send the same head over and over. Parsing it takes longer than refusing it.
        """
        end = data.find(b"\r\n\r\n") + 4
        head = self._refused.get(data[:end])
        if head is None or len(data) != end + head.length or not self.admission.full(head.tenant):
            return None
        self.admission.count("queue")
        return filled(head.answer, None, close=False)

    def remember(self, data: bytes, head: Head) -> None:
        """Keep the head of a request that was refused, for a second at most; `data` is all that came of it."""
        end = data.find(b"\r\n\r\n") + 4
        now = monotonic()
        if now > self._forget_at or len(self._refused) >= HEADS:
            self._refused.clear()
            self._forget_at = now + 1.0
        if len(data) == end + head.length:
            self._refused[data[:end]] = head
