"""Cursors of lists: taken only in their alphabet and length, and given back as they came."""

from __future__ import annotations

from pydantic import TypeAdapter, ValidationError

from kgents.api.paging import Cursor, page_of
from kgents.api.routes.usage import UsageEventDocument

_CURSOR: TypeAdapter[str] = TypeAdapter(Cursor)
_ALPHABET = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_:.-")

SEEDS = [b"", b"run_01M8A85Q39A1P9QA7HWJ3XS7K7", b"run_01M8A85Q39A1P9QA7HWJ3XS7K7:12:input_tokens", b"a\n", b"a" * 129]


def check(data: bytes) -> None:
    """A cursor, by an independent reading; and the page that would give it."""
    text = data.decode("utf-8", "surrogateescape")
    right = len(text) <= 128 and set(text) <= _ALPHABET
    try:
        taken = _CURSOR.validate_python(text)
    except ValidationError:
        assert not right
        return
    assert right
    assert taken == text
    events = [
        UsageEventDocument.model_construct(id=identifier, quantity=1)
        for identifier in (text, "b", "c")[: len(data) % 4]
    ]
    page = page_of(events, 2)
    assert page.has_more == (len(events) > 2)
    assert page.last_id == (page.data[-1].id if page.data else None)
