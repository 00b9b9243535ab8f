"""The composition root: how a process is called."""

from __future__ import annotations

import os
import socket

from kgents import app
from kgents.config import Settings


def test_a_process_without_a_name_gets_one_that_no_other_has() -> None:
    assert app._named(Settings(), "worker").process_name == f"{socket.gethostname()}-worker-{os.getpid()}"


def test_a_name_that_was_given_stays() -> None:
    assert app._named(Settings(process_name="api-2"), "api").process_name == "api-2"
