"""W3C trace context as text: `traceparent` and `tracestate` (https://www.w3.org/TR/trace-context/).

What is kept with a run, to go on with its trace in another process, is one text: the `traceparent`, and after a space
the `tracestate` where there is one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from kgents.telemetry import logs

_PARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
# Without the quotes and backslashes that a value may have: so it stands in JSON as it is.
_MEMBER = re.compile(r"[a-z0-9][a-z0-9_\-*/@]{0,255}=[\x21\x23-\x2b\x2d-\x3c\x3e-\x5b\x5d-\x7e]{1,256}")
_MAX_STATE = 512  # characters, of which a tracestate may count on being passed on
_IN_MESSAGES = re.compile(rb',"traceparent":"(00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2})"(?:,"tracestate":"([^"]*)")?')


def parse(traceparent: str | None) -> tuple[str, str] | None:
    """Trace id and span id of a `traceparent`, or None for one that is not valid."""
    match = _PARENT.fullmatch(traceparent or "")
    if match is None or match[1] == "0" * 32 or match[2] == "0" * 16:
        return None
    return match[1], match[2]


def join(traceparent: str | None, tracestate: str | None) -> str | None:
    """Both as one text, or None where the `traceparent` is not valid. A `tracestate` that is not valid, is too long to
    be passed on whole or looks like a secret is left out.
    """
    if parse(traceparent) is None:
        return None
    members = [member.strip(" \t") for member in (tracestate or "").split(",")]
    kept = ",".join(member for member in members if member)
    valid = len(kept) <= _MAX_STATE and all(_MEMBER.fullmatch(member) for member in members if member)
    return f"{traceparent} {kept}" if kept and valid and logs.redact(kept) == kept else traceparent


def headers(context: str | None) -> dict[str, str]:
    """The text of `join` as headers."""
    if not context:
        return {}
    traceparent, _, tracestate = context.partition(" ")
    return {"traceparent": traceparent} | ({"tracestate": tracestate} if tracestate else {})


def is_sampled(context: str) -> bool:
    """Whether the trace is being recorded by whoever began it."""
    found = _PARENT.match(context)
    return found is not None and bool(int(found[3], 16) & 1)


def contexts_in(payload: bytes) -> list[str]:
    """The trace contexts of what a message tells of, each once. Usage events have them as CloudEvents' extension for
    distributed tracing.
    """
    return list(dict.fromkeys(b" ".join(filter(None, found)).decode() for found in _IN_MESSAGES.findall(payload)))


def members(context: str | None) -> str:
    """A trace context as the last members of a message's JSON object."""
    return "".join(f',"{name}":"{value}"' for name, value in headers(context).items())


def without_contexts(payload: bytes) -> bytes:
    """The usage events as the meter is to have them, which is the same whether they were traced or not."""
    return _IN_MESSAGES.sub(b"", payload) if b'"traceparent"' in payload else payload


def distinct(contexts: Iterable[str], most: int) -> list[str]:
    """Each once, the first `most` of them."""
    return list(dict.fromkeys(contexts))[:most]
