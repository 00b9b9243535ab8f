"""Stripe's own stripe-mock, built once: it takes and answers what Stripe's OpenAPI document says, and keeps nothing.

https://github.com/stripe/stripe-mock
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx2

from cluster.build import one_at_a_time
from tests.support.ports import free_port
from tests.support.process import ServerProcess
from tests.support.tools import left_out
from tests.support.waiting import wait_until

API_KEY = "sk_test_fake"  # any of this form will do

_MODULE = Path(__file__).parents[1] / "tools" / "stripe-mock"
_CACHE = Path(os.environ.get("KGENTS_CACHE") or Path.home() / ".cache" / "kgents")


def build() -> Path:
    """The program, built from the module in tests/tools. Skips the test without Go."""
    if shutil.which("go") is None:
        left_out("Go is not installed, and builds stripe-mock")
    made_of = [(_MODULE / name).read_bytes() for name in ("go.mod", "go.sum")]
    made_of.append(subprocess.run(["go", "env", "GOVERSION"], capture_output=True, check=True).stdout)
    program = _CACHE / f"stripe-mock-{hashlib.sha256(b''.join(made_of)).hexdigest()[:16]}" / "stripe-mock"
    with one_at_a_time(program):
        if not program.exists():
            unfinished = program.with_name(f".stripe-mock.{os.getpid()}")
            command = [
                "go",
                "build",
                "-trimpath",
                "-ldflags=-s -w",
                "-o",
                str(unfinished),
                "github.com/stripe/stripe-mock",
            ]
            environment = {"GOTOOLCHAIN": "local", "CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false -mod=readonly"}
            subprocess.run(command, cwd=_MODULE, env={**os.environ, **environment}, check=True, timeout=600)
            unfinished.rename(program)
    return program


@contextlib.contextmanager
def serve_stripe_mock(folder: Path) -> Iterator[str]:
    """Its URL, for as long as the context lasts."""
    address = f"127.0.0.1:{free_port()}"
    # It would speak TLS, too, on a fixed port of every address.
    command: list[str | Path] = [build(), f"-http-addr={address}", "-https-addr=127.0.0.1:0"]
    process = ServerProcess(command, folder / "stripe-mock.log")

    def answers() -> bool:
        assert process.is_running(), process.log
        with contextlib.suppress(httpx2.TransportError):
            httpx2.get(f"http://{address}/", trust_env=False)
            return True
        return False

    try:
        wait_until(answers, seconds=30, what="stripe-mock answers")
        yield f"http://{address}"
    finally:
        process.stop()
