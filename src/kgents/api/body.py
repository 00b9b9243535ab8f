"""What a request's body is made of."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Body(BaseModel):
    """An object in a request's body. Its values must be of the types that the API's document gives (`false` is no
    number, `"1"` is none either), and fields that it does not know are refused.

    A list has `fail_fast`: each error takes more memory than hundreds of items, and nobody reads those after the first.
    """

    model_config = ConfigDict(extra="forbid", strict=True)
