"""What the head of a request may not be, since two programs on its way could read it in two ways."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.types import Scope

from kgents.errors import InvalidRequest, UnsupportedMediaType

ONCE = frozenset(
    {
        *(b"host", b"authorization", b"content-type", b"content-encoding", b"transfer-encoding"),
        *(b"idempotency-key", b"last-event-id", b"x-request-id", b"traceparent"),
    }
)
"""Headers that decide something here. Of two, a gateway may have looked at the other one."""


def check_head(scope: Scope, headers: Mapping[bytes, bytes]) -> None:
    """Raise InvalidRequest for a request without exactly one Host (RFC 9112, section 3.2), or with two of a header that
    may be there once.
    """
    if b"host" not in headers and scope["http_version"] != "1.0":
        raise InvalidRequest("A request needs the header Host.", code="host-missing", headers={"Connection": "close"})
    if len(headers) == len(scope["headers"]):
        return
    seen: set[bytes] = set()
    for name, _ in scope["headers"]:
        if name in seen and name in ONCE:
            raise InvalidRequest(
                f"The header {name.decode()} is there twice. Send it once.",
                code="header-twice",
                headers={"Connection": "close"},
            )
        seen.add(name)


def check_codings(scope: Scope, headers: Mapping[bytes, bytes]) -> None:
    """Raise UnsupportedMediaType for a body that is compressed, and InvalidRequest for one whose transfer is coded in
    another way than in chunks (RFC 9112, section 6.1). Nothing is ever unpacked here, so that nothing can swell.
    """
    coding = headers.get(b"content-encoding")
    if coding is not None and coding.strip().lower() != b"identity":
        raise UnsupportedMediaType(
            "The body is compressed, which is not taken here. Send it as it is, without Content-Encoding.",
            code="content-coding",
            headers={"Accept-Encoding": "identity"},
        )
    transfer = headers.get(b"transfer-encoding")
    if transfer is not None and (transfer.strip().lower() != b"chunked" or scope["http_version"] == "1.0"):
        raise InvalidRequest(
            "The only transfer coding that is taken is 'chunked', with HTTP/1.1.",
            code="transfer-coding",
            headers={"Connection": "close"},
        )
