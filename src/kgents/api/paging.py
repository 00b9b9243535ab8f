"""Lists, page by page: `limit` and `after` in, `has_more` and `last_id` out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Generic, Literal, TypeVar

from fastapi import Query
from pydantic import BaseModel

T = TypeVar("T", bound=BaseModel)

Limit = Annotated[int, Query(ge=1, le=100, description="How many items at most; of large ones there are fewer.")]
Cursor = Annotated[
    str,
    Query(max_length=128, pattern=r"^[A-Za-z0-9_:.-]*$", description="The `last_id` of the page before."),
]


class Page(BaseModel, Generic[T]):
    """A page of a list."""

    object: Literal["list"] = "list"
    data: list[T]
    has_more: bool
    last_id: str | None

    @classmethod
    def of(cls, items: Sequence[Any], *, has_more: bool) -> Page[T]:
        """A page of documents that have an `id`."""
        return cls(data=list(items), has_more=has_more, last_id=items[-1].id if items else None)


def page_of(items: Sequence[T], limit: int) -> Page[T]:
    """The page of the first `limit` of the items, of which there is one more when there is a further page."""
    return Page.of(items[:limit], has_more=len(items) > limit)
