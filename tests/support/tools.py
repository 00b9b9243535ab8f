"""Programs that tests need and that `uv sync` does not bring."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def left_out(reason: str) -> NoReturn:
    """Skip the test, saying why; in CI, where everything must run, fail it."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"left out in CI: {reason}", pytrace=False)
    pytest.skip(reason)
